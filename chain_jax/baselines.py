"""Linear hashing without frames in order: LSH and ITQ on pooled features.

Both project centred features and take signs. They hold the model to account:
what frames in order bring must show above what their mean alone brings.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int8

from chain_jax import codes as codes_lib
from chain_jax import principal
from chain_jax.errors import InputError

# Rows, or columns, of the features that are centred at a time.
_BLOCK = 4096
# Below this share of the largest, float32 features' variance is noise.
_SMALLEST_VARIANCE_SHARE = 1e-9


class LinearHash(NamedTuple):
  """Hashes features by the signs of `(features - mean) @ projection`."""

  mean: Float32[np.ndarray, "dim"]
  projection: Float32[np.ndarray, "dim num_bits"]


def fit_lsh(
    features: Float[np.ndarray, "n dim"], *, num_bits: int, seed: int
) -> LinearHash:
  """Draws random hyperplanes through the mean of the features.

  Args:
    features: Of the training set, mean-pooled and L2-normalised.
    num_bits: Code length.
    seed: Of the hyperplanes' standard normal directions.

  Returns:
    The hash.

  Raises:
    InputError: If features are not finite.

  Source: Charikar, STOC 2002, Sec. 3. Differs: features are centred first.
  """
  mean = _finite_mean(features)
  rng = np.random.default_rng(seed)
  projection = rng.standard_normal((features.shape[1], num_bits))
  return LinearHash(mean, projection.astype(np.float32))


def fit_itq(
    features: Float[np.ndarray, "n dim"],
    *,
    num_bits: int,
    seed: int,
    num_iterations: int = 50,
) -> LinearHash:
  """Learns iterative quantisation: PCA, then the rotation nearest to signs.

  Args:
    features: Of the training set, mean-pooled and L2-normalised.
    num_bits: Code length, at most min(n - 1, dim).
    seed: Of the random rotation it starts from.
    num_iterations: Of alternating signs and rotation.

  Returns:
    The hash; its projection holds PCA and rotation together.

  Raises:
    InputError: If features are not finite, or span fewer than `num_bits`
      directions.

  Source: Gong and Lazebnik, CVPR 2011, Sec. 2 and 3.
  """
  num_videos, dim = features.shape
  if num_bits > min(num_videos - 1, dim):
    raise InputError(
        "`num_bits` of ITQ must be at most min(n - 1, dim) ="
        f" {min(num_videos - 1, dim)} for features [{num_videos}, {dim}], got"
        f" {num_bits}; use fewer bits, more videos, or LSH."
    )
  mean = _finite_mean(features)
  variances, directions = principal.principal_directions(
      features, mean, num_bits
  )
  if variances[-1] <= _SMALLEST_VARIANCE_SHARE * variances[0]:
    raise InputError(
        f"`features` must vary in `num_bits` = {num_bits} directions for ITQ,"
        " but span fewer; use fewer bits, or LSH."
    )
  projected = _project(features, mean, directions.astype(np.float32))
  rotation = _fit_rotation(
      projected.astype(np.float64), seed=seed, num_iterations=num_iterations
  )
  return LinearHash(mean, (directions @ rotation).astype(np.float32))


def apply_linear_hash(
    linear_hash: LinearHash, features: Float[np.ndarray, "n dim"]
) -> Int8[np.ndarray, "n num_bits"]:
  """Hashes features; zero becomes +1.

  Args:
    linear_hash: From `fit_lsh` or `fit_itq`.
    features: Mean-pooled and L2-normalised, like those of the fit.

  Returns:
    int8, each +1 or -1.

  >>> linear_hash = LinearHash(np.ones(1, np.float32), np.ones((1, 8), np.float32))
  >>> apply_linear_hash(linear_hash, np.array([[0.5], [2.0]]))[:, 0].tolist()
  [-1, 1]
  """
  return codes_lib.binarise(_project(features, *linear_hash))


def _finite_mean(features: np.ndarray) -> Float32[np.ndarray, "dim"]:
  mean = features.mean(axis=0, dtype=np.float64)
  if not np.isfinite(mean).all():
    raise InputError(
        "`features` must be finite, got NaN or infinity; check the dataset."
    )
  return mean.astype(np.float32)


def _project(
    features: np.ndarray, mean: np.ndarray, projection: np.ndarray
) -> Float32[np.ndarray, "n num_bits"]:
  """Centres and projects, a block at a time: no second copy of features."""
  projected = np.empty((len(features), projection.shape[1]), np.float32)
  for start in range(0, len(features), _BLOCK):
    rows = slice(start, start + _BLOCK)
    centred = features[rows].astype(np.float32) - mean
    projected[rows] = centred @ projection
  return projected


def _fit_rotation(
    projected: Float64[np.ndarray, "n num_bits"],
    *,
    seed: int,
    num_iterations: int,
) -> Float64[np.ndarray, "num_bits num_bits"]:
  """Alternates signs and the orthogonal Procrustes rotation towards them."""
  rng = np.random.default_rng(seed)
  num_bits = projected.shape[1]
  rotation, _ = np.linalg.qr(rng.standard_normal((num_bits, num_bits)))
  for _ in range(num_iterations):
    signs = codes_lib.binarise(projected @ rotation).astype(np.float64)
    left, _, right = np.linalg.svd(projected.T @ signs)
    rotation = left @ right
  return rotation
