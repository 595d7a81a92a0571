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

from chain_jax.data import cached_source, sources
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
  cached = cached_source.CachedSource(source)
  reads_to_fill = source.num_reads
  for row, frames in enumerate(source.videos):
    np.testing.assert_array_equal(cached.read_frames(row), frames, strict=True)
  assert source.num_reads == reads_to_fill
  assert len(cached) == len(source)
  assert cached.ids.tolist() == source.ids.tolist()


def test_cached_frames_cannot_be_changed_by_accident():
  cached = cached_source.CachedSource(ArrayBlockSource(random_videos(EQUAL)))
  with pytest.raises(ValueError, match="read-only"):
    cached.read_frames(1)[0] = 0


def test_a_pickled_cache_travels_without_its_features():
  source = ArraySource(random_videos([(64, 512)] * 4))
  cached = cached_source.CachedSource(
      sources.SubsetSource(source, np.arange(4))
  )
  copy = pickle.loads(pickle.dumps(cached))
  np.testing.assert_array_equal(
      copy.read_frames(3), source.videos[3], strict=True
  )
  source.videos = []  # Stands for a file, which is not pickled either.
  assert len(pickle.dumps(cached)) < 10_000


def test_a_cache_larger_than_the_free_memory_is_refused(monkeypatch):
  monkeypatch.setattr(cached_source, "available_memory", lambda: 2**30)
  # 2 MiB a video, all the same array.
  source = ArraySource(random_videos([(2**10, 2**10)]) * 600)
  with pytest.raises(
      InputError,
      match=r"`data\.cache_in_memory`.* 1\.2 GiB and 1\.0 GiB.*False",
  ):
    cached_source.CachedSource(source)


def test_the_free_memory_of_this_machine_is_known():
  available = cached_source.available_memory()
  assert available is None or 2**20 < available < 2**50


def test_without_meminfo_the_free_memory_comes_from_sysconf(monkeypatch):
  monkeypatch.setattr(cached_source.pathlib.Path, "exists", lambda path: False)
  monkeypatch.setattr(
      cached_source.os,
      "sysconf",
      {"SC_AVPHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}.__getitem__,
  )
  assert cached_source.available_memory() == 40_960


def test_a_width_unlike_the_config_is_refused():
  source = ArraySource(random_videos(RAGGED))
  sources.check_feature_dim(source, 4)
  with pytest.raises(InputError, match=r"`data\.feature_dim`.*got 5.* to 4\."):
    sources.check_feature_dim(source, 5)


def _make_subset(source):
  return sources.SubsetSource(source, np.arange(len(source))[::-1])


_LENGTHS = (7, 1, 3, 12)
_VIDEOS = np.array([3, 0, 3, 2])


def _expected(source, indices, variants):
  """Frame by frame, from whole videos."""
  gathered = np.empty((*indices.shape, source.feature_dim), source.dtype)
  for row, view, slot in np.ndindex(indices.shape):
    frame = source.read_frames(int(_VIDEOS[row]))[indices[row, view, slot]]
    if frame.ndim == 2:
      frame = frame[0 if variants is None else variants[row, view]]
    gathered[row, view, slot] = frame
  return gathered


@pytest.mark.parametrize(
    "make",
    [lambda source: source, cached_source.CachedSource, _make_subset],
    ids=["plain", "cached", "subset"],
)
@pytest.mark.parametrize("num_variants", [None, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_gathered_frames_are_those_of_the_videos(make, num_variants, dtype):
  middle = () if num_variants is None else (num_variants,)
  shapes = [(length, *middle, 4) for length in _LENGTHS]
  videos = [(frames * 99) for frames in random_videos(shapes, np.float32)]
  source = make(ArraySource([frames.astype(dtype) for frames in videos]))
  rng = np.random.default_rng(0)
  lengths = source.num_frames[_VIDEOS][:, None, None]
  indices = rng.integers(0, lengths, (4, 2, 5)).astype(np.int32)
  variants = None
  if num_variants is not None:
    variants = rng.integers(num_variants, size=(4, 2)).astype(np.int32)
  for chosen in {None: [None], 3: [None, variants]}[num_variants]:
    np.testing.assert_array_equal(
        sources.gather_frames(source, _VIDEOS, indices, chosen),
        _expected(source, indices, chosen),
        strict=True,
    )


def test_a_gather_of_a_cache_reads_no_video():
  source = ArraySource(random_videos(RAGGED))
  cached = cached_source.CachedSource(source)
  source.num_reads = 0
  indices = np.zeros((2, 2, 3), np.int32)
  sources.gather_frames(cached, np.array([1, 2]), indices, None)
  assert source.num_reads == 0


@pytest.mark.parametrize(
    ("videos", "expected"),
    [([0, 2, 5, 6], [0, 1, 3, 4]), ([5, 6], [0, 0, 1, 2]), ([2, 1], [0, 2])],
)
def test_a_subset_in_order_keeps_its_shards(videos, expected):
  source = ArraySource(random_videos([(1, 4)] * 7))
  source.shard_starts = np.array([0, 2, 6, 7])
  subset = sources.SubsetSource(source, np.array(videos))
  assert subset.shard_starts.tolist() == expected
