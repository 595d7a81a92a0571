import numpy as np
import pytest

from chain_jax import errors
from chain_jax.data import detail_bits


def _kinds(rng, *, num_kinds=10, videos=12, dim=20):
  """Kinds far apart in 6 dimensions, their videos in dimensions 6 and 7."""
  features = np.zeros((num_kinds * videos, dim))
  features[:, :6] = np.repeat(rng.normal(size=(num_kinds, 6)), videos, axis=0)
  features[:, 6:8] = 0.3 * rng.normal(size=(len(features), 2))
  features += 0.01 * rng.normal(size=features.shape)
  return np.float32(features + 7)


def _share_within(features, directions):
  """Returns the share of each projection's variance within the kinds."""
  projections = (features @ directions).reshape(10, 12, -1)
  within = projections - projections.mean(axis=1, keepdims=True)
  return within.var(axis=(0, 1)) / projections.var(axis=(0, 1))


def test_directions_are_those_in_which_videos_of_a_kind_differ():
  features = _kinds(np.random.default_rng(0))
  found = detail_bits.fit_detail_directions(features, num_bits=2)
  assert _share_within(features, found.directions).min() > 0.9
  # Those of largest variance tell the kinds.
  by_variance = np.linalg.svd(features - features.mean(axis=0))[2][:2].T
  assert _share_within(features, by_variance).max() < 0.1


def test_bits_split_the_videos_in_halves_and_tell_most_apart():
  rng = np.random.default_rng(1)
  features = _kinds(rng)
  found = detail_bits.fit_detail_directions(features, num_bits=8)
  projections = features @ found.directions - found.offsets
  # float32 sums of 20 products of 7.
  np.testing.assert_allclose(projections.std(axis=0), np.ones(8), atol=1e-3)
  bits = projections >= 0
  assert np.abs(bits.mean(axis=0) - 0.5).max() <= 1 / len(bits)
  random = (features - features.mean(axis=0)) @ rng.normal(size=(20, 8))
  num_codes = [len(np.unique(rows, axis=0)) for rows in (bits, random >= 0)]
  assert num_codes[0] > 2 * num_codes[1]


def test_no_other_direction_tells_near_videos_better_apart():
  rng = np.random.default_rng(2)
  features = np.float64(_kinds(rng))
  num_videos, dim = features.shape
  found = detail_bits.fit_detail_directions(np.float32(features), num_bits=1)
  centred = features - features.mean(axis=0)
  units = centred / np.linalg.norm(centred, axis=1, keepdims=True)
  differences = []
  for video in range(num_videos):
    others = sorted(
        set(range(num_videos)) - {video},
        key=lambda other: -units[video] @ units[other],
    )
    differences += [centred[video] - centred[other] for other in others[:3]]
  near = np.transpose(differences) @ differences / len(differences)
  total = centred.T @ centred / num_videos
  total += 0.01 * np.trace(total) / dim * np.eye(dim)

  def ratio(direction):
    return (direction @ near @ direction) / (direction @ total @ direction)

  best = ratio(np.float64(found.directions[:, 0]))
  tried = [ratio(direction) for direction in rng.normal(size=(200, dim))]
  tried += [ratio(direction) for direction in np.eye(dim)]
  tried += [
      ratio(found.directions[:, 0] * (1 + 0.3 * direction))
      for direction in rng.normal(size=(200, dim))
  ]
  assert best >= max(tried)


def test_equal_videos_have_finite_directions():
  found = detail_bits.fit_detail_directions(
      np.ones((40, 9), np.float32), num_bits=8
  )
  assert all(np.isfinite(array).all() for array in found)


@pytest.mark.parametrize(("num_videos", "dim"), [(31, 40), (32, 7)])
def test_too_few_videos_or_features_are_refused(num_videos, dim):
  features = np.zeros((num_videos, dim), np.float32)
  with pytest.raises(
      errors.InputError,
      match=rf"`model.detail_share`.*8 detail bits.*got {num_videos} and {dim}",
  ):
    detail_bits.fit_detail_directions(features, num_bits=8)
