"""Features of views: dequantised, changed part by part, padding stays 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chain_jax import sharding
from chain_jax.data import augment, records

_EVERYTHING = augment.FeatureAugmentation(
    noise_std=0.1, dropout_rate=0.2, mix_max=0.3
)
_PARTS = {
    "noise": lambda key, views, mask, amount: augment.add_noise(
        key, views, mask, noise_std=amount
    ),
    "dropout": lambda key, views, mask, amount: augment.drop_features(
        key, views, dropout_rate=amount
    ),
    "mixing": lambda key, views, mask, amount: augment.mix_neighbours(
        key, views, mask, mix_max=amount
    ),
}


def _key(number=0):
  return jax.random.key(number)


def _views(batch=4, slots=6, dim=16, num_shown=None):
  """Features in [0, 9], and a mask; view 1 of a video shows fewer frames."""
  rng = np.random.default_rng(0)
  views = (rng.random((batch, 2, slots, dim)) * 9).astype(np.float32)
  mask = np.ones((batch, 2, slots), bool)
  mask[:, 1, slots - 2 :] = False
  if num_shown is not None:
    mask[:] = np.arange(slots) < num_shown
  return jnp.asarray(np.where(mask[..., None], views, 0)), jnp.asarray(mask)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_stored_numbers_become_features_and_padding_exactly_0(dtype):
  stored = (np.random.default_rng(0).random((2, 3, 4)) * 200).astype(dtype)
  mask = np.array([[True, True, False], [True, False, False]])
  scale, offset = np.float32(4 / 255), np.float32(4 / 512 - 2)
  features = augment.to_features(
      jnp.asarray(stored), jnp.asarray(mask), records.Scaling(scale, offset)
  )
  expected = stored.astype(np.float64) * scale + offset
  expected = np.where(mask[..., None], expected, 0).astype(np.float32)
  # One rounding of a product of at most 4: an ulp is 2.4e-7.
  np.testing.assert_allclose(features, expected, atol=5e-7, strict=True)
  assert np.all(np.asarray(features)[~mask] == 0)


def test_a_scaling_can_differ_by_dimension():
  scaling = records.Scaling(
      np.array([1, 2], np.float32), np.array([0, -1], np.float32)
  )
  features = augment.to_features(
      jnp.full((1, 1, 2), 3, jnp.uint8), jnp.ones((1, 1), bool), scaling
  )
  assert features.tolist() == [[[3.0, 5.0]]]


@pytest.mark.parametrize("stored", [np.nan, np.inf])
def test_padding_is_0_whatever_is_stored_there(stored):
  features = augment.to_features(
      jnp.full((1, 2), stored, jnp.float32),
      jnp.zeros(1, bool),
      records.IDENTITY,
  )
  assert features.tolist() == [[0.0, 0.0]]


def test_padding_stays_0_and_shown_frames_change():
  views, mask = _views()
  changed = np.asarray(
      augment.make_views(_key(), views, mask, records.IDENTITY, _EVERYTHING)
  )
  assert changed.dtype == np.float32
  assert np.all(changed[~np.asarray(mask)] == 0)
  moved = np.any(changed != np.asarray(views), axis=-1)
  np.testing.assert_array_equal(moved, np.asarray(mask), strict=True)


def test_with_everything_off_features_stay_as_they_are():
  views, mask = _views()
  same = augment.make_views(
      _key(), views, mask, records.IDENTITY, augment.FeatureAugmentation()
  )
  np.testing.assert_array_equal(same, views, strict=True)


@pytest.mark.parametrize("part", _PARTS)
def test_a_part_repeats_with_its_key_and_changes_with_another(part):
  views, mask = _views()
  first, again, other = (
      np.asarray(_PARTS[part](_key(number), views, mask, 0.5))
      for number in (0, 0, 1)
  )
  np.testing.assert_array_equal(first, again, strict=True)
  assert np.mean(first != other) > 0.3
  assert np.mean(first != np.asarray(views)) > 0.3


@pytest.mark.parametrize("part", _PARTS)
def test_views_and_videos_get_draws_of_their_own(part):
  views, mask = _views(num_shown=6)
  views = jnp.broadcast_to(views[:1, :1], views.shape)
  changed = np.asarray(_PARTS[part](_key(), views, mask, 0.5))
  rows = changed.reshape(8, -1)
  assert len({row.tobytes() for row in rows}) == 8
  assert np.mean(rows[0] != rows[1]) > 0.4


@pytest.mark.parametrize("num_devices", [2, 8])
def test_draws_do_not_depend_on_devices(num_devices):
  views, mask = _views(batch=8)
  change = jax.jit(
      lambda views, mask: augment.make_views(
          _key(), views, mask, records.IDENTITY, _EVERYTHING
      )
  )
  mesh = sharding.make_mesh(jax.devices()[:num_devices])
  split = jax.device_put((views, mask), sharding.batch_sharding(mesh))
  # Compiled for other shapes, sums and products may round once otherwise.
  np.testing.assert_allclose(
      change(*split), change(views, mask), rtol=1e-5, atol=1e-6, strict=True
  )


def test_noise_is_one_gaussian_vector_for_all_frames_of_a_view():
  views, mask = _views(batch=1, dim=4000)
  noisy = augment.add_noise(_key(), views, mask, noise_std=0.1)
  views, mask = np.asarray(views), np.asarray(mask)
  for view in range(2):
    shown = views[0, view][mask[0, view]]
    shift = np.asarray(noisy)[0, view][mask[0, view]] - shown
    # Adding to values up to 9 rounds at 5e-7; the shift itself is about .5.
    np.testing.assert_allclose(
        shift, np.tile(shift[0], (len(shown), 1)), atol=2e-6
    )
    root_mean_square = np.sqrt(np.mean(np.square(shown, dtype=np.float64)))
    unit = shift[0] / (0.1 * root_mean_square)
    # 4000 draws: standard errors .016 of the mean and .011 of the spread.
    assert abs(unit.mean()) < 0.08 and abs(unit.std() - 1) < 0.056


def test_noise_scales_with_the_features():
  views, mask = _views()
  small = augment.add_noise(_key(), views, mask, noise_std=0.1)
  large = augment.add_noise(_key(), views * 1024, mask, noise_std=0.1)
  # A power of two changes no digit of a float32.
  np.testing.assert_array_equal(large, small * 1024, strict=True)


def test_dropout_drops_the_same_dimensions_in_all_frames_of_a_view():
  views = jnp.ones((1, 2, 6, 10_000))
  dropped = np.asarray(augment.drop_features(_key(), views, dropout_rate=0.2))
  for view in dropped[0]:
    np.testing.assert_array_equal(view, np.tile(view[0], (6, 1)))
    assert set(np.unique(view)) == {0, np.float32(1.25)}
    # Binomial of 10,000: one standard deviation is .004.
    assert abs(np.mean(view[0] == 0) - 0.2) < 0.02


def test_mixing_blends_a_frame_with_one_neighbour_up_to_the_largest_weight():
  # One-hot frames: a row of the result is its weights.
  views = jnp.broadcast_to(jnp.eye(8), (150, 2, 8, 8))
  mask = jnp.broadcast_to(jnp.arange(8) < 6, (150, 2, 8))  # Two are padding.
  views = jnp.where(mask[..., None], views, 0.0)
  mixed = augment.mix_neighbours(_key(), views, mask, mix_max=0.4)
  mixed = np.asarray(mixed).reshape(300, 8, 8)
  assert np.all(mixed[:, 6:] == 0) and np.all(mixed[:, :, 6:] == 0)
  weights = mixed[:, :6, :6]
  np.testing.assert_allclose(weights.sum(axis=2), np.ones((300, 6)), rtol=1e-6)
  own = np.diagonal(weights, axis1=1, axis2=2)
  assert np.all(own >= 0.6 - 1e-6) and own.min() < 0.61
  far = np.abs(np.subtract.outer(np.arange(6), np.arange(6))) > 1
  assert np.all(weights[:, far] == 0)
  assert np.all(np.count_nonzero(weights, axis=2) <= 2)
  before = np.count_nonzero(weights[:, 3, 2])
  after = np.count_nonzero(weights[:, 3, 4])
  assert before + after >= 299  # A weight of 0 is possible, and rare.
  assert abs(before - after) < 87  # 5 standard deviations.


def test_mixing_stays_between_the_smallest_and_largest_value():
  views, mask = _views(batch=50)
  views = views.at[:, :, ::2].set(0)
  mixed = np.asarray(augment.mix_neighbours(_key(), views, mask, mix_max=1.0))
  assert np.all(mixed >= 0)
  # Rounding: one ulp of 9 is 1e-6.
  assert np.all(mixed <= np.asarray(views).max(axis=2, keepdims=True) + 1e-6)


@pytest.mark.parametrize("slots", [1, 6])
def test_a_frame_alone_in_its_view_has_no_neighbour_to_mix_with(slots):
  views, mask = _views(slots=slots, num_shown=1)
  mixed = augment.mix_neighbours(_key(), views, mask, mix_max=0.5)
  np.testing.assert_array_equal(mixed, views, strict=True)


@pytest.mark.parametrize("part", _PARTS)
def test_a_part_switched_off_is_the_identity(part):
  views, mask = _views()
  same = _PARTS[part](_key(), views, mask, 0.0)
  np.testing.assert_array_equal(same, views, strict=True)
