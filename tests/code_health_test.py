import numpy as np
import pytest

from chain_jax import code_health as health_lib
from chain_jax import codes


def _health(signs):
  return health_lib.code_health(codes.pack_bits(np.array(signs, np.int8)))


def test_balanced_independent_bits_are_healthy():
  rows = [[1 if (i >> b) & 1 else -1 for b in range(8)] for i in range(256)]
  health = _health(rows)
  assert health["max_abs_bit_mean"] == 0
  assert health["mean_abs_correlation"] == 0
  assert health["num_distinct_codes"] == 256
  assert health["distinct_share"] == 1
  assert health["bucket_sizes"]["1"] == 256
  assert health["warnings"] == []


def test_correlation_equals_pearson_over_bits_that_vary():
  rng = np.random.default_rng(0)
  signs = np.where(rng.standard_normal((50, 16)) > 0.7, 1, -1)
  signs[:, 3] = 1
  signs[:, 4] = -signs[:, 5]
  kept = np.delete(signs, 3, axis=1).astype(np.float64)
  pairs = np.corrcoef(kept.T)[np.triu_indices(15, k=1)]
  health = _health(signs)
  # float64 on 50 rows; one pair more or less moves it by 1e-3.
  assert health["mean_abs_correlation"] == pytest.approx(
      np.abs(pairs).mean(), abs=1e-12
  )
  assert health["num_constant_bits"] == 1
  assert health["max_abs_bit_mean"] == 1
  expected = np.abs(signs.mean(axis=0)).mean()
  assert health["mean_abs_bit_mean"] == pytest.approx(expected, abs=1e-12)


def test_blocks_of_rows_add_up(monkeypatch):
  rng = np.random.default_rng(1)
  packed = rng.integers(0, 256, (100, 3), dtype=np.uint8)
  whole = health_lib.code_health(packed)
  monkeypatch.setattr(health_lib, "_ROWS_PER_BLOCK", 7)
  assert health_lib.code_health(packed) == whole


def test_buckets_are_counted_by_size():
  packed = np.repeat(
      np.array([[0, 1], [0, 2], [1, 0], [3, 3]], np.uint8),
      [1, 2, 4, 150],
      axis=0,
  )
  health = health_lib.code_health(packed)
  sizes = {
      name: count for name, count in health["bucket_sizes"].items() if count
  }
  assert sizes == {"1": 1, "2": 1, "3-5": 1, "101-1000": 1}
  assert health["num_distinct_codes"] == 4
  assert health["largest_bucket"] == 150
  assert health["largest_bucket_share"] == pytest.approx(150 / 157)


def test_one_code_for_all_is_warned_of_in_every_way():
  health = _health(np.ones((20, 8)))
  assert health["mean_abs_correlation"] is None
  text = " ".join(health["warnings"])
  for part in ("8 bits never change", "unbalanced", "shared by 20 items"):
    assert part in text


def test_repeated_bits_are_warned_of():
  column = np.array([1, -1] * 10)
  health = _health(np.repeat(column[:, None], 8, axis=1))
  assert health["mean_abs_correlation"] == pytest.approx(1)
  assert any("repeat each other" in line for line in health["warnings"])
