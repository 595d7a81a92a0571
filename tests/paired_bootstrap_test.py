"""The interval of a mean difference is the one that theory gives."""

import pathlib
import sys

import numpy as np
import pytest
import scipy.stats

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from benchmarks import paired_bootstrap


def test_two_equal_methods_differ_by_nothing():
  found = paired_bootstrap.paired_bootstrap(np.zeros(30))
  assert found == (0.0, 0.0, 0.0)


def test_the_interval_is_that_of_the_normal_law_where_queries_are_many():
  differences = np.random.default_rng(1).normal(0.02, 0.3, 4000)
  found = paired_bootstrap.paired_bootstrap(differences)
  error = scipy.stats.sem(differences, ddof=0)
  mean = differences.mean()
  np.testing.assert_allclose(found.difference, mean, rtol=1e-12)
  # A percentile of 10,000 draws is uncertain by 3 % of the standard error.
  np.testing.assert_allclose(
      [found.low, found.high],
      [mean - 1.96 * error, mean + 1.96 * error],
      atol=0.1 * error,
      strict=True,
  )


def test_the_interval_agrees_with_scipy_where_differences_are_skewed():
  differences = np.random.default_rng(2).exponential(1.0, 40) - 0.8
  found = paired_bootstrap.paired_bootstrap(differences, confidence=0.9)
  expected = scipy.stats.bootstrap(
      (differences,),
      np.mean,
      confidence_level=0.9,
      n_resamples=20_000,
      method="percentile",
  ).confidence_interval
  # Both are random: 3 % of the standard error, .16, each.
  np.testing.assert_allclose(
      [found.low, found.high], list(expected), atol=0.02, strict=True
  )


def test_the_interval_covers_the_truth_as_often_as_it_says():
  rng = np.random.default_rng(3)
  covered = 0
  for seed in range(300):
    low, high = paired_bootstrap.paired_bootstrap(
        rng.normal(0.1, 1.0, 60), num_resamples=400, seed=seed
    )[1:]
    covered += low <= 0.1 <= high
  # 95 % of 300 +- 3 standard deviations; few queries cost a little.
  assert 270 <= covered <= 297


@pytest.mark.parametrize("num_resamples", [1, 255, 256, 600])
def test_any_number_of_resamples_is_drawn(num_resamples):
  found = paired_bootstrap.paired_bootstrap(
      np.array([0.0, 1.0]), num_resamples=num_resamples
  )
  assert 0 <= found.low <= found.high <= 1


def test_a_query_counts_once_however_many_seeds_have_it():
  found = paired_bootstrap.mean_by_query(
      np.array(["b", "a", "b", "c"]), np.array([1.0, 5.0, 3.0, 0.0])
  )
  np.testing.assert_array_equal(found, np.array([5.0, 2.0, 0.0]), strict=True)
