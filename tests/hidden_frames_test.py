"""What a frame hidden from the encoder does to the model's answers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from chain_jax.losses import reconstruction
from chain_jax.models import chain

_SMALL = dict(
    num_bits=16, width=16, depth=2, num_heads=2, mlp_dim=24, decoder_width=12
)


def _case(batch=4, frames=6, dim=10, seed=0):
  rng = np.random.default_rng(seed)
  views = rng.normal(size=(batch, 2, frames, dim)).astype(np.float32)
  mask = np.arange(frames) < rng.integers(4, frames + 1, size=(batch, 2, 1))
  permutation = np.stack([rng.permutation(frames) for _ in range(batch)])
  visible = mask & ~np.isin(np.arange(frames), [0, 2])
  visible[1, 1] = mask[1, 1]  # One view hides nothing.
  case = (views, mask, permutation.astype(np.int32), visible)
  return tuple(map(jnp.asarray, case))


@functools.cache
def _variables():
  """Of the small model, all moved from where it starts."""
  model = chain.ChainModel(**_SMALL, reconstructs=True)
  init = jax.jit(functools.partial(model.init, deterministic=True))
  leaves, tree = jax.tree.flatten(init(jax.random.key(0), *_case()))
  rng = np.random.default_rng(0)
  moved = [
      leaf + 0.2 * rng.normal(size=leaf.shape).astype(np.float32)
      for leaf in leaves
  ]
  return jax.tree.unflatten(tree, moved)


def _run(*case, reconstructs=True, **settings):
  model = chain.ChainModel(**_SMALL, reconstructs=reconstructs, **settings)
  apply = jax.jit(functools.partial(model.apply, deterministic=True))
  return apply(_variables(), *case)


@pytest.mark.parametrize("pooling", ["pool_then_hash", "hash_then_mean"])
def test_a_hidden_frame_reaches_no_code_and_no_answer_of_a_visible_pair(
    pooling,
):
  views, mask, permutation, visible = _case()
  hidden = mask & ~visible
  changed = jnp.where(hidden[..., None], views + 1.0, views)
  plain, other = (
      _run(frames, mask, permutation, visible, hash_pooling=pooling)
      for frames in (views, changed)
  )
  pairs = visible[..., 1:] & visible[..., :-1]
  for actual, expected in (
      (other.hash_logits, plain.hash_logits),
      (other.relaxed_codes, plain.relaxed_codes),
      (other.scene_change_logits[pairs], plain.scene_change_logits[pairs]),
      (other.frame_errors[visible], plain.frame_errors[visible]),
  ):
    np.testing.assert_array_equal(actual, expected, strict=True)
  # It is what a guess is held against.
  changes = np.abs(other.frame_errors[hidden] - plain.frame_errors[hidden])
  assert np.all(changes > 1e-4)


def test_a_view_with_hidden_frames_is_a_view_that_never_had_them():
  views, mask, permutation, visible = _case()
  # Padding in the middle, as far as the encoder and the hash layer can tell.
  np.testing.assert_array_equal(
      _run(views, mask, permutation, visible).hash_logits,
      _run(views, visible, permutation).hash_logits,
      strict=True,
  )


def test_the_shuffled_view_sees_every_frame():
  views, mask, permutation, visible = _case()
  np.testing.assert_array_equal(
      _run(views, mask, permutation, visible).frame_order_logits,
      _run(views, mask, permutation).frame_order_logits,
      strict=True,
  )


def test_each_view_hides_its_own_frames():
  views, mask, permutation, visible = _case()
  other_visible = visible.at[0, 1, 1].set(False)
  plain = _run(views, mask, permutation, visible).hash_logits
  other = _run(views, mask, permutation, other_visible).hash_logits
  changed = np.any(np.asarray(plain != other), axis=-1)
  assert np.argwhere(changed).tolist() == [[0, 1]]


def test_hiding_nothing_and_no_mask_are_the_same():
  views, mask, permutation, _ = _case()
  jax.tree.map(
      np.testing.assert_array_equal,
      _run(views, mask, permutation, mask),
      _run(views, mask, permutation),
  )


def test_the_decoder_changes_no_other_answer():
  plain = _run(*_case(), reconstructs=False)
  assert plain.frame_errors is None
  # The same products, compiled beside others.
  jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
      _run(*_case())._replace(frame_errors=None),
      plain,
  )


def test_the_error_is_the_mean_square_over_hidden_frames_and_dimensions():
  views, mask, permutation, visible = _case()
  model = chain.ChainModel(**_SMALL, reconstructs=True)
  output, kept = model.apply(
      _variables(),
      *_case(),
      deterministic=True,
      capture_intermediates=lambda module, _: module.name == "decoder",
      mutable="intermediates",
  )
  guesses = kept["intermediates"]["decoder"]["__call__"][0]
  guesses = np.asarray(guesses, np.float64).reshape(views.shape)
  statistics = _variables()["statistics"]["standardizer"]
  mean, scale = (
      np.asarray(statistics[name], np.float64) for name in ("mean", "scale")
  )
  squares = []
  for video, view, frame in np.ndindex(mask.shape):
    if mask[video, view, frame] and not visible[video, view, frame]:
      target = (np.asarray(views[video, view, frame]) - mean) * scale
      squares += [
          (guess - wanted) ** 2
          for guess, wanted in zip(
              guesses[video, view, frame], target, strict=True
          )
      ]
  actual = reconstruction.reconstruction_loss(
      output.frame_errors, mask, visible
  )
  # float32 means of 140 squares of size 1.
  np.testing.assert_allclose(
      actual, np.float32(sum(squares) / len(squares)), rtol=1e-5, strict=True
  )


def test_bfloat16_guesses_like_float32():
  plain = _run(*_case()).frame_errors
  half = _run(*_case(), dtype="bfloat16").frame_errors
  assert half.dtype == jnp.float32
  # 8 bits over two dozen steps, of errors of size 2.
  assert np.mean(np.abs(half - plain)) < 0.1


def test_without_a_decoder_the_other_parameters_start_the_same():
  plain, guessing = (
      chain.ChainModel(**_SMALL, reconstructs=reconstructs).init(
          jax.random.key(0), *_case(), deterministic=True
      )
      for reconstructs in (False, True)
  )
  del guessing["params"]["decoder"]
  jax.tree.map(np.testing.assert_array_equal, plain, guessing)


def test_codes_are_the_same_with_the_decoder_s_parameters_lying_by():
  views, mask, *_ = _case()
  plain, guessing = (
      chain.ChainModel(**_SMALL, reconstructs=reconstructs).apply(
          _variables(), views[:, 0], mask[:, 0], method="encode"
      )
      for reconstructs in (False, True)
  )
  np.testing.assert_array_equal(plain, guessing, strict=True)


def test_the_loss_is_the_mean_of_hidden_valid_frames_and_zero_without_any():
  _, mask, _, visible = _case()
  errors = np.random.default_rng(0).uniform(size=mask.shape).astype(np.float32)
  # What is seen, and padding, may hold anything.
  errors = jnp.where(mask & ~visible, errors, jnp.nan)
  loss = jax.value_and_grad(reconstruction.reconstruction_loss)
  value, gradient = loss(errors, mask, visible)
  expected = reference.reconstruction_loss(errors, mask, visible)
  np.testing.assert_allclose(
      value, np.float32(expected), rtol=1e-6, strict=True
  )
  # By hand: one over the number of hidden frames, of these only.
  hidden = np.asarray(mask & ~visible)
  np.testing.assert_allclose(
      gradient, (hidden / hidden.sum()).astype(np.float32), rtol=1e-6
  )
  value, gradient = loss(errors, mask, mask)
  assert value == 0 and not np.any(gradient)
