"""Directions in which near videos differ, for bits that tell them apart."""

from typing import NamedTuple

import faiss
import numpy as np
import scipy.linalg
from jaxtyping import Float32

from chain_jax import principal
from chain_jax.errors import InputError

# Near ones of a video.
_NUM_NEAR = 3
# Directions lie in the largest principal components: at most so many, and so
# many videos to each, or they fit noise.
_MOST_COMPONENTS = 256
_VIDEOS_PER_COMPONENT = 4
# Added to the variance of each component, as a share of their mean.
_RIDGE = 0.01


class DetailDirections(NamedTuple):
  """Detail bits are the signs of `features @ directions - offsets`."""

  directions: Float32[np.ndarray, "dim num_bits"]
  offsets: Float32[np.ndarray, "num_bits"]


def fit_detail_directions(
    features: Float32[np.ndarray, "n dim"], *, num_bits: int
) -> DetailDirections:
  """Finds where a video and its nearest ones differ most.

  Of all directions, these have the largest ratio of the variance between a
  video and its 3 nearest ones, by cosine, to the variance of all videos: kinds
  of video move little along them, and videos of a kind much.

  Args:
    features: Mean frames of train videos.
    num_bits: How many directions.

  Returns:
    The directions, uncorrelated in pairs of near videos, scaled so that the
    projections of `features` have variance 1, and the medians of these
    projections.

  Raises:
    InputError: If there are too few videos or features.

  Source: the criterion is Fisher's turned over (Fisher 1936), its classes
  neighbourhoods.
  """
  num_videos, dim = features.shape
  num_components = min(
      _MOST_COMPONENTS, num_videos // _VIDEOS_PER_COMPONENT, dim
  )
  if num_components < num_bits:
    raise InputError(
        f"`model.detail_share` asks for {num_bits} detail bits, which need"
        f" {num_bits * _VIDEOS_PER_COMPONENT} train videos and {num_bits}"
        f" features, got {num_videos} and {dim}; try 0, no detail bits."
    )
  mean = features.mean(axis=0)
  _, axes = principal.principal_directions(features, mean, num_components)
  projected = (features - mean) @ axes
  differences = _near_differences(projected).reshape(-1, num_components)
  near = differences.T @ differences / len(differences)
  total = projected.T @ projected / num_videos
  ridge = _RIDGE * np.trace(total) / num_components
  total += (ridge or 1.0) * np.eye(num_components)
  _, vectors = scipy.linalg.eigh(near, total)
  directions = axes @ vectors[:, : -num_bits - 1 : -1]
  projections = features @ directions
  spread = projections.std(axis=0)
  spread[spread == 0] = 1
  return DetailDirections(
      np.float32(directions / spread),
      np.float32(np.median(projections, axis=0) / spread),
  )


def _near_differences(projected: np.ndarray) -> np.ndarray:
  """Returns the differences of each video to its nearest ones."""
  vectors = np.ascontiguousarray(projected, np.float32)
  faiss.normalize_L2(vectors)
  index = faiss.IndexFlatIP(vectors.shape[1])
  index.add(vectors)
  # A video is its own nearest one, or its equal is: the difference is 0.
  _, nearest = index.search(vectors, _NUM_NEAR + 1)
  return projected[:, None] - projected[nearest]
