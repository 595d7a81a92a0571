"""Are the codes themselves in order? Bit balance, redundancy, buckets.

Poor codes rank by luck: a bit that never changes says nothing, two bits that
always agree say one thing, and a bucket that holds half the gallery answers
every query with a tie.
"""

from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from chain_jax import codes as codes_lib

# Rows of +-1 that float32 sums exactly (below 2^24).
_ROWS_PER_BLOCK = 65_536
_BUCKET_SIZES = (1, 2, 5, 10, 100, 1_000, 10_000)

# Our rules of thumb for a warning, not anybody's standard.
_MAX_BIT_MEAN = 0.5  # The rarer sign on fewer than a quarter of the items.
_MAX_CORRELATION = 0.3
_MAX_BUCKET_SHARE = 0.01


def code_health(packed: UInt8[np.ndarray, "n num_bytes"]) -> dict[str, Any]:
  """Measures the balance, redundancy and crowding of a gallery's codes.

  Args:
    packed: The gallery; at least one item.

  Returns:
    JSON-ready numbers: `max_abs_bit_mean` and `mean_abs_bit_mean` (0 is a
    balanced bit, 1 a constant one), `num_constant_bits`,
    `mean_abs_correlation` (Pearson, over pairs of bits that vary; null with
    fewer than two), `num_distinct_codes`, `distinct_share` (of n),
    `largest_bucket` (items sharing one code), `largest_bucket_share`,
    `bucket_sizes` (how many codes are shared by "1", "2", "3-5", .. items),
    `warnings` (sentences; empty when all is well).

  >>> health = code_health(np.array([[0], [0], [255]], np.uint8))
  >>> health["num_distinct_codes"], health["bucket_sizes"]["2"]
  (2, 1)
  """
  num_videos = len(packed)
  sums, products = _moments(packed)
  means = sums / num_videos
  sizes = _bucket_sizes(packed)
  health = {
      "max_abs_bit_mean": float(np.abs(means).max()),
      "mean_abs_bit_mean": float(np.abs(means).mean()),
      "num_constant_bits": int(np.count_nonzero(np.abs(sums) == num_videos)),
      "mean_abs_correlation": _mean_abs_correlation(
          means, products / num_videos
      ),
      "num_distinct_codes": len(sizes),
      "distinct_share": len(sizes) / num_videos,
      "largest_bucket": int(sizes.max()),
      "largest_bucket_share": float(sizes.max()) / num_videos,
      "bucket_sizes": _bucket_histogram(sizes),
  }
  return health | {"warnings": _warnings(health)}


def _moments(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Sums of bits `[num_bits]` and of their products `[num_bits, num_bits]`."""
  num_bits = 8 * packed.shape[1]
  sums = np.zeros(num_bits, np.int64)
  products = np.zeros((num_bits, num_bits), np.int64)
  for start in range(0, len(packed), _ROWS_PER_BLOCK):
    block = codes_lib.unpack_bits(packed[start : start + _ROWS_PER_BLOCK])
    block = block.astype(np.float32)
    sums += block.sum(axis=0).astype(np.int64)
    products += (block.T @ block).astype(np.int64)
  return sums, products


def _mean_abs_correlation(
    means: np.ndarray, second_moments: np.ndarray
) -> float | None:
  covariance = second_moments - np.outer(means, means)
  varies = np.abs(means) < 1
  if np.count_nonzero(varies) < 2:
    return None
  covariance = covariance[np.ix_(varies, varies)]
  deviation = np.sqrt(1 - means[varies] ** 2)
  correlation = covariance / np.outer(deviation, deviation)
  pairs = np.triu_indices(len(deviation), k=1)
  return float(np.abs(correlation[pairs]).mean())


def _bucket_sizes(
    packed: np.ndarray,
) -> Int64[np.ndarray, "num_distinct"]:
  """How many items share each code that occurs."""
  rows = np.ascontiguousarray(packed).view(f"V{packed.shape[1]}").ravel()
  return np.unique(rows, return_counts=True)[1].astype(np.int64)


def _bucket_histogram(sizes: np.ndarray) -> dict[str, int]:
  histogram = {}
  lower = 0
  for upper in _BUCKET_SIZES:
    name = f"{upper}" if upper == lower + 1 else f"{lower + 1}-{upper}"
    histogram[name] = int(np.count_nonzero((sizes > lower) & (sizes <= upper)))
    lower = upper
  histogram[f"over {lower}"] = int(np.count_nonzero(sizes > lower))
  return histogram


def _warnings(health: dict[str, Any]) -> list[str]:
  warnings = []
  if health["num_constant_bits"]:
    warnings.append(f"{health['num_constant_bits']} bits never change.")
  if health["max_abs_bit_mean"] > _MAX_BIT_MEAN:
    warnings.append(
        f"A bit is unbalanced: |mean| {health['max_abs_bit_mean']:.3f}, above"
        f" {_MAX_BIT_MEAN}."
    )
  correlation = health["mean_abs_correlation"]
  if correlation is not None and correlation > _MAX_CORRELATION:
    warnings.append(
        f"Bits repeat each other: mean |correlation| {correlation:.3f}, above"
        f" {_MAX_CORRELATION}."
    )
  largest, share = health["largest_bucket"], health["largest_bucket_share"]
  if largest > 1 and share > _MAX_BUCKET_SHARE:
    warnings.append(
        f"One code is shared by {largest} items ({100 * share:.1f} %): they"
        " are ranked by position alone."
    )
  return warnings
