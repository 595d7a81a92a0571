"""Readers of any kind: subsets, caches, the validation split."""

import pickle

import numpy as np
import pytest
from array_source import (
    EQUAL,
    RAGGED,
    ArrayBlockSource,
    ArraySource,
    random_videos,
)

from chain_jax.data import sources
from chain_jax.errors import InputError
from chain_jax.labels import Labels


def test_subset_reads_the_chosen_videos_in_the_order_given():
  labels = Labels.from_classes(np.array([3, 1, 0, 2]), num_classes=4)
  source = ArraySource(random_videos(RAGGED), labels)
  subset = sources.SubsetSource(source, np.array([2, 0]))
  assert len(subset) == 2
  assert subset.ids.tolist() == ["video-2", "video-0"]
  assert [subset.labels.of(row).tolist() for row in (0, 1)] == [[0], [3]]
  np.testing.assert_array_equal(
      subset.read_frames(0), source.videos[2], strict=True
  )
  np.testing.assert_array_equal(
      subset.read_frames(1), source.videos[0], strict=True
  )


def test_subset_of_an_unlabelled_source_has_no_labels():
  subset = sources.SubsetSource(
      ArraySource(random_videos(RAGGED)), np.array([1])
  )
  assert subset.labels is None


@pytest.mark.parametrize("row", [-1, 4])
def test_subset_refuses_rows_that_are_not_there(row):
  with pytest.raises(ValueError, match=rf"0 \.\. 3, got {row}"):
    sources.SubsetSource(ArraySource(random_videos(RAGGED)), np.array([0, row]))


@pytest.mark.parametrize(
    ("make", "shapes"), [(ArraySource, RAGGED), (ArrayBlockSource, EQUAL)]
)
def test_cache_holds_every_video_in_its_dtype_and_reads_no_more(make, shapes):
  source = make(random_videos(shapes))
  cached = sources.CachedSource(source)
  reads_to_fill = source.num_reads
  for row, frames in enumerate(source.videos):
    np.testing.assert_array_equal(cached.read_frames(row), frames, strict=True)
  assert source.num_reads == reads_to_fill
  assert len(cached) == len(source)
  assert cached.ids.tolist() == source.ids.tolist()


def test_cached_frames_cannot_be_changed_by_accident():
  cached = sources.CachedSource(ArrayBlockSource(random_videos(EQUAL)))
  with pytest.raises(ValueError, match="read-only"):
    cached.read_frames(1)[0] = 0


def test_a_pickled_cache_travels_without_its_features():
  source = ArraySource(random_videos([(64, 512)] * 4))
  cached = sources.CachedSource(sources.SubsetSource(source, np.arange(4)))
  copy = pickle.loads(pickle.dumps(cached))
  np.testing.assert_array_equal(
      copy.read_frames(3), source.videos[3], strict=True
  )
  source.videos = []  # Stands for a file, which is not pickled either.
  assert len(pickle.dumps(cached)) < 10_000


def test_a_cache_larger_than_the_free_memory_is_refused(monkeypatch):
  monkeypatch.setattr(sources, "_available_memory", lambda: 2**30)
  source = ArraySource(random_videos([(2**10, 2**10)]))  # 2 MiB a video.
  source.videos = source.videos * 600
  with pytest.raises(
      InputError,
      match=r"`data\.cache_in_memory`.* 1\.2 GiB and 1\.0 GiB.*False",
  ):
    sources.CachedSource(source)


def test_the_free_memory_of_this_machine_is_known():
  available = sources._available_memory()
  assert available is None or 2**20 < available < 2**50


def test_without_meminfo_the_free_memory_comes_from_sysconf(monkeypatch):
  monkeypatch.setattr(sources.pathlib.Path, "exists", lambda path: False)
  monkeypatch.setattr(
      sources.os,
      "sysconf",
      {"SC_AVPHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}.__getitem__,
  )
  assert sources._available_memory() == 40_960


def test_a_width_unlike_the_config_is_refused():
  source = ArraySource(random_videos(RAGGED))
  sources.check_feature_dim(source, 4)
  with pytest.raises(InputError, match=r"`data\.feature_dim`.*got 5.* to 4\."):
    sources.check_feature_dim(source, 5)


def test_a_record_carries_its_id_and_its_labels():
  labels = Labels.from_matrix(np.array([[0, 0], [1, 1], [0, 1], [1, 0]]))
  record = sources.read_record(ArraySource(random_videos(RAGGED), labels), 1)
  assert record.video_id == "video-1"
  assert record.labels.tolist() == [0, 1]
  assert record.frames.shape == (1, 4)


def test_a_record_without_labels_has_none():
  record = sources.read_record(ArraySource(random_videos(RAGGED)), 0)
  assert record.labels.tolist() == []


GROUPED = np.array([f"v_Run_g{i % 10:02d}_c{i // 10:02d}" for i in range(60)])


def _split(ids=GROUPED, *, fraction=0.2, group_pattern=r"_(g\d+)_", seed=0):
  return sources.split_validation(
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


def test_the_split_does_not_depend_on_the_order_of_therandom_videos():
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
        ({"group_pattern": "(Run)"}, r"at least 2 groups.*got 1 from '\(Run"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused(settings, message):
  with pytest.raises(InputError, match=message):
    _split(**settings)
