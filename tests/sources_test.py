"""Readers of any kind: subsets and caches."""

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
