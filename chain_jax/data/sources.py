"""Random-access readers of videos, and what every reader can do.

A source holds `n` videos; a video is its row, `0 .. n - 1`. The readers of
the field's files are in `field_files.py`, the made-up set in `synthetic.py`.
"""

import os
import pathlib
import re
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer, Num

from chain_jax import progress
from chain_jax.errors import InputError
from chain_jax.labels import Labels

# A cache may fill this share of the memory that is free: the rest of the run
# needs some too.
_CACHE_SHARE = 0.9


@runtime_checkable
class VideoSource(Protocol):
  """Reads any video of a set by its row.

  Attributes:
    ids: Names of the videos, `[n]`, fixed-width Unicode, all different.
    labels: Their classes, or None where the set has none.
    feature_dim: Width of a frame's feature.
  """

  ids: np.ndarray
  labels: Labels | None
  feature_dim: int

  def __len__(self) -> int:
    """Counts the videos."""

  def read_frames(self, video: int) -> np.ndarray:
    """Reads `[num_frames, dim]` or `[num_frames, num_variants, dim]`."""


@runtime_checkable
class BlockSource(VideoSource, Protocol):
  """A source that reads neighbouring videos faster together than one by one.

  Attributes:
    rows_per_block: How many to read at once.
  """

  rows_per_block: int

  def read_block(self, start: int, stop: int) -> np.ndarray:
    """Reads the frames of videos `start .. stop - 1`, `[rows, ...]`."""


class SubsetSource:
  """Some videos of another source, in the order given; copies nothing."""

  def __init__(self, source: VideoSource, videos: Integer[np.ndarray, "m"]):
    """Chooses `videos`, rows of `source`.

    Raises:
      ValueError: If a row lies outside the source.
    """
    out_of_range = (videos < 0) | (videos >= len(source))
    if out_of_range.any():
      raise ValueError(
          f"`videos` must lie in 0 .. {len(source) - 1}, got"
          f" {videos[out_of_range][0]}."
      )
    self._source = source
    self._videos = videos.astype(np.int64)
    self.ids = source.ids[self._videos]
    labels = source.labels
    self.labels = None if labels is None else labels.take(self._videos)
    self.feature_dim = source.feature_dim

  def __len__(self) -> int:
    return len(self._videos)

  def read_frames(
      self, video: int
  ) -> Num[np.ndarray, "num_frames *variants dim"]:
    """Reads one video of the subset."""
    return self._source.read_frames(int(self._videos[video]))


class CachedSource:
  """A whole source in memory, in the dtype of its file.

  Pickled, it leaves the cache behind: a worker process that is handed one
  reads from the file again, rather than hold a copy of the set each.
  """

  def __init__(self, source: VideoSource):
    """Reads everything, block by block where the source can.

    Raises:
      InputError: If it does not fit in memory, or a feature is not finite.
    """
    check_fits_in_memory([source])
    self._source = source
    self.ids = source.ids
    self.labels = source.labels
    self.feature_dim = source.feature_dim
    self._videos: list[np.ndarray] | None = []
    for _, block in read_in_blocks(source, what="read into memory"):
      block.flags.writeable = False
      self._videos.extend(block)

  def __len__(self) -> int:
    return len(self._source)

  def __getstate__(self) -> dict:
    return {**self.__dict__, "_videos": None}

  def read_frames(
      self, video: int
  ) -> Num[np.ndarray, "num_frames *variants dim"]:
    """Returns one video: a read-only view of the cache."""
    if self._videos is None:
      return self._source.read_frames(video)
    return self._videos[video]


def check_fits_in_memory(sources: list[VideoSource]) -> None:
  """Refuses to cache what the memory that is free now cannot hold.

  Raises:
    InputError: If the features of `sources` together are larger than 90 % of
      it. Where the system does not tell how much is free, nothing is checked.
  """
  # Each source's first video stands for all of them.
  num_bytes = sum(len(s) * s.read_frames(0).nbytes for s in sources)
  available = _available_memory()
  if available is not None and num_bytes > _CACHE_SHARE * available:
    raise InputError(
        "`data.cache_in_memory` needs the features to fit in"
        f" {_CACHE_SHARE:.0%} of the free memory: they take"
        f" {num_bytes / 2**30:.1f} GiB and {available / 2**30:.1f} GiB are"
        " free; set it to False to read by row from the files, or use a"
        " machine with more memory."
    )


def _available_memory() -> int | None:
  # MemAvailable counts what the page cache would give back; sysconf does not.
  meminfo = pathlib.Path("/proc/meminfo")
  if meminfo.exists():
    found = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())
    if found:
      return int(found.group(1)) * 1024
  try:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  except (ValueError, OSError, AttributeError):
    return None


def check_feature_dim(source: VideoSource, expected: int) -> None:
  """Refuses a source whose features are not as wide as the config says.

  Raises:
    InputError: If `source.feature_dim` is not `expected`.
  """
  if source.feature_dim != expected:
    raise InputError(
        f"`data.feature_dim` must be the width of the features, got {expected}"
        f" for features {source.feature_dim} wide (of video"
        f" {str(source.ids[0])!r}); set `data.feature_dim` to {source.feature_dim}."
    )


def read_in_blocks(
    source: VideoSource, *, what: str
) -> Iterator[tuple[int, np.ndarray]]:
  """Yields all videos in order as (first row, `[rows, ...]`).

  Args:
    source: Any source.
    what: Names the work in the line that shows how far it is.
  """
  in_blocks = isinstance(source, BlockSource)
  size = source.rows_per_block if in_blocks else 1
  starts = range(0, len(source), size)
  for start in progress.track(starts, total=len(source), what=what, size=size):
    if in_blocks:
      stop = min(start + size, len(source))
      yield start, source.read_block(start, stop)
    else:
      yield start, source.read_frames(start)[None]
