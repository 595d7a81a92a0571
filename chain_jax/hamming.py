"""Hamming distances from one code to many, by counting bits of 64-bit words.

Distances are small integers, so nothing here sorts a whole gallery: a
histogram says which radius holds enough items, and only those are ordered.
"""

import numpy as np
from jaxtyping import Int64, UInt, UInt8, UInt16, UInt64


def pack_words(
    packed: UInt8[np.ndarray, "n num_bytes"],
) -> UInt64[np.ndarray, "num_words n"]:
  """Views codes as 64-bit words, one contiguous row per word.

  Codes that do not fill their last word are padded with zero bits, which add
  nothing to a distance.

  >>> pack_words(np.ones((3, 9), np.uint8)).shape
  (2, 3)
  """
  num_videos, num_bytes = packed.shape
  padded = np.zeros((num_videos, num_bytes + -num_bytes % 8), np.uint8)
  padded[:, :num_bytes] = packed
  return np.ascontiguousarray(padded.view(np.uint64).T)


def distances_between(
    words: UInt64[np.ndarray, "num_words n"],
    query_words: UInt64[np.ndarray, "num_words"],
) -> UInt16[np.ndarray, "n"]:
  """Returns the distance of one code to many, in bits.

  >>> words = pack_words(np.array([[0], [1], [255]], np.uint8))
  >>> distances_between(words, words[:, 1]).tolist()
  [1, 0, 7]
  """
  differing = np.bitwise_count(words ^ query_words[:, None])
  return differing.sum(axis=0, dtype=np.uint16)


class DistanceScan:
  """Measures a gallery from one query after another, reusing its buffers."""

  def __init__(self, packed: UInt8[np.ndarray, "n num_bytes"]):
    num_videos, num_bytes = packed.shape
    self.num_bits = 8 * num_bytes
    self._words = pack_words(packed)
    self._differing = np.empty(num_videos, np.uint64)
    self._word_distances = np.empty(num_videos, np.uint8)
    # 256 bits can be 256 apart, which uint8 cannot hold.
    dtype = np.uint8 if self.num_bits < 256 else np.uint16
    self._distances = np.empty(num_videos, dtype)

  def distances_from(
      self, query_words: UInt64[np.ndarray, "num_words"]
  ) -> UInt[np.ndarray, "n"]:
    """Returns the distance of every gallery item, in bits.

    The array is overwritten by the next call.
    """
    self._distances[:] = 0
    for gallery, query in zip(self._words, query_words, strict=True):
      np.bitwise_xor(gallery, query, out=self._differing)
      np.bitwise_count(self._differing, out=self._word_distances)
      self._distances += self._word_distances
    return self._distances


def nearest_positions(
    distances: UInt[np.ndarray, "n"],
    distance_counts: Int64[np.ndarray, "num_radii"],
    *,
    count: int,
) -> Int64[np.ndarray, "num_nearest"]:
  """Returns the nearest items, ties in the order of their positions.

  Args:
    distances: Of all items.
    distance_counts: How many items lie at each distance: the histogram of
      `distances`.
    count: How many to return; all `n`, where there are fewer.

  Returns:
    Positions, nearest first.

  >>> distances = np.array([2, 0, 1, 1, 0], np.uint8)
  >>> nearest_positions(distances, np.bincount(distances), count=3).tolist()
  [1, 4, 2]
  """
  within = np.cumsum(distance_counts)
  radius = np.searchsorted(within, min(count, len(distances)))
  candidates = np.flatnonzero(distances <= radius)
  order = np.argsort(distances[candidates], kind="stable")
  return candidates[order[:count]]
