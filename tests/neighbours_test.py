"""Neighbours agree with plain sets and sorts; a batch finds those it holds."""

import numpy as np
import pytest

from chain_jax import errors
from chain_jax.data import kind_directions, neighbours
from chain_jax.data.neighbour_plan import NeighbourPlan
from chain_jax.data.training_plan import TrainingPlan


def _pooled(num_videos=60, dim=5, seed=0):
  rng = np.random.default_rng(seed)
  kinds = rng.normal(size=(6, dim))
  rows = kinds[rng.integers(6, size=num_videos)]
  return (rows + 0.3 * rng.normal(size=rows.shape)).astype(np.float32)


def _lists(pooled, num_neighbours):
  """Sets of each video and its nearest by centred cosine, in float64."""
  centred = pooled.astype(np.float64) - pooled.mean(axis=0, dtype=np.float64)
  centred /= np.linalg.norm(centred, axis=1, keepdims=True)
  found = []
  for video, row in enumerate(centred):
    cosines = centred @ row
    cosines[video] = 2
    found.append(set(np.argsort(-cosines)[: num_neighbours + 1].tolist()))
  return found


def test_overlaps_are_those_of_plain_sets():
  pooled = _pooled()
  table = neighbours.find_neighbours(pooled, num_neighbours=7)
  lists = _lists(pooled, 7)
  assert table.videos.shape == table.overlaps.shape == (60, 14)
  for video, (others, overlaps) in enumerate(zip(*table, strict=True)):
    jaccard = {
        other: len(lists[video] & lists[other])
        / len(lists[video] | lists[other])
        for other in range(60)
        if other != video
    }
    shown = overlaps > 0
    assert video not in others[shown]
    assert len(set(others[shown].tolist())) == shown.sum()
    expected = np.sort(np.array(list(jaccard.values()), np.float32))[::-1][:14]
    np.testing.assert_allclose(overlaps, expected, rtol=1e-6, strict=True)
    for other, overlap in zip(others[shown], overlaps[shown], strict=True):
      assert overlap == pytest.approx(jaccard[int(other)], rel=1e-6)


def test_components_are_those_that_vary_most():
  rng = np.random.default_rng(0)
  kinds = 3 * _pooled(dim=4)
  noise = rng.normal(size=(60, 6)).astype(np.float32)
  rotation = np.linalg.qr(rng.normal(size=(10, 10)))[0].astype(np.float32)
  rotated = np.concatenate([kinds - kinds.mean(0), noise * 0.01], 1) @ rotation
  # The first four components span the kinds, whatever the axes.
  expected = neighbours.find_neighbours(kinds, num_neighbours=7)
  table = neighbours.find_neighbours(
      rotated, num_neighbours=7, num_components=4
  )
  np.testing.assert_array_equal(table.overlaps, expected.overlaps, strict=True)
  by_noise = np.concatenate([kinds - kinds.mean(0), noise * 30], 1) @ rotation
  other = neighbours.find_neighbours(
      by_noise, num_neighbours=7, num_components=4
  )
  assert np.any(other.overlaps != expected.overlaps)


def test_whitened_neighbours_do_not_depend_on_the_units():
  rng = np.random.default_rng(3)
  # Of the sixth feature, always 0, there is no component.
  pooled = np.pad(_pooled(), ((0, 0), (0, 1)))
  mixed = pooled @ rng.normal(size=(6, 6)).astype(np.float32)
  settings = {"num_neighbours": 7, "num_components": 5}
  plain = neighbours.find_neighbours(pooled, **settings)
  expected = neighbours.find_neighbours(pooled, **settings, whitening=1.0)
  found = neighbours.find_neighbours(mixed, **settings, whitening=1.0)
  np.testing.assert_array_equal(found.overlaps, expected.overlaps, strict=True)
  assert np.any(plain.overlaps != expected.overlaps)
  half = neighbours.find_neighbours(pooled, **settings, whitening=0.5)
  centred = pooled[:, :5] - pooled[:, :5].mean(axis=0, dtype=np.float64)
  variances, axes = np.linalg.eigh(centred.T @ centred)
  by_hand = np.float32(centred @ axes / variances**0.25)
  expected = neighbours.find_neighbours(by_hand, num_neighbours=7)
  np.testing.assert_array_equal(half.overlaps, expected.overlaps, strict=True)


def _kinds_in_noise(dim=40):
  """Four kinds, 3 dimensions tell apart, in larger noise of 37 others."""
  rng = np.random.default_rng(4)
  kinds = np.repeat(np.arange(4), 40)
  rows = rng.normal(size=(160, dim)) * np.r_[[0.3] * 3, [1.6] * (dim - 3)]
  rows[:, :3] += (
      2.5 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1] * 3])[kinds]
  )
  rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
  return np.float32(rows @ rotation), kinds


def test_second_lists_are_those_of_plain_sets():
  pooled, _ = _kinds_in_noise()
  first = neighbours.find_neighbours(pooled, num_neighbours=12)
  found = neighbours.find_neighbours(
      pooled, num_neighbours=12, num_directions=3, min_overlap=0.2
  )
  directions = kind_directions.fit_kind_directions(
      pooled - pooled.mean(axis=0),
      first.videos,
      np.where(first.overlaps >= 0.2, first.overlaps, 0),
      num_directions=3,
  )
  lists = [_lists(pooled, 12), _lists(pooled @ directions, 12)]
  for video in (0, 50, 159):
    means = [
        np.mean([len(a[video] & a[o]) / len(a[video] | a[o]) for a in lists])
        for o in range(160)
        if o != video
    ]
    expected = np.sort(means)[::-1][:24]
    np.testing.assert_allclose(found.overlaps[video], expected, rtol=1e-6)


def test_second_lists_have_more_videos_of_the_kind():
  pooled, kinds = _kinds_in_noise()

  def share_of_kind(num_directions):
    videos, overlaps = neighbours.find_neighbours(
        pooled, num_neighbours=12, num_directions=num_directions
    )
    same = kinds[videos] == kinds[:, None]
    return (overlaps * same).sum() / overlaps.sum()

  assert share_of_kind(3) > share_of_kind(0) + 0.05


def test_more_directions_than_features_are_refused():
  with pytest.raises(errors.InputError, match="num_directions.*at most 4.*9"):
    neighbours.find_neighbours(_pooled(), num_neighbours=5, num_directions=9)


def test_more_components_than_features_are_refused():
  with pytest.raises(errors.InputError, match="num_components.*at most 4.*9"):
    neighbours.find_neighbours(_pooled(), num_neighbours=5, num_components=9)


def test_equal_videos_are_neighbours_of_each_other():
  pooled = np.repeat(_pooled(12), 5, axis=0)
  table = neighbours.find_neighbours(pooled, num_neighbours=4)
  # Which of five equal videos a search returns first is up to the search.
  own = np.arange(60)[:, None]
  counted = table.overlaps > 0
  assert np.all((table.videos // 5 == own // 5)[counted])
  assert np.all(table.videos[~counted] == np.tile(own, (1, 8))[~counted])


def test_the_approximate_search_finds_nearly_all(monkeypatch):
  pooled = _pooled(3000, dim=8)
  exact = neighbours.find_neighbours(pooled, num_neighbours=10)
  monkeypatch.setattr(neighbours, "_LARGEST_EXACT", 100)
  monkeypatch.setattr(neighbours, "_TRAINING_PER_LIST", 8)
  found = neighbours.find_neighbours(pooled, num_neighbours=10)
  shared = [
      len(np.intersect1d(*pair)) / 20
      for pair in zip(exact.videos, found.videos, strict=True)
  ]
  # 32 of 219 lists are visited.
  assert np.mean(shared) > 0.95


def test_more_neighbours_than_videos_are_refused():
  with pytest.raises(errors.InputError, match="num_neighbours.*60 train"):
    neighbours.find_neighbours(_pooled(), num_neighbours=60)


def test_a_batch_finds_exactly_the_neighbours_it_holds():
  rng = np.random.default_rng(1)
  table = neighbours.find_neighbours(_pooled(), num_neighbours=5)
  videos = rng.permutation(60)[:24]
  found = neighbours.in_batch(videos, slice(6, 18), *table)
  for row, video in enumerate(videos[6:18]):
    expected = {
        int(other): float(overlap)
        for other, overlap in zip(
            table.videos[video], table.overlaps[video], strict=True
        )
        if overlap > 0 and other in videos
    }
    positions, weights = found.rows[row], found.weights[row]
    actual = dict(
        zip(
            videos[positions[weights > 0]].tolist(),
            weights[weights > 0].tolist(),
            strict=True,
        )
    )
    assert actual == expected


def _plan(batch_size, num_drawn, seed=0):
  table = neighbours.find_neighbours(_pooled(), num_neighbours=5)
  drawn = TrainingPlan(60, batch_size=num_drawn, seed=seed)
  plan = NeighbourPlan(
      drawn,
      batch_size=batch_size,
      seed=seed,
      neighbours=table.videos,
      weights=table.overlaps,
  )
  return plan, drawn, table


def test_a_batch_is_filled_up_with_neighbours_of_the_drawn():
  plan, drawn, table = _plan(16, 8)
  num_met = 0
  for step in range(plan.steps_per_epoch):
    videos = plan.videos(step)
    assert len(videos) == len(set(videos.tolist())) == 16
    np.testing.assert_array_equal(videos[:8], drawn.videos(step), strict=True)
    near = table.videos[videos[:8]][table.overlaps[videos[:8]] > 0]
    num_met += np.isin(videos[8:], near).sum()
  # Drawn at random, about a third would be.
  assert num_met >= 0.9 * 8 * plan.steps_per_epoch
  assert plan.steps_per_epoch == drawn.steps_per_epoch


def test_a_batch_is_full_where_the_drawn_have_no_neighbours():
  drawn = TrainingPlan(20, batch_size=5, seed=0)
  nobody = np.tile(np.arange(20, dtype=np.int32)[:, None], (1, 4))
  plan = NeighbourPlan(
      drawn,
      batch_size=10,
      seed=0,
      neighbours=nobody,
      weights=np.zeros((20, 4), np.float32),
  )
  assert len(set(plan.videos(3).tolist())) == 10
  assert not plan.neighbours(3).weights.any()


def test_a_batch_is_a_function_of_seed_and_step():
  plan, again, other = (_plan(16, 8, seed=seed)[0] for seed in (0, 0, 1))
  for step in (5, 2, 5):
    np.testing.assert_array_equal(
        plan.videos(step), again.videos(step), strict=True
    )
  assert plan.videos(5).tolist() != other.videos(5).tolist()
  whole, part = plan.neighbours(4), plan.neighbours(4, slice(4, 8))
  np.testing.assert_array_equal(whole.rows[4:8], part.rows, strict=True)
  np.testing.assert_array_equal(whole.weights[4:8], part.weights, strict=True)


def test_a_batch_larger_than_the_split_is_refused_not_waited_for():
  with pytest.raises(
      errors.InputError, match=r"`train\.batch_size`.* 60 train"
  ):
    _plan(64, 32)
