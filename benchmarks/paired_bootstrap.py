"""How sure a difference of two methods on the same queries is."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer, Shaped

_RESAMPLES_PER_BLOCK = 256


class Interval(NamedTuple):
  """A mean difference, and between what it lies."""

  difference: float
  low: float
  high: float


def mean_by_query(
    ids: Shaped[np.ndarray, "n"], values: Float[np.ndarray, "n"]
) -> Float[np.ndarray, "queries"]:
  """Averages what belongs to one query, such as its scores by seed.

  Returns:
    One value a query, in ascending order of ids.

  >>> mean_by_query(np.array(["b", "a", "b"]), np.array([1.0, 5.0, 3.0]))
  array([5., 2.])
  """
  _, query, counts = np.unique(ids, return_inverse=True, return_counts=True)
  return np.bincount(query.ravel(), weights=values) / counts


def paired_bootstrap(
    differences: Float[np.ndarray, "queries"],
    *,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
  """Resamples the queries to bound the mean of their differences.

  Args:
    differences: One method minus the other, query by query.
    num_resamples: Sets of queries drawn with replacement, each as large.
    confidence: Share of their means inside the bounds, in (0, 1).
    seed: Of the draws.

  Returns:
    The mean and the percentile interval. It says nothing of training noise
    that the seeds behind the differences have not shown.

  Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13.

  >>> paired_bootstrap(np.full(8, 0.25))
  Interval(difference=0.25, low=0.25, high=0.25)
  """
  rng = np.random.default_rng(seed)
  means = np.concatenate(
      [
          differences[_draws(rng, len(differences), size)].mean(axis=1)
          for size in _block_sizes(num_resamples)
      ]
  )
  tail = (1 - confidence) / 2
  low, high = np.quantile(means, [tail, 1 - tail])
  return Interval(float(differences.mean()), float(low), float(high))


def _draws(
    rng: np.random.Generator, num_queries: int, size: int
) -> Integer[np.ndarray, "size queries"]:
  return rng.integers(0, num_queries, (size, num_queries))


def _block_sizes(total: int) -> list[int]:
  whole, rest = divmod(total, _RESAMPLES_PER_BLOCK)
  return [_RESAMPLES_PER_BLOCK] * whole + [rest]
