import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from chain_jax import sharding
from chain_jax.losses import contrastive

_SETTINGS = [(0.3, 0.0), (0.1, 0.0), (0.5, 0.1), (0.3, 0.02), (0.5, 0.6)]


def _embeddings(batch=8, dim=6, seed=0):
  rng = np.random.default_rng(seed)
  video = rng.normal(size=(batch, 1, dim))
  return (video + 0.7 * rng.normal(size=(batch, 2, dim))).astype(np.float32)


def _loss(temperature, positive_prior=0.0):
  return jax.jit(
      functools.partial(
          contrastive.nt_xent,
          temperature=temperature,
          positive_prior=positive_prior,
      )
  )


@pytest.mark.parametrize(("temperature", "positive_prior"), _SETTINGS)
def test_nt_xent_agrees_with_loops_in_float64(temperature, positive_prior):
  embeddings = _embeddings()
  actual = _loss(temperature, positive_prior)(jnp.asarray(embeddings))
  expected = reference.nt_xent(
      embeddings, temperature=temperature, positive_prior=positive_prior
  )
  # Logits up to 10 in float32 are off by 1e-6 each; a missed one moves 1e-2.
  np.testing.assert_allclose(
      actual, np.float32(expected), rtol=1e-5, strict=True
  )


@pytest.mark.parametrize("num_devices", [1, 2, 4, 8])
def test_nt_xent_sees_negatives_on_every_device(num_devices):
  embeddings = _embeddings()
  actual = jax.jit(_loss(0.3))(_sharded(embeddings, num_devices))
  expected = reference.nt_xent(embeddings, temperature=0.3)
  # As above; with the negatives of one device of 8 alone it is off by 1.
  np.testing.assert_allclose(
      actual, np.float32(expected), rtol=1e-5, strict=True
  )


@pytest.mark.parametrize("num_devices", [1, 2, 4, 8])
@pytest.mark.parametrize("positive_prior", [0.0, 0.1])
def test_gradients_on_every_device_agree_with_float64(
    num_devices, positive_prior
):
  embeddings = _embeddings()
  loss = _loss(0.3, positive_prior)
  actual = jax.jit(jax.grad(loss))(_sharded(embeddings, num_devices))
  expected = reference.gradient(
      lambda point: reference.nt_xent(
          point, temperature=0.3, positive_prior=positive_prior
      ),
      embeddings,
  ).astype(np.float32)
  # The bound, entry by entry; entries near 0 relative to the largest.
  np.testing.assert_allclose(
      np.asarray(actual),
      expected,
      rtol=1e-4,
      atol=1e-5 * np.abs(expected).max(),
      strict=True,
  )


def _neighbours():
  """Of 8 videos: row 0 of weight 0 stands for "not in this batch"."""
  rows = np.array(
      [[1, 2], [0, 0], [3, 1], [2, 7], [0, 0], [6, 0], [5, 7], [0, 6]]
  )
  weights = np.array([[0.5, 1], [0.7, 0], [0.2, 0.9], [1, 0.3]] * 2)
  return rows.astype(np.int32), weights.astype(np.float32)


@pytest.mark.parametrize(
    "num_devices, method",
    [(1, "global"), (1, "tiled"), (8, "global"), (4, "ring")],
)
def test_neighbours_are_weighted_positives_by_any_method(num_devices, method):
  embeddings, (rows, weights) = _embeddings(), _neighbours()
  mesh = sharding.make_mesh(jax.devices()[:num_devices])

  def loss(embeddings, rows, weights):
    return contrastive.nt_xent(
        embeddings,
        temperature=0.3,
        method=method,
        mesh=mesh,
        neighbour_rows=rows,
        neighbour_weights=weights,
    )

  given = sharding.to_global((embeddings, rows, weights), mesh)
  value, gradient = jax.jit(jax.value_and_grad(loss))(*given)

  def expected(point):
    return reference.neighbour_nt_xent(point, rows, weights, temperature=0.3)

  # As without neighbours.
  np.testing.assert_allclose(
      value, np.float32(expected(embeddings)), rtol=1e-5, strict=True
  )
  slope = reference.gradient(expected, embeddings).astype(np.float32)
  np.testing.assert_allclose(
      np.asarray(gradient),
      slope,
      rtol=1e-4,
      atol=1e-5 * np.abs(slope).max(),
      strict=True,
  )


def test_neighbours_of_no_weight_change_nothing():
  embeddings, (rows, weights) = jnp.asarray(_embeddings()), _neighbours()
  with_none = contrastive.nt_xent(
      embeddings,
      temperature=0.3,
      neighbour_rows=jnp.asarray(rows),
      neighbour_weights=jnp.asarray(0 * weights),
  )
  # The same sums but for one addition of 0.
  np.testing.assert_allclose(
      with_none, _loss(0.3)(embeddings), rtol=1e-6, strict=True
  )


def test_every_row_of_the_batch_pushes_every_other():
  embeddings = jnp.asarray(_embeddings(batch=4))

  def loss_of_first(others):
    return contrastive.nt_xent(
        jnp.concatenate([embeddings[:1], others]), temperature=0.3
    )

  gradient = jax.jit(jax.grad(loss_of_first))(embeddings[1:])
  assert np.all(np.any(np.asarray(gradient) != 0, axis=-1))


def test_nt_xent_of_two_unlike_videos_by_hand():
  # Each anchor: positive e, two orthogonal negatives of 1 each.
  views = jnp.repeat(jnp.eye(2)[:, None], 2, axis=1)
  expected = np.float32(np.log1p(2 / np.e))
  # One float32 logarithm: a few ulp.
  np.testing.assert_allclose(
      _loss(1.0)(views), expected, rtol=1e-6, strict=True
  )


def test_debiased_negatives_stop_at_their_floor():
  # All embeddings equal: the corrected sum is N * p * (1 - tau) / (1 - tau).
  # With opposite videos it would be negative, and the floor holds.
  views = jnp.array([[[1.0, 0.0]] * 2, [[-1.0, 0.0]] * 2])
  floor = 2 * np.exp(-1.0)
  expected = np.float32(np.log1p(floor / np.e))
  # One float32 logarithm: a few ulp.
  np.testing.assert_allclose(
      _loss(1.0, 0.5)(views), expected, rtol=1e-6, strict=True
  )
  assert np.all(np.isfinite(jax.jit(jax.grad(_loss(1.0, 0.5)))(views)))


@pytest.mark.parametrize("below", [1e-9, 1e-8, 3e-8, 1e-6, 1e-3])
def test_the_debiased_gradient_is_finite_just_above_the_floor(below):
  # Where all but this share of the negatives' sum is taken off it.
  def corrected(log_negatives):
    positive = jnp.float32(0.0)
    return contrastive._debias(
        log_negatives,
        positive,
        num_negatives=2,
        temperature=1.0,
        positive_prior=0.5,
    )

  # log(2 * 0.5) + 0 - log_negatives = -below.
  assert np.isfinite(jax.grad(corrected)(jnp.float32(below)))


@pytest.mark.parametrize("positive_prior", [0.0, 0.1])
def test_nt_xent_ignores_the_order_of_videos_and_of_views(positive_prior):
  embeddings = jnp.asarray(_embeddings())
  loss = _loss(0.3, positive_prior)
  # A sum in another order: a few ulp.
  for changed in (embeddings[::-1], embeddings[:, ::-1]):
    np.testing.assert_allclose(
        loss(changed), loss(embeddings), rtol=1e-6, strict=True
    )


def test_nt_xent_ignores_the_length_of_embeddings():
  embeddings = jnp.asarray(_embeddings())
  lengths = jnp.exp(jnp.arange(16.0) - 8).reshape(8, 2, 1)
  # Rounding of the products: a few ulp.
  np.testing.assert_allclose(
      _loss(0.3)(embeddings * lengths),
      _loss(0.3)(embeddings),
      rtol=1e-5,
      strict=True,
  )


@pytest.mark.parametrize("positive_prior", [0.0, 0.1])
def test_tiny_temperature_and_zero_embeddings_stay_finite(positive_prior):
  embeddings = jnp.asarray(_embeddings()).at[0].set(0.0)
  loss, gradient = jax.jit(jax.value_and_grad(_loss(1e-3, positive_prior)))(
      embeddings
  )
  assert np.isfinite(loss)
  assert np.all(np.isfinite(gradient))


def test_bfloat16_embeddings_accumulate_in_float32():
  embeddings = jnp.asarray(_embeddings(), jnp.bfloat16)
  actual = _loss(0.1)(embeddings)
  expected = reference.nt_xent(
      np.asarray(embeddings, np.float64), temperature=0.1
  )
  # The inputs' rounding is in both: as exact as float32, where bfloat16
  # products would be off by 1e-2.
  np.testing.assert_allclose(
      actual, np.float32(expected), rtol=1e-5, strict=True
  )


@pytest.mark.parametrize(
    ("batch", "temperature", "positive_prior", "field"),
    [
        (4, 0.0, 0.0, "temperature"),
        (4, 0.3, 1.0, "positive_prior"),
        (4, 0.3, -0.1, "positive_prior"),
        (1, 0.3, 0.0, "embeddings"),
    ],
)
def test_bad_settings_are_named(batch, temperature, positive_prior, field):
  with pytest.raises(ValueError, match=f"^`{field}` must"):
    _loss(temperature, positive_prior)(jnp.ones((batch, 2, 3)))


def _sharded(embeddings, num_devices):
  mesh = jax.make_mesh(
      (num_devices,),
      ("data",),
      axis_types=(AxisType.Auto,),
      devices=jax.devices()[:num_devices],
  )
  return jax.device_put(embeddings, NamedSharding(mesh, P("data")))
