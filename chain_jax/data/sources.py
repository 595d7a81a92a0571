"""Random-access readers of videos, and what every reader can do.

A source holds `n` videos; a video is its row, `0 .. n - 1`. The readers of
the field's files are in `field_files.py`, the made-up set in `synthetic.py`,
the cache in `cached_source.py`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Integer, Num

from chain_jax import progress
from chain_jax.data import buffers, records
from chain_jax.errors import InputError
from chain_jax.labels import Labels


@runtime_checkable
class VideoSource(Protocol):
  """Reads any video of a set by its row.

  Attributes:
    ids: Names of the videos, `[n]`, fixed-width Unicode, all different.
    labels: Their classes, or None where the set has none.
    feature_dim: Width of a frame's feature.
    num_frames: Frames of each video, int32 `[n]`.
    num_variants: Stored variants (crops, flips) of each frame; 1 where none.
    dtype: Of the frames as stored: uint8, float16, float32 or float64.
    scaling: What stored numbers mean.
    shard_starts: First row of each storage shard and then n, int64
      `[num_shards + 1]`; `[0, n]` where there are no shards.
  """

  ids: np.ndarray
  labels: Labels | None
  feature_dim: int
  num_frames: np.ndarray
  num_variants: int
  dtype: np.dtype
  scaling: records.Scaling
  shard_starts: np.ndarray

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


@runtime_checkable
class GatherSource(VideoSource, Protocol):
  """A source that reads chosen frames faster than whole videos."""

  def gather(
      self,
      videos: np.ndarray,
      frame_indices: np.ndarray,
      variants: np.ndarray | None,
  ) -> np.ndarray:
    """Reads like `gather_frames`."""


class FramesSource:
  """Videos that are in memory already, of any lengths, without labels."""

  labels = None
  num_variants = 1
  scaling = records.IDENTITY

  def __init__(self, videos: Sequence[Num[np.ndarray, "_ dim"]]):
    """Takes the frames of each video, one float dtype for all."""
    self._videos = videos
    self.ids = np.array([f"{row:06d}" for row in range(len(videos))])
    self.feature_dim, self.dtype = videos[0].shape[-1], videos[0].dtype
    self.num_frames = np.array([len(video) for video in videos], np.int32)
    self.shard_starts = np.array([0, len(videos)])

  def __len__(self) -> int:
    return len(self._videos)

  def read_frames(self, video: int) -> Num[np.ndarray, "num_frames dim"]:
    """Returns one video."""
    return self._videos[video]


def sample_videos(
    source: VideoSource, max_videos: int, *, seed: int
) -> VideoSource:
  """Returns a source of at most so many videos; the same seed, the same ones."""
  if len(source) <= max_videos:
    return source
  rng = np.random.default_rng(seed)
  chosen = rng.choice(len(source), max_videos, replace=False)
  return SubsetSource(source, np.sort(chosen))


def gather_frames(
    source: VideoSource,
    videos: Integer[np.ndarray, "n"],
    frame_indices: Int[np.ndarray, "n views slots"],
    variants: Int[np.ndarray, "n views"] | None,
) -> Num[np.ndarray, "n views slots dim"]:
  """Reads chosen frames of many videos, as they are stored.

  Args:
    source: Any source; each video is read once.
    videos: Rows.
    frame_indices: The frames of each view, each below its video's number.
    variants: The variant that a view shows; None = number 0, the plain one.

  Returns:
    A new array in the source's dtype.

  Raises:
    InputError: If a file turns out to be damaged.
  """
  if isinstance(source, GatherSource):
    return source.gather(videos, frame_indices, variants)
  return gather_whole(source, videos, frame_indices, variants)


def gather_whole(
    source: VideoSource,
    videos: Integer[np.ndarray, "n"],
    frame_indices: Int[np.ndarray, "n views slots"],
    variants: Int[np.ndarray, "n views"] | None,
) -> Num[np.ndarray, "n views slots dim"]:
  """Does what `gather_frames` does by reading whole videos, one by one."""
  shape = (*frame_indices.shape, source.feature_dim)
  gathered = buffers.empty(shape, source.dtype)
  for row, video in enumerate(videos):
    frames = source.read_frames(int(video))
    rows = frame_indices[row]
    if frames.ndim == 3:
      chosen = 0 if variants is None else variants[row][:, None]
      rows = rows * frames.shape[1] + chosen
      frames = frames.reshape(-1, frames.shape[-1])
    # "clip" lets NumPy write into `out` as it goes; no index is out of range.
    np.take(frames, rows, axis=0, out=gathered[row], mode="clip")
  return gathered


def take_rows(
    flat: Num[np.ndarray, "rows dim"],
    first_rows: Integer[np.ndarray, "n"],
    frame_indices: Int[np.ndarray, "n views slots"],
    variants: Int[np.ndarray, "n views"] | None,
    *,
    num_variants: int,
) -> Num[np.ndarray, "n views slots dim"]:
  """Gathers frames out of one array of all frames, in one copy.

  Args:
    flat: All frames of all videos, variant after variant.
    first_rows: Of each video asked for.
    frame_indices: As for `gather_frames`.
    variants: As for `gather_frames`.
    num_variants: Rows a frame.
  """
  rows = first_rows[:, None, None] + frame_indices.astype(np.int64) * (
      num_variants
  )
  if variants is not None:
    rows += variants[..., None]
  gathered = buffers.empty((*rows.shape, flat.shape[-1]), flat.dtype)
  # "raise" would gather into a buffer first.
  np.take(flat, rows, axis=0, out=gathered, mode="clip")
  return gathered


def origin(source: VideoSource) -> dict[str, Any] | None:
  """Tells how a source's frames were made, where it knows."""
  return getattr(source, "origin", None)


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
    self.origin = origin(source)
    self.feature_dim = source.feature_dim
    self.num_frames = source.num_frames[self._videos]
    self.num_variants = source.num_variants
    self.dtype = source.dtype
    self.scaling = source.scaling
    self.shard_starts = single_shard(len(self))
    if np.all(np.diff(self._videos) > 0):
      self.shard_starts = np.searchsorted(
          self._videos, source.shard_starts
      ).astype(np.int64)

  def __len__(self) -> int:
    return len(self._videos)

  def read_frames(
      self, video: int
  ) -> Num[np.ndarray, "num_frames *variants dim"]:
    """Reads one video of the subset."""
    return self._source.read_frames(int(self._videos[video]))

  def gather(
      self,
      videos: Integer[np.ndarray, "n"],
      frame_indices: Int[np.ndarray, "n views slots"],
      variants: Int[np.ndarray, "n views"] | None,
  ) -> Num[np.ndarray, "n views slots dim"]:
    """Reads chosen frames, as `gather_frames` does."""
    return gather_frames(
        self._source, self._videos[videos], frame_indices, variants
    )


def single_shard(num_videos: int) -> np.ndarray:
  """Returns the `shard_starts` of a set that is stored in one piece."""
  return np.array([0, num_videos], np.int64)


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


def num_stored_bytes(source: VideoSource) -> int:
  """Counts the bytes of all frames as they are stored."""
  num_values = int(source.num_frames.sum(dtype=np.int64)) * source.num_variants
  return num_values * source.feature_dim * source.dtype.itemsize


def read_in_blocks(
    source: VideoSource, *, what: str, rows: range | None = None
) -> Iterator[tuple[int, np.ndarray]]:
  """Yields videos in order as (first row, `[rows, ...]`).

  Args:
    source: Any source.
    what: Names the work in the line that shows how far it is.
    rows: Neighbouring rows to read; None = all.
  """
  rows = range(len(source)) if rows is None else rows
  in_blocks = isinstance(source, BlockSource)
  size = source.rows_per_block if in_blocks else 1
  starts = rows[::size]
  for start in progress.track(starts, total=len(rows), what=what, size=size):
    if in_blocks:
      stop = min(start + size, rows.stop)
      yield start, source.read_block(start, stop)
    else:
      yield start, source.read_frames(start)[None]
