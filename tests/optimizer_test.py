"""The schedule by hand; decay on kernels alone; updates under the clip."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from chain_jax import config as config_lib
from chain_jax import optimizer as optimizer_lib
from chain_jax import train_state


def _rates(steps, **settings):
  schedule = optimizer_lib.make_schedule(**settings)
  return np.array([float(schedule(step)) for step in steps])


def test_the_schedule_starts_at_0_peaks_and_ends_at_0():
  rates = _rates(
      (0, 5, 10, 60, 110), learning_rate=0.8, warmup_steps=10, num_steps=110
  )
  # Halfway up 0.4; halfway down (1 + cos(pi / 2)) / 2 = 1/2 of the peak.
  expected = np.array([0.0, 0.4, 0.8, 0.4, 0.0])
  # float32 cosines: 1e-6 is 10 ulp of the peak.
  np.testing.assert_allclose(rates, expected, atol=1e-6, strict=True)


def test_without_a_warmup_the_first_step_has_the_peak():
  rates = _rates((0, 50, 100), learning_rate=0.8, warmup_steps=0, num_steps=100)
  np.testing.assert_allclose(rates, [0.8, 0.4, 0.0], atol=1e-6, strict=True)


def test_a_warmup_fills_at_most_half_of_a_short_run():
  rates = _rates((0, 2, 4), learning_rate=0.8, warmup_steps=50, num_steps=4)
  np.testing.assert_allclose(rates, [0.0, 0.8, 0.0], atol=1e-6, strict=True)


@pytest.mark.parametrize("num_steps", [1, 2])
def test_the_shortest_runs_have_finite_rates(num_steps):
  rates = _rates(
      range(num_steps), learning_rate=0.8, warmup_steps=50, num_steps=num_steps
  )
  assert np.isfinite(rates).all() and (rates <= np.float32(0.8)).all()


@pytest.fixture(scope="module", params=[0, 32], ids=["linear", "hidden"])
def params(request):
  config = config_lib.ModelConfig(
      num_bits=16,
      width=8,
      depth=2,
      num_heads=2,
      mlp_dim=16,
      hash_hidden_dim=request.param,
  )
  initialise = train_state.make_initialiser(
      train_state.make_model(config),
      optax.identity(),
      num_frames=4,
      feature_dim=6,
  )
  return jax.jit(initialise)(0).params


def _marks(params):
  marks = jax.tree_util.tree_leaves_with_path(optimizer_lib.decays(params))
  return {jax.tree_util.keystr(path): mark for path, mark in marks}


def test_only_kernels_decay_in_the_real_model(params):
  marks = _marks(params)
  names = {name.rsplit("'", 2)[1] for name in marks}
  assert names == {"kernel", "bias", "scale"}
  assert all(mark == ("'kernel'" in name) for name, mark in marks.items())


def test_biases_of_scanned_blocks_have_two_axes_and_do_not_decay(params):
  leaves = jax.tree_util.tree_leaves_with_path(params)
  stacked = [
      jax.tree_util.keystr(path)
      for path, leaf in leaves
      if leaf.ndim >= 2 and path[-1].key != "kernel"
  ]
  assert stacked and not any(_marks(params)[name] for name in stacked)


def _update(params, gradients, **settings):
  optimizer = optimizer_lib.make_optimizer(
      lambda step: 0.1,
      **dict(weight_decay=0.0, gradient_clip=0.0, adam_b2=0.98) | settings,
  )

  @jax.jit
  def first_update(params, gradients):
    return optimizer.update(gradients, optimizer.init(params), params)[0]

  return first_update(params, gradients)


def test_decay_alone_shrinks_kernels_by_rate_times_decay(params):
  zeros = jax.tree.map(jnp.zeros_like, params)
  ones = jax.tree.map(jnp.ones_like, params)
  updates = _update(ones, zeros, weight_decay=0.5)
  for path, update in jax.tree_util.tree_leaves_with_path(updates):
    expected = -0.1 * 0.5 if path[-1].key == "kernel" else 0.0
    np.testing.assert_allclose(update, expected, rtol=1e-6)


def test_clipping_scales_gradients_down_to_the_norm_and_never_up():
  # Adam's second moment sees what the clip lets through: 0.02 * clipped^2.
  params = {"kernel": jnp.zeros(2)}
  gradients = {"kernel": jnp.array([30.0, 40.0])}  # Norm 50.
  for clip, scale in ((5.0, 0.1), (500.0, 1.0), (0.0, 1.0)):
    optimizer = optimizer_lib.make_optimizer(
        lambda step: 0.1, weight_decay=0.0, gradient_clip=clip, adam_b2=0.98
    )
    _, state = optimizer.update(gradients, optimizer.init(params), params)
    seen = optax.tree_utils.tree_get(state, "nu")["kernel"]
    expected = 0.02 * np.square(scale * np.array([30.0, 40.0], np.float32))
    np.testing.assert_allclose(
        seen, expected.astype(np.float32), rtol=1e-5, strict=True
    )


def test_the_first_update_is_the_learning_rate_at_most(params):
  gradients = jax.tree.map(lambda leaf: 1e6 * jnp.ones_like(leaf), params)
  for update in jax.tree.leaves(_update(params, gradients, gradient_clip=1.0)):
    # Adam divides by the gradient's own size; float32 rounding above.
    assert np.abs(update).max() <= 0.1 * (1 + 1e-5)
