"""Kind directions agree with a dense generalised eigenproblem in float64."""

import numpy as np
import pytest

from chain_jax import errors
from chain_jax.data import kind_directions


def _videos(num_videos=90, dim=12, width=6, seed=0):
  rng = np.random.default_rng(seed)
  rows = rng.normal(size=(num_videos, dim)) * np.linspace(2, 0.2, dim)
  rows -= rows.mean(axis=0)
  videos = rng.integers(num_videos, size=(num_videos, width))
  weights = rng.random((num_videos, width)) * (
      rng.random((num_videos, 1)) < 0.9
  )
  return rows.astype(np.float32), np.int32(videos), np.float32(weights)


def _scatters(rows, videos, weights):
  """Sums over all pairs, one at a time."""
  rows = rows.astype(np.float64)
  near = np.zeros((rows.shape[1],) * 2)
  for video, others in enumerate(videos):
    for other, weight in zip(others, weights[video], strict=True):
      difference = rows[video] - rows[other]
      near += weight * np.outer(difference, difference)
  return rows.T @ rows / len(rows), near / weights.sum()


def test_directions_have_the_largest_ratios_of_variances(monkeypatch):
  monkeypatch.setattr(kind_directions, "_RIDGE", 1e-9)
  rows, videos, weights = _videos()
  found = kind_directions.fit_kind_directions(
      rows, videos, weights, num_directions=4
  ).astype(np.float64)
  assert found.shape == (12, 4)
  # One component fewer than features: the rest of the space is not looked at.
  total, near = _scatters(rows, videos, weights)
  _, axes = np.linalg.eigh(total)
  axes = axes[:, 1:]
  values = np.linalg.eigvals(
      np.linalg.solve(axes.T @ near @ axes, axes.T @ total @ axes)
  )
  expected = np.sort(values.real)[::-1][:4]
  np.testing.assert_allclose(
      found.T @ near @ found, np.eye(4), rtol=0, atol=1e-4
  )
  np.testing.assert_allclose(
      found.T @ total @ found, np.diag(expected), rtol=0, atol=1e-3
  )


def test_the_ridge_is_the_mean_near_variance():
  rows, videos, weights = _videos()
  found = kind_directions.fit_kind_directions(
      rows, videos, weights, num_directions=11
  ).astype(np.float64)
  total, near = _scatters(rows, videos, weights)
  _, axes = np.linalg.eigh(total)
  near = axes[:, 1:].T @ near @ axes[:, 1:]
  inverse = np.linalg.inv(near + np.trace(near) / 11 * np.eye(11))
  # All directions together undo the ridged near scatter.
  np.testing.assert_allclose(
      found @ found.T, axes[:, 1:] @ inverse @ axes[:, 1:].T, atol=1e-4
  )


def test_without_neighbours_they_are_the_principal_components():
  rows, videos, weights = _videos()
  found = kind_directions.fit_kind_directions(
      rows, videos, np.zeros_like(weights), num_directions=3
  )
  _, _, axes = np.linalg.svd(rows.astype(np.float64), full_matrices=False)
  np.testing.assert_allclose(
      np.abs(found.T @ axes[:3].T), np.eye(3), rtol=0, atol=1e-4
  )


def test_a_large_split_is_sampled_evenly(monkeypatch):
  rows, videos, weights = _videos()
  every_third = np.arange(0, 90, 3)
  monkeypatch.setattr(kind_directions, "_MOST_VIDEOS", 30)
  found = kind_directions.fit_kind_directions(
      rows, videos, weights, num_directions=2
  )
  others = weights.copy()
  others[np.setdiff1d(np.arange(90), every_third)] = 7
  again = kind_directions.fit_kind_directions(
      rows, videos, others, num_directions=2
  )
  np.testing.assert_array_equal(found, again, strict=True)


def test_more_directions_than_components_are_refused():
  rows, videos, weights = _videos()
  with pytest.raises(errors.InputError, match="num_directions.*at most 11.*12"):
    kind_directions.fit_kind_directions(
        rows, videos, weights, num_directions=12
    )
