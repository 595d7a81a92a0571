"""The order of the videos: every one once an epoch, near its shard if asked."""

import numpy as np
import pytest

from chain_jax.data.training_plan import TrainingPlan

_STARTS = np.array([0, 5, 6, 6, 20, 33, 50])  # One shard is empty.


def _plan(window, *, batch_size=5, seed=0):
  return TrainingPlan(
      50,
      batch_size=batch_size,
      seed=seed,
      shard_starts=_STARTS,
      shuffle_window=window,
  )


def _epoch(plan, epoch):
  first = epoch * plan.steps_per_epoch
  steps = range(first, first + plan.steps_per_epoch)
  return np.concatenate([plan.videos(step) for step in steps])


@pytest.mark.parametrize("window", [1, 2, 3, 6, 100])
def test_an_epoch_shows_every_video_once(window):
  plan = _plan(window)
  orders = [_epoch(plan, epoch).tolist() for epoch in range(6)]
  assert all(sorted(order) == list(range(50)) for order in orders)
  assert len(set(map(tuple, orders))) == 6


@pytest.mark.parametrize("window", [1, 2])
def test_a_window_is_read_to_its_end_before_the_next(window):
  shards = np.searchsorted(_STARTS, _epoch(_plan(window), 3), side="right") - 1
  # The positions at which a shard is read, first to last.
  spans = {s: np.flatnonzero(shards == s) for s in np.unique(shards).tolist()}
  overlapping = sum(
      spans[one][0] < spans[other][-1] and spans[other][0] < spans[one][-1]
      for one in spans
      for other in spans
      if one < other
  )
  # Five shards hold videos: windows of one keep them apart, of two, in pairs.
  assert overlapping == 0 if window == 1 else 1 <= overlapping <= 3


def test_videos_are_shuffled_inside_a_shard_and_shards_among_each_other():
  plan = _plan(1)
  orders = np.array([_epoch(plan, epoch) for epoch in range(30)])
  assert len(set(orders[:, 0].tolist())) > 10
  first_shards = np.searchsorted(_STARTS, orders[:, 0], side="right") - 1
  assert set(first_shards.tolist()) >= {0, 3, 4, 5}


@pytest.mark.parametrize("window", [1, 6])
def test_rows_of_a_batch_are_a_part_of_it(window):
  plan = _plan(window)
  for step in range(25):
    whole = plan.videos(step)
    parts = [plan.videos(step, slice(0, 2)), plan.videos(step, slice(2, 5))]
    np.testing.assert_array_equal(np.concatenate(parts), whole, strict=True)


def test_steps_can_be_asked_for_in_any_order():
  plan, other = _plan(2), _plan(2)
  forth = [plan.videos(step) for step in range(30)]
  back = [other.videos(step) for step in reversed(range(30))]
  np.testing.assert_array_equal(forth, back[::-1])


def test_every_place_of_an_epoch_shows_every_video_as_often():
  plan = TrainingPlan(8, batch_size=8, seed=0)
  counts = np.zeros((8, 8))
  for epoch in range(800):
    counts[np.arange(8), plan.videos(epoch)] += 1
  # 100 a cell, 49 degrees of freedom: chi-square exceeds 95 once in 10^4.
  assert np.sum((counts - 100) ** 2 / 100) < 95


def test_neighbouring_seeds_share_no_order():
  orders = {
      tuple(TrainingPlan(50, batch_size=50, seed=seed).videos(epoch))
      for seed in range(10)
      for epoch in range(10)
  }
  assert len(orders) == 100


def test_positions_of_a_huge_set_need_no_table():
  plan = TrainingPlan(10**9, batch_size=256, seed=0)
  videos = plan.videos(10**6)
  assert len(set(videos.tolist())) == 256
  # Uniform over 10^9: the mean of 256 has a deviation of 1.8 %.
  assert abs(videos.mean() / 10**9 - 0.5) < 0.09
