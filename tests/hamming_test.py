import numpy as np
import pytest

from chain_jax import hamming


@pytest.mark.parametrize("num_bytes", [1, 2, 3, 8, 9, 31, 32, 128])
def test_distances_count_differing_bits(num_bytes):
  rng = np.random.default_rng(num_bytes)
  packed = rng.integers(0, 256, (20, num_bytes), dtype=np.uint8)
  packed[0], packed[1] = 0, 255  # As far apart as codes can be.
  scan = hamming.DistanceScan(packed)
  words = hamming.pack_words(packed)
  bits = np.unpackbits(packed, axis=1)
  for query in (0, 1, 7):
    expected = (bits != bits[query]).sum(axis=1)
    for actual in (
        scan.distances_from(words[:, query]),
        hamming.distances_between(words, words[:, query]),
    ):
      np.testing.assert_array_equal(actual.astype(int), expected, strict=True)


@pytest.mark.parametrize("count", [1, 5, 29, 30, 99])
def test_nearest_positions_equal_a_stable_sort(count):
  rng = np.random.default_rng(count)
  distances = rng.integers(0, 4, 30).astype(np.uint8)
  actual = hamming.nearest_positions(
      distances, np.bincount(distances, minlength=9), count=count
  )
  expected = np.lexsort((np.arange(30), distances))[:count]
  np.testing.assert_array_equal(actual, expected, strict=True)
