"""What is held out of train: whole groups, by name and seed alone."""

import numpy as np
import pytest

from chain_jax.data import holding_out
from chain_jax.errors import InputError

GROUPED = np.array([f"v_Run_g{i % 10:02d}_c{i // 10:02d}" for i in range(60)])


def _split(ids=GROUPED, *, fraction=0.2, group_pattern=r"_(g\d+)_", seed=0):
  return holding_out.split_validation(
      ids, fraction=fraction, group_pattern=group_pattern, seed=seed
  )


def test_the_two_sides_share_no_video_and_leave_none_out():
  train, validation = _split()
  assert sorted([*train, *validation]) == list(range(60))
  assert np.all(np.diff(train) > 0) and np.all(np.diff(validation) > 0)


def test_a_group_stays_on_one_side():
  train, validation = _split()
  assert {i % 10 for i in train}.isdisjoint({i % 10 for i in validation})
  assert len(validation) == 12  # 20 % of 60, two groups of six.


def test_without_a_pattern_each_video_is_a_group():
  _, validation = _split(group_pattern="", fraction=0.25)
  assert len(validation) == 15
  assert len({i % 10 for i in validation}) > 3


def test_a_video_that_the_pattern_does_not_match_is_a_group_of_its_own():
  ids = np.array(["a_g1_", "b_g1_", "plain", "other"])
  num_apart = 0
  for seed in range(20):
    _, validation = _split(ids, fraction=0.5, seed=seed)
    assert len({0, 1}.intersection(validation)) in (0, 2)
    num_apart += len({2, 3}.intersection(validation)) == 1
  assert num_apart > 0


def test_no_fraction_holds_out_nothing():
  train, validation = _split(fraction=0.0)
  assert train.tolist() == list(range(60))
  assert validation.tolist() == []


def test_the_split_repeats_with_its_seed_and_changes_with_another():
  chosen = {seed: tuple(_split(seed=seed)[1]) for seed in range(8)}
  assert tuple(_split(seed=3)[1]) == chosen[3]
  assert len(set(chosen.values())) > 4


def test_the_split_does_not_depend_on_the_order_of_the_videos():
  shuffled = np.random.default_rng(0).permutation(GROUPED)
  held_out = set(GROUPED[_split()[1]])
  assert set(shuffled[_split(shuffled)[1]]) == held_out


def test_a_larger_fraction_holds_out_the_smaller_one_too():
  for seed in range(5):
    previous = set()
    for fraction in (0.01, 0.1, 0.3, 0.5, 0.9, 0.999):
      held_out = set(_split(fraction=fraction, seed=seed)[1])
      assert previous <= held_out and held_out
      previous = held_out
    assert len(previous) < 60  # Something is left to train on.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fraction": 1.0}, r"`data\.validation_fraction`.*got 1\.0"),
        ({"fraction": -0.1}, r"`data\.validation_fraction`.*got -0\.1"),
        ({"group_pattern": "(g"}, r"`data\.validation_group_pattern`.*'\(g'"),
        ({"group_pattern": r"g\d"}, r"group in parentheses.*try '\(g"),
        ({"group_pattern": "(zebra)"}, r"must occur in the ids.*'\(zebra\)'"),
        ({"group_pattern": "(Run)"}, r"at least 2 groups.*got 1 from '\(Run"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused(settings, message):
  with pytest.raises(InputError, match=message):
    _split(**settings)
