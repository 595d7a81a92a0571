"""Principal components of features that fit in memory once."""

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
from jaxtyping import Float, Float32, Float64

# Rows, or columns, of the features that are centred at a time.
_BLOCK = 4096
# Up to this size a full decomposition takes a second.
_DENSE_SIZE = 1024


def principal_directions(
    features: Float[np.ndarray, "n dim"],
    mean: Float32[np.ndarray, "dim"],
    count: int,
) -> tuple[Float64[np.ndarray, "count"], Float64[np.ndarray, "dim count"]]:
  """Finds the unit directions of largest variance.

  Decomposes the smaller of the covariance `[dim, dim]` and the Gram matrix
  `[n, n]`; of the features there is no second copy.

  Args:
    features: Of many videos.
    mean: Of each feature.
    count: How many directions, at most min(n, dim).

  Returns:
    The sum of squares along each direction, and the directions, the largest
    first.
  """
  num_videos, dim = features.shape
  by_rows = num_videos > dim
  products = _centred_products(features, mean, by_rows=by_rows)
  values, vectors = _largest_eigenpairs(products, count)
  values, vectors = values[::-1], vectors[:, ::-1]
  if by_rows:
    return values, vectors
  directions = np.zeros((dim, count))
  for start in range(0, dim, _BLOCK):
    part = slice(start, start + _BLOCK)
    centred = features[:, part].astype(np.float32) - mean[part]
    directions[part] = centred.T @ vectors
  norms = np.linalg.norm(directions, axis=0)
  return values, directions / np.where(norms > 0, norms, 1)


def _centred_products(
    features: np.ndarray, mean: np.ndarray, *, by_rows: bool
) -> Float64[np.ndarray, "size size"]:
  """Sums X.T @ X over blocks of rows, or X @ X.T over blocks of columns."""
  num_videos, dim = features.shape
  size, total = (dim, num_videos) if by_rows else (num_videos, dim)
  products = np.zeros((size, size))
  for start in range(0, total, _BLOCK):
    part = slice(start, start + _BLOCK)
    if by_rows:
      block = features[part].astype(np.float32) - mean
      products += block.T @ block
    else:
      block = features[:, part].astype(np.float32) - mean[part]
      products += block @ block.T
  return products


def _largest_eigenpairs(
    matrix: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
  """Eigenvalues, rising, and eigenvectors of a symmetric matrix."""
  size = len(matrix)
  if size <= _DENSE_SIZE or 8 * count >= size:
    wanted = [size - count, size - 1]
    return scipy.linalg.eigh(matrix, subset_by_index=wanted)
  # Lanczos: a large matrix and few pairs. A fixed start makes it repeatable.
  start = np.random.default_rng(0).standard_normal(size)
  return scipy.sparse.linalg.eigsh(matrix, k=count, which="LA", v0=start)
