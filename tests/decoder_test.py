"""The decoder's guesses: from visible tokens and positions alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chain_jax.models import decoder

_ROWS, _FRAMES, _WIDTH, _DIM = 3, 6, 8, 10


def _case(seed=0):
  rng = np.random.default_rng(seed)
  tokens = rng.normal(size=(_ROWS, _FRAMES, _WIDTH)).astype(np.float32)
  frame_mask = np.arange(_FRAMES) < np.array([6, 5, 4])[:, None]
  hidden = np.isin(np.arange(_FRAMES), [1, 3])
  return tuple(map(jnp.asarray, (tokens, frame_mask & ~hidden, frame_mask)))


@functools.cache
def _variables(depth):
  model = decoder.FrameDecoder(width=12, depth=depth, num_heads=2)
  init = functools.partial(model.init, feature_dim=_DIM)
  leaves, tree = jax.tree.flatten(jax.jit(init)(jax.random.key(0), *_case()))
  rng = np.random.default_rng(0)
  moved = [
      leaf + 0.2 * rng.normal(size=leaf.shape).astype(np.float32)
      for leaf in leaves
  ]
  return jax.tree.unflatten(tree, moved)


def _guess(tokens, visible_mask, frame_mask, depth=2, **settings):
  model = decoder.FrameDecoder(width=12, depth=depth, num_heads=2, **settings)
  apply = jax.jit(functools.partial(model.apply, feature_dim=_DIM))
  return apply(_variables(depth), tokens, visible_mask, frame_mask)


def test_without_blocks_a_guess_is_as_by_hand():
  tokens, visible, frame_mask = _case()
  params = jax.tree.map(
      lambda leaf: np.asarray(leaf, np.float64), _variables(0)["params"]
  )
  expected = np.zeros((_ROWS, _FRAMES, _DIM))
  for row, frame in np.ndindex(_ROWS, _FRAMES):
    slot = params["mask_token"]
    if visible[row, frame]:
      token = np.asarray(tokens[row, frame], np.float64)
      slot = token @ params["input"]["kernel"] + params["input"]["bias"]
    # Six sines and six cosines: arXiv:1706.03762, Sec. 3.5.
    angles = [frame / 10_000 ** (2 * i / 12) for i in range(6)]
    slot = slot + np.concatenate([np.sin(angles), np.cos(angles)])
    norm = params["mixer"]["final_norm"]
    slot = (slot - slot.mean()) / np.sqrt(slot.var() + 1e-6)
    slot = slot * norm["scale"] + norm["bias"]
    expected[row, frame] = (
        slot @ params["output"]["kernel"] + params["output"]["bias"]
    )
  # float32 sums of a dozen products of size 1.
  np.testing.assert_allclose(
      _guess(tokens, visible, frame_mask, depth=0),
      expected.astype(np.float32),
      rtol=1e-4,
      atol=1e-5,
      strict=True,
  )


def test_a_token_that_is_not_visible_reaches_no_guess():
  tokens, visible, frame_mask = _case()
  changed = jnp.where(visible[..., None], tokens, jnp.nan)
  np.testing.assert_array_equal(
      _guess(changed, visible, frame_mask)[frame_mask],
      _guess(tokens, visible, frame_mask)[frame_mask],
      strict=True,
  )


def test_each_visible_token_reaches_the_guess_of_a_hidden_frame():
  tokens, visible, frame_mask = _case()
  plain = _guess(tokens, visible, frame_mask)
  for frame in (0, 2, 4):
    other = _guess(tokens.at[0, frame].add(1.0), visible, frame_mask)
    assert np.abs(other[0, 1] - plain[0, 1]).max() > 1e-3
    np.testing.assert_array_equal(other[1:], plain[1:], strict=True)


def test_two_hidden_frames_are_told_apart_by_their_positions():
  guess = _guess(*_case())
  assert np.abs(guess[0, 1] - guess[0, 3]).max() > 1e-2


@pytest.mark.parametrize("settings", [{"remat": True}, {"dtype": jnp.bfloat16}])
def test_remat_and_bfloat16_keep_the_answer(settings):
  plain, other = _guess(*_case()), _guess(*_case(), **settings)
  assert other.dtype == jnp.float32
  # bfloat16 keeps 8 bits, over a dozen steps; guesses are of size 1.
  np.testing.assert_allclose(other, plain, atol=0.1, strict=True)


def test_an_untrained_decoder_passes_its_gradient_on_to_the_tokens():
  model = decoder.FrameDecoder(width=12, num_heads=2)
  tokens, visible, frame_mask = _case()
  bound = functools.partial(model.apply, feature_dim=_DIM)
  variables = model.init(
      jax.random.key(0), tokens, visible, frame_mask, feature_dim=_DIM
  )

  def hidden_guesses(tokens):
    guess = bound(variables, tokens, visible, frame_mask)
    return jnp.sum(guess[frame_mask & ~visible] ** 2)

  gradient = np.abs(jax.grad(hidden_guesses)(tokens)).max(axis=-1)
  np.testing.assert_array_equal(gradient > 0, np.asarray(visible), strict=True)
