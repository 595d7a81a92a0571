"""Directions in which kinds of videos differ, and near videos do not."""

import numpy as np
import scipy.linalg
from jaxtyping import Float32, Float64, Int32

from chain_jax import principal
from chain_jax.errors import InputError

# Directions lie in the largest principal components, at most so many.
_MOST_COMPONENTS = 256
# Added to the near variance of each component, as a share of their mean: what
# few neighbours show to vary little may vary more among others.
_RIDGE = 1.0
# Videos looked at, and of these at a time.
_MOST_VIDEOS = 2**14
_ROWS_PER_BLOCK = 256


def fit_kind_directions(
    centred: Float32[np.ndarray, "n dim"],
    videos: Int32[np.ndarray, "n width"],
    weights: Float32[np.ndarray, "n width"],
    *,
    num_directions: int,
) -> Float32[np.ndarray, "dim num_directions"]:
  """Finds where all videos differ most beside near ones.

  Of all directions these have the largest ratio of the variance of all videos
  to that between neighbours. Linear discriminant analysis, with neighbours in
  the place of classes.

  Args:
    centred: Features of train videos, of mean 0.
    videos: The neighbours of each.
    weights: Of each as a neighbour; 0 = none.
    num_directions: How many.

  Returns:
    The directions, uncorrelated, scaled so that neighbours, the ridge added,
    differ by the same along each: videos vary most along the first. Without
    any neighbours, the principal components.

  Raises:
    InputError: If there are too few videos or features.

  Source: Fisher 1936; neighbours as classes, Sugiyama 2007 (local Fisher
  discriminant analysis).
  """
  # Every so many-th: rows of one storage shard may be alike.
  shown = np.arange(0, len(centred), max(1, len(centred) // _MOST_VIDEOS))
  sample = centred[shown]
  num_components = min(_MOST_COMPONENTS, min(sample.shape) - 1)
  if num_directions > num_components:
    raise InputError(
        "`neighbours.num_directions` must be at most"
        f" {num_components}, less than the videos and than the features, got"
        f" {num_directions}; try {min(16, num_components)}."
    )
  squares, axes = principal.principal_directions(
      sample, np.zeros(centred.shape[1], np.float32), num_components
  )
  total = np.diag(squares / len(sample))
  near = _near_scatter(centred, axes, shown, videos, weights)
  ridge = _RIDGE * np.trace(near) / num_components
  near += (ridge or 1.0) * np.eye(num_components)
  _, vectors = scipy.linalg.eigh(total, near)
  return np.float32(axes @ vectors[:, : -num_directions - 1 : -1])


def _near_scatter(
    centred: np.ndarray,
    axes: np.ndarray,
    shown: np.ndarray,
    videos: np.ndarray,
    weights: np.ndarray,
) -> Float64[np.ndarray, "components components"]:
  """Returns the weighted mean product of differences between neighbours."""
  scatter = np.zeros((axes.shape[1],) * 2)
  total = 0.0
  projections = centred @ axes.astype(np.float32)
  for start in range(0, len(shown), _ROWS_PER_BLOCK):
    rows = shown[start : start + _ROWS_PER_BLOCK]
    counted = weights[rows]
    differences = projections[rows, None] - projections[videos[rows]]
    scaled = differences * np.sqrt(counted)[..., None]
    flat = scaled.reshape(-1, axes.shape[1])
    scatter += flat.T @ flat
    total += counted.sum()
  return scatter / (total or 1.0)
