"""A whole source in memory."""

import os
import pathlib
import re

import numpy as np
from jaxtyping import Int, Integer, Num

from chain_jax.data import sources
from chain_jax.errors import InputError

# A cache may fill this share of the memory that is free: the rest of the run
# needs some too.
_CACHE_SHARE = 0.9


class CachedSource:
  """A whole source in memory, in the dtype of its file, in one piece.

  Pickled, it leaves the cache behind: a worker process that is handed one
  reads from the file again, rather than hold a copy of the set each.
  """

  def __init__(self, source: sources.VideoSource):
    """Reads everything, block by block where the source can.

    Raises:
      InputError: If it does not fit in memory, or a feature is not finite.
    """
    check_fits_in_memory([source])
    self._source = source
    self.ids = source.ids
    self.labels = source.labels
    self.feature_dim = source.feature_dim
    self.num_frames = source.num_frames
    self.num_variants = source.num_variants
    self.dtype = source.dtype
    self.scaling = source.scaling
    self.origin = sources.origin(source)
    self.shard_starts = source.shard_starts
    # Of each video, in the array of all frames.
    counts = self.num_frames.astype(np.int64) * self.num_variants
    self._first_rows = np.concatenate([[0], np.cumsum(counts)])
    self._frames: np.ndarray | None = self._read()

  def __len__(self) -> int:
    return len(self._source)

  def __getstate__(self) -> dict:
    return {**self.__dict__, "_frames": None}

  def read_frames(
      self, video: int
  ) -> Num[np.ndarray, "num_frames *variants dim"]:
    """Returns one video: a read-only view of the cache."""
    if self._frames is None:
      return self._source.read_frames(video)
    if not 0 <= video < len(self):
      raise IndexError(f"video {video} of {len(self)}")
    first, end = self._first_rows[video : video + 2]
    frames = self._frames[first:end]
    if self.num_variants == 1:
      return frames
    return frames.reshape(-1, self.num_variants, self.feature_dim)

  def gather(
      self,
      videos: Integer[np.ndarray, "n"],
      frame_indices: Int[np.ndarray, "n views slots"],
      variants: Int[np.ndarray, "n views"] | None,
  ) -> Num[np.ndarray, "n views slots dim"]:
    """Reads chosen frames, as `sources.gather_frames` does."""
    if self._frames is None:
      return sources.gather_frames(
          self._source, videos, frame_indices, variants
      )
    return sources.take_rows(
        self._frames,
        self._first_rows[videos],
        frame_indices,
        variants,
        num_variants=self.num_variants,
    )

  def _read(self) -> np.ndarray:
    shape = (self._first_rows[-1], self.feature_dim)
    flat = np.empty(shape, self.dtype)
    for start, block in sources.read_in_blocks(
        self._source, what="read into memory"
    ):
      first, end = self._first_rows[[start, start + len(block)]]
      flat[first:end] = block.reshape(-1, self.feature_dim)
    flat.flags.writeable = False
    return flat


def check_fits_in_memory(cached: list[sources.VideoSource]) -> None:
  """Refuses to cache what the memory that is free now cannot hold.

  Raises:
    InputError: If the features of `cached` together are larger than 90 % of
      it. Where the system does not tell how much is free, nothing is checked.
  """
  num_bytes = sum(map(sources.num_stored_bytes, cached))
  available = available_memory()
  if available is not None and num_bytes > _CACHE_SHARE * available:
    raise InputError(
        "`data.cache_in_memory` needs the features to fit in"
        f" {_CACHE_SHARE:.0%} of the free memory: they take"
        f" {num_bytes / 2**30:.1f} GiB and {available / 2**30:.1f} GiB are"
        " free; set it to False to read by row from the files, or use a"
        " machine with more memory."
    )


def available_memory() -> int | None:
  """Returns the bytes of main memory that are free; None where unknown."""
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
