import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from chain_jax.losses import contrastive, total
from chain_jax.models import chain

_TERMS = total.LossWeights._fields
_SETTINGS = dict(
    nt_xent=functools.partial(
        contrastive.nt_xent, temperature=0.3, positive_prior=0.1
    ),
    scene_threshold_std=1.0,
    num_learned_bits=8,
)
_MODEL = chain.ChainModel(
    num_bits=16,
    detail_share=0.5,
    width=16,
    depth=1,
    num_heads=2,
    mlp_dim=24,
    reconstructs=True,
    decoder_width=8,
    decoder_depth=1,
)


def _case(batch=4, frames=6, dim=10, seed=0):
  rng = np.random.default_rng(seed)
  views = rng.normal(size=(batch, 2, frames, dim)).astype(np.float32)
  mask = np.arange(frames) < rng.integers(4, frames + 1, size=(batch, 2, 1))
  permutation = np.stack([rng.permutation(frames) for _ in range(batch)])
  # Of 4 to 6 frames a view, 2 are hidden: not the same in each.
  hidden = np.stack([rng.permutation(4) for _ in range(2 * batch)]) < 2
  visible = mask.copy()
  visible[..., :4] &= ~hidden.reshape(batch, 2, 4)
  case = (views, mask, permutation.astype(np.int32), visible)
  return tuple(map(jnp.asarray, case))


def _output(seed=0):
  rng = np.random.default_rng(seed)
  shapes = [(4, 2, 16), (4, 2, 16), (4, 6, 6), (4, 2, 5), (4, 2, 6)]
  arrays = [
      jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes
  ]
  arrays[1], arrays[4] = jnp.tanh(arrays[0]), jnp.square(arrays[4])
  return chain.ChainOutput(*arrays)


def _total(output, views, mask, permutation, visible, weights):
  loss = functools.partial(total.total_loss, weights=weights, **_SETTINGS)
  return jax.jit(loss)(output, views, mask, permutation, visible)


def _weights(**given):
  return total.LossWeights(**{**dict.fromkeys(_TERMS, 0.0), **given})


@functools.cache
def _variables():
  init = functools.partial(_MODEL.init, deterministic=True)
  leaves, tree = jax.tree.flatten(jax.jit(init)(jax.random.key(0), *_case()))
  rng = np.random.default_rng(0)
  moved = [
      leaf + 0.2 * rng.normal(size=leaf.shape).astype(np.float32)
      for leaf in leaves
  ]
  return jax.tree.unflatten(tree, moved)


@functools.cache
def _gradient(weights):
  variables = _variables()

  def loss(params):
    output = _MODEL.apply(
        {**variables, "params": params}, *_case(), deterministic=True
    )
    return total.total_loss(output, *_case(), weights=weights, **_SETTINGS)[0]

  return jax.jit(jax.grad(loss))(variables["params"])


def _is_zero(tree):
  return all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(tree))


def test_terms_agree_with_loops_in_float64_and_add_up():
  output, (views, mask, permutation, visible) = _output(), _case()
  weights = total.LossWeights(1.0, 0.5, 0.25, 0.125, 2.0, 4.0, 8.0)
  value, terms = _total(output, views, mask, permutation, visible, weights)
  labels = [
      _scene_changes(views[b, v], mask[b, v], visible[b, v])
      for b in range(4)
      for v in range(2)
  ]
  codes = np.asarray(output.relaxed_codes)[..., :8]
  expected = {
      "contrastive": reference.nt_xent(
          codes, temperature=0.3, positive_prior=0.1
      ),
      "frame_order": reference.frame_order_loss(
          output.frame_order_logits, permutation.tolist(), mask[:, 0].tolist()
      ),
      "scene_change": reference.scene_change_loss(
          output.scene_change_logits, *zip(*labels, strict=True)
      ),
      "quantisation": reference.quantisation_loss(codes),
      "bit_balance": reference.bit_balance_loss(codes),
      "decorrelation": reference.decorrelation_loss(codes),
      "reconstruction": reference.reconstruction_loss(
          output.frame_errors, mask.tolist(), visible.tolist()
      ),
  }
  expected["total"] = sum(
      weight * expected[name] for name, weight in weights._asdict().items()
  )
  expected["frame_order_accuracy"] = reference.frame_order_accuracy(
      output.frame_order_logits, permutation.tolist(), mask[:, 0].tolist()
  )
  assert set(terms) == set(expected)
  for name, slow in expected.items():
    # float32 sums of tens of terms: a few ulp.
    np.testing.assert_allclose(
        terms[name], np.float32(slow), rtol=1e-5, strict=True
    )
  np.testing.assert_array_equal(value, terms["total"], strict=True)


def _scene_changes(frames, mask, visible):
  labels, valid = reference.scene_change_labels(frames, mask, threshold_std=1.0)
  seen = [
      counts and bool(visible[first] and visible[first + 1])
      for first, counts in enumerate(valid)
  ]
  # The case is of no use if nothing, or all that counts, is hidden.
  assert any(valid) and seen != valid
  return labels, seen


def test_a_term_of_weight_zero_is_logged_and_leaves_the_total():
  value, terms = _total(_output(), *_case(), _weights())
  assert value == 0
  assert all(terms[name] > 0 for name in _TERMS)


@pytest.mark.parametrize("name", _TERMS)
def test_each_term_acts_on_the_encoder(name):
  gradient = _gradient(_weights(**{name: 1.0}))
  assert not _is_zero(gradient["projection"])
  assert not _is_zero(gradient["encoder"]["blocks"])


@pytest.mark.parametrize("name", _TERMS)
def test_each_term_acts_on_the_layer_it_reads_and_on_no_other(name):
  readers = {
      "frame_order": "frame_order_head",
      "scene_change": "scene_change_head",
      "reconstruction": "decoder",
  }
  gradient = _gradient(_weights(**{name: 1.0}))
  read = readers.get(name, "hash_layer")
  for layer in ("hash_layer", *readers.values()):
    assert _is_zero(gradient[layer]) == (layer != read)


@pytest.mark.parametrize("name", _TERMS)
def test_switching_a_term_off_takes_its_gradient_and_only_that(name):
  everything = _gradient(_weights(**dict.fromkeys(_TERMS, 1.0)))
  without = _gradient(_weights(**{**dict.fromkeys(_TERMS, 1.0), name: 0.0}))
  alone = _gradient(_weights(**{name: 1.0}))
  # Three float32 gradients of size 1, summed in different orders.
  jax.tree.map(
      lambda a, b, c: np.testing.assert_allclose(
          a - b, c, rtol=1e-3, atol=2e-5, strict=True
      ),
      everything,
      without,
      alone,
  )


def test_a_switched_off_term_cannot_poison_the_gradient():
  output, case = _output(), _case()
  broken = output._replace(
      scene_change_logits=output.scene_change_logits * jnp.nan
  )
  gradient = jax.grad(
      lambda output: total.total_loss(
          output, *case, weights=_weights(quantisation=1.0), **_SETTINGS
      )[0]
  )(broken)
  assert all(np.all(np.isfinite(leaf)) for leaf in gradient)


def test_without_a_shuffled_view_there_is_no_frame_order_term():
  views, mask, _, visible = _case()
  output = _output()._replace(frame_order_logits=None)
  weights = _weights(contrastive=1.0)
  value, terms = _total(output, views, mask, None, visible, weights)
  assert "frame_order" not in terms
  np.testing.assert_array_equal(value, terms["contrastive"], strict=True)
  with pytest.raises(ValueError, match="^`weights.frame_order` must be 0"):
    total.total_loss(
        output,
        views,
        mask,
        None,
        weights=_weights(frame_order=0.1),
        **_SETTINGS,
    )


def test_without_guessed_frames_there_is_no_reconstruction_term():
  output = _output()._replace(frame_errors=None)
  _, terms = _total(output, *_case(), _weights(contrastive=1.0))
  assert "reconstruction" not in terms
  with pytest.raises(ValueError, match="^`weights.reconstruction` must be 0"):
    _total(output, *_case(), _weights(reconstruction=1.0))


def test_a_mask_that_hides_nothing_changes_no_other_term():
  views, mask, permutation, _ = _case()
  settings = dict(weights=_weights(scene_change=1.0), **_SETTINGS)
  output = _output()
  value, terms = total.total_loss(
      output, views, mask, permutation, mask, **settings
  )
  assert terms["reconstruction"] == 0  # Nothing is left to guess.
  np.testing.assert_array_equal(
      value,
      total.total_loss(output, views, mask, permutation, **settings)[0],
      strict=True,
  )


@pytest.mark.parametrize("name", _TERMS)
def test_a_negative_weight_is_named(name):
  with pytest.raises(ValueError, match=f"^`weights.{name}` must be >= 0"):
    total.total_loss(
        _output(), *_case(), weights=_weights(**{name: -1.0}), **_SETTINGS
    )


@pytest.mark.parametrize(
    "term", ["contrastive", "quantisation", "bit_balance", "decorrelation"]
)
def test_no_term_sees_detail_bits(term):
  output, case = _output(), _case()

  def loss(relaxed_codes):
    return total.total_loss(
        output._replace(relaxed_codes=relaxed_codes),
        *case,
        weights=_weights(**{term: 1.0}),
        **_SETTINGS,
    )[0]

  gradient = np.asarray(jax.jit(jax.grad(loss))(output.relaxed_codes))
  is_learning = np.any(gradient != 0, axis=(0, 1))
  assert is_learning.tolist() == [True] * 8 + [False] * 8
