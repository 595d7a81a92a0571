"""Which videos each global batch holds: a function of (seed, step)."""

import functools
import hashlib

import numpy as np
from grain.experimental import index_shuffle
from jaxtyping import Int64

from chain_jax import errors

# Up to this many places a permutation is written down: 8 MiB. Beyond, each
# place is computed by grain's shuffle, which is slow for few places.
_LARGEST_TABLE = 2**20
# Of the mixing in that; grain's own datasets use as many.
_ROUNDS = 4


class TrainingPlan:
  """Which videos each global batch holds.

  Every epoch is a new order. Videos that do not fill a last batch wait for
  the next epoch, so that a batch never holds a video twice: its copy would be
  a false negative.

  The order of an epoch is made in two levels. The shards are shuffled and
  taken `shuffle_window` at a time; inside such a window all videos are
  shuffled. With one shard this is a shuffle of all videos. The order of a huge
  set is never held in memory: each of its positions is computed.
  """

  def __init__(
      self,
      num_videos: int,
      *,
      batch_size: int,
      seed: int,
      shard_starts: Int64[np.ndarray, "num_shards_plus_1"] | None = None,
      shuffle_window: int = 1,
  ) -> None:
    """Plans all epochs.

    Args:
      num_videos: Of the train split.
      batch_size: Videos a step, over all devices.
      seed: Of the order.
      shard_starts: Row boundaries of the storage shards; None = one shard.
      shuffle_window: Shards a window, >= 1.

    Raises:
      InputError: If a batch is larger than the train split.
    """
    if batch_size > num_videos:
      raise errors.InputError(
          f"`train.batch_size` must be at most the {num_videos} train videos,"
          f" got {batch_size}; try {1 << (num_videos.bit_length() - 1)}."
      )
    self.batch_size = batch_size
    self.steps_per_epoch = num_videos // batch_size
    if shard_starts is None:
      shard_starts = np.array([0, num_videos], np.int64)
    self._seed = seed
    self._shard_starts = shard_starts
    self._window = shuffle_window
    self._known: tuple[int, np.ndarray, np.ndarray] | None = None

  def videos(
      self, step: int, rows: slice = slice(None)
  ) -> Int64[np.ndarray, "rows"]:
    """Returns the videos of some rows of global batch `step`."""
    epoch = self.epoch(step)
    start = (step - epoch * self.steps_per_epoch) * self.batch_size
    positions = start + np.arange(self.batch_size, dtype=np.int64)[rows]
    shards, ends = self._epoch_shards(epoch)
    # Positions of the epoch -> positions in its shards, one after the other.
    window_ends = ends[self._window - 1 :: self._window]
    for window in np.unique(
        np.searchsorted(window_ends, positions, side="right")
    ):
      first = window_ends[window - 1] if window else 0
      end = window_ends[window] if window < len(window_ends) else ends[-1]
      inside = (positions >= first) & (positions < end)
      seed = _hashed("rows", self._seed, epoch, int(window))
      positions[inside] = first + _shuffled(
          positions[inside] - first, int(end - first), seed
      )
    place = np.searchsorted(ends, positions, side="right")
    shard = shards[place]
    sizes = np.diff(self._shard_starts)
    offset = positions - (ends[place] - sizes[shard])
    return self._shard_starts[shard] + offset

  def neighbours(self, step: int, rows: slice = slice(None)) -> None:
    """Returns None: no video is another's neighbour; see `NeighbourPlan`."""
    del step, rows

  def epoch(self, step: int) -> int:
    """Returns the epoch that global batch `step` belongs to."""
    return step // self.steps_per_epoch

  def _epoch_shards(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the shards in the epoch's order, and where each ends in it."""
    known = self._known  # Read once: threads share the plan.
    if known is None or known[0] != epoch:
      sizes = np.diff(self._shard_starts)
      places = np.arange(len(sizes), dtype=np.int64)
      seed = _hashed("shards", self._seed, epoch)
      shards = _shuffled(places, len(sizes), seed)
      self._known = known = epoch, shards, np.cumsum(sizes[shards])
    return known[1:]


def _hashed(*parts: str | int) -> int:
  # Orders of neighbouring seeds and epochs must have nothing to do with each
  # other. The shuffle takes 32 bits.
  digest = hashlib.sha256(repr(parts).encode()).digest()
  return int.from_bytes(digest[:4], "little")


def _shuffled(
    positions: Int64[np.ndarray, "n"], size: int, seed: int
) -> Int64[np.ndarray, "n"]:
  """Sends positions of `0 .. size - 1` to their places in a permutation."""
  if size <= _LARGEST_TABLE:
    return _permutation(size, seed)[positions]
  return np.array(
      [
          index_shuffle(position, max_index=size - 1, seed=seed, rounds=_ROUNDS)
          for position in positions.tolist()
      ],
      np.int64,
  )


@functools.lru_cache(maxsize=8)
def _permutation(size: int, seed: int) -> Int64[np.ndarray, "size"]:
  generator = np.random.Generator(np.random.Philox(key=seed))
  return generator.permutation(size)
