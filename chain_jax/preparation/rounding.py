"""Features in 8 bits: a range a dimension, and rounding inside it."""

import math

import numpy as np
from jaxtyping import Float, Float32, Num, UInt8

from chain_jax import progress
from chain_jax.data.feature_files import FeatureFile
from chain_jax.errors import InputError

_LEVELS = 255  # Steps of uint8.


def measure_scale(
    file: FeatureFile,
) -> tuple[Float[np.ndarray, "dim"], Float[np.ndarray, "dim"]]:
  """Finds the range of each dimension over a file.

  Args:
    file: The training features: those to search with are clipped to their
      range.

  Returns:
    Scale and offset `[dim]`, so that stored * scale + offset spans the range;
    a dimension that never changes has the scale 1.
  """
  low = np.full(file.feature_dim, math.inf, np.float32)
  high = -low
  for row in progress.track(
      range(len(file)), total=len(file), what="measure the range"
  ):
    try:
      values = as_float32(file.read_frames(row)).reshape(-1, file.feature_dim)
    except InputError:  # Listed when its task meets it.
      continue
    np.minimum(low, values.min(axis=0), out=low)
    np.maximum(high, values.max(axis=0), out=high)
  if not np.isfinite(low).all():
    raise InputError(
        f"{file.path} must hold videos that can be read, got none."
    )
  step = ((high.astype(np.float64) - low) / _LEVELS).astype(np.float32)
  return np.where(step > 0, step, np.float32(1)), low


def as_float32(
    values: Num[np.ndarray, "*shape"],
) -> Float32[np.ndarray, "*shape"]:
  """Converts finite numbers of any kind.

  Raises:
    InputError: If one is beyond float32.
  """
  with np.errstate(over="ignore"):
    converted = values.astype(np.float32)
  if not np.isfinite(converted).all():
    raise InputError(
        f"features must be at most {np.finfo(np.float32).max:.2g}, got"
        f" {np.abs(values).max():.2g}; extract them again."
    )
  return converted


def quantise(
    values: Float[np.ndarray, "*batch dim"],
    scale: Float[np.ndarray, "*dim"],
    offset: Float[np.ndarray, "*dim"],
) -> UInt8[np.ndarray, "*batch dim"]:
  """Rounds to the nearest of 256 levels, clipping what lies beyond.

  >>> quantise(np.array([[0.0, 0.6, 9.0]]), np.array(0.5), np.array(0.0)).tolist()
  [[0, 1, 18]]
  """
  levels = np.rint((values - offset) / scale)
  return np.clip(levels, 0, _LEVELS).astype(np.uint8)
