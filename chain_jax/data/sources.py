"""Random-access readers of videos, and what every reader can do.

A source holds `n` videos; a video is its row, `0 .. n - 1`. The readers of
the field's files are in `field_files.py`, the made-up set in `synthetic.py`.
"""

import hashlib
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, Integer, Num, Shaped

from chain_jax.data.records import VideoRecord
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
    for _, block in read_in_blocks(source):
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
        f" {source.ids[0]!r}); set `data.feature_dim` to {source.feature_dim}."
    )


def read_record(source: VideoSource, video: int) -> VideoRecord:
  """Reads one video with its id and labels."""
  labels = source.labels
  return VideoRecord(
      frames=source.read_frames(video),
      video_id=str(source.ids[video]),
      labels=np.zeros(0, np.int64) if labels is None else labels.of(video),
  )


def read_in_blocks(source: VideoSource) -> Iterator[tuple[int, np.ndarray]]:
  """Yields all videos in order as (first row, `[rows, ...]`)."""
  if not isinstance(source, BlockSource):
    for video in range(len(source)):
      yield video, source.read_frames(video)[None]
    return
  for start in range(0, len(source), source.rows_per_block):
    stop = min(start + source.rows_per_block, len(source))
    yield start, source.read_block(start, stop)


def split_validation(
    ids: Shaped[np.ndarray, "n"],
    *,
    fraction: float,
    group_pattern: str,
    seed: int,
) -> tuple[Int64[np.ndarray, "train"], Int64[np.ndarray, "validation"]]:
  """Holds out part of the training videos, whole groups at a time.

  Which groups are held out depends on their names and the seed alone, not on
  the order of the videos, and a larger fraction holds out a smaller one's too.

  Args:
    ids: Names of the training videos.
    fraction: Share of the videos to hold out, 0 <= fraction < 1; met as
      nearly as whole groups allow, by at least one group. 0 holds out none.
    group_pattern: Regular expression, searched in each id; videos with the
      same first group stay on one side. "", or no match: each on its own.
    seed: Chooses the groups.

  Returns:
    Rows to train on and rows held out, each ascending.

  Raises:
    InputError: If the fraction or the pattern is wrong, or all videos are one
      group.

  >>> ids = np.array(["a_g1", "b_g1", "c_g2", "d_g2"])
  >>> split_validation(ids, fraction=0.5, group_pattern=r"_(g\\d)", seed=0)
  (array([2, 3]), array([0, 1]))
  """
  if not 0 <= fraction < 1:
    raise InputError(
        "`data.validation_fraction` must be >= 0 and < 1, got"
        f" {fraction}; try 0.1."
    )
  rows = np.arange(len(ids), dtype=np.int64)
  if fraction == 0:
    return rows, rows[:0]
  groups = _group_names(ids, group_pattern)
  members: dict[str, int] = {}
  for group in groups:
    members[group] = members.get(group, 0) + 1
  if len(members) < 2:
    raise InputError(
        "`data.validation_group_pattern` must leave at least 2 groups to"
        f" split, got {len(members)} from {group_pattern!r} over"
        f" {len(ids)} videos; set `data.validation_fraction` to 0 or change"
        " the pattern."
    )
  held_out, num_held_out = set(), 0
  ranked = sorted(members, key=lambda group: _group_rank(group, seed))
  for group in ranked[:-1]:  # One group stays to train on.
    missing = fraction * len(ids) - num_held_out
    # Stop where one more group would miss the share by more than it misses now.
    if held_out and members[group] - missing >= missing:
      break
    held_out.add(group)
    num_held_out += members[group]
  is_held_out = np.array([group in held_out for group in groups])
  return rows[~is_held_out], rows[is_held_out]


def _group_names(ids: np.ndarray, group_pattern: str) -> list[str]:
  try:
    pattern = re.compile(group_pattern)
  except re.error as error:
    raise InputError(
        "`data.validation_group_pattern` must be a regular expression, got"
        f" {group_pattern!r} ({error})."
    ) from error
  if group_pattern and not pattern.groups:
    raise InputError(
        "`data.validation_group_pattern` must have a group in parentheses,"
        f" got {group_pattern!r}; try {'(' + group_pattern + ')'!r}."
    )
  if not group_pattern:
    return [f"video {video_id}" for video_id in ids]
  names = []
  for video_id in ids:
    found = pattern.search(str(video_id))
    group = found.group(1) if found else None
    names.append(f"video {video_id}" if group is None else f"group {group}")
  return names


def _group_rank(group: str, seed: int) -> bytes:
  # Python's own hash changes from process to process.
  return hashlib.sha256(f"{seed} {group}".encode()).digest()
