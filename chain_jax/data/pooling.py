"""What a whole set's features amount to: a row a video, statistics."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from chain_jax.data.records import plain_frames, to_features
from chain_jax.data.sources import VideoSource, read_in_blocks


class FeatureStatistics(NamedTuple):
  """Of the frames of a sample of videos."""

  mean: Float32[np.ndarray, "dim"]
  std: Float32[np.ndarray, "dim"]
  video_means: Float32[np.ndarray, "sample dim"]


def pooled_features(
    source: VideoSource, *, l2_normalise: bool = True
) -> Float32[np.ndarray, "n dim"]:
  """Averages the plain frames of every video: the baselines' features.

  Args:
    source: Any source; only one block of its videos is in memory at once.
    l2_normalise: Scale each mean to unit norm; a mean of 0 stays 0.

  Returns:
    One row a video; of variants, number 0 counts.

  Raises:
    InputError: If a file turns out to be damaged.
  """
  pooled = _pool(source, functools.partial(np.mean, axis=0))
  if l2_normalise:
    _l2_normalise(pooled)
  return pooled


def pooled_variances(source: VideoSource) -> Float32[np.ndarray, "n dim"]:
  """Takes the variance over time of every video's plain frames.

  It tells what moves, whatever stands still around it.

  Args:
    source: Any source; only one block of its videos is in memory at once.

  Returns:
    One row a video, of unit norm, or 0 where all its frames are equal; of
    variants, number 0 counts.

  Raises:
    InputError: If a file turns out to be damaged.
  """
  pooled = _pool(source, functools.partial(np.var, axis=0))
  _l2_normalise(pooled)
  return pooled


def _pool(
    source: VideoSource, pool_frames: Callable[[np.ndarray], np.ndarray]
) -> Float32[np.ndarray, "n dim"]:
  pooled = np.empty((len(source), source.feature_dim), np.float32)
  for start, block in read_in_blocks(source, what="pool frames"):
    for row, frames in enumerate(block, start):
      features = to_features(plain_frames(frames), source.scaling)
      pooled[row] = pool_frames(features)
  return pooled


def _l2_normalise(rows: np.ndarray) -> None:
  """Works in place: the rows of a large set are gigabytes."""
  norms = np.linalg.norm(rows, axis=1, keepdims=True)
  rows /= np.where(norms > 0, norms, 1)


def feature_statistics(
    source: VideoSource,
    *,
    max_videos: int,
    seed: int,
    l2_normalise: bool = False,
) -> FeatureStatistics:
  """Measures each feature dimension over the frames of a sample of videos.

  Args:
    source: Any source; of variants, number 0 counts.
    max_videos: Size of the sample, >= 1; all videos where there are no more.
    seed: Of the sample; the same seed takes the same videos.
    l2_normalise: Scale each frame to unit norm first; a frame of 0 stays 0.

  Returns:
    Mean and standard deviation over all frames, gathered in float64, and the
    mean frame of each video of the sample, by position. A dimension that never
    changes has the standard deviation 0.

  Source: Chan, Golub, LeVeque 1983, the pairwise update of mean and M2, which
  does not cancel where the mean is large.
  """
  rng = np.random.default_rng(seed)
  videos = np.sort(rng.permutation(len(source))[:max_videos])
  video_means = np.empty((len(videos), source.feature_dim), np.float32)
  count = 0
  mean = np.zeros(source.feature_dim)
  sum_of_squares = np.zeros(source.feature_dim)  # Of deviations from `mean`.
  for row, video in enumerate(videos):
    frames = _exact_features(source, int(video))
    if l2_normalise:
      norms = np.linalg.norm(frames, axis=1, keepdims=True)
      frames /= np.where(norms > 0, norms, 1)
    video_mean = video_means[row] = frames.mean(axis=0)
    delta = video_mean - mean
    total = count + len(frames)
    mean += delta * (len(frames) / total)
    sum_of_squares += np.square(frames - video_mean).sum(axis=0)
    sum_of_squares += np.square(delta) * (count * len(frames) / total)
    count = total
  std = np.sqrt(sum_of_squares / count)
  return FeatureStatistics(
      mean.astype(np.float32), std.astype(np.float32), video_means
  )


def _exact_features(source: VideoSource, video: int) -> np.ndarray:
  """Reads plain frames as float64: a stored float64 keeps its digits."""
  frames = plain_frames(source.read_frames(video))
  if frames.dtype != np.float64:
    return to_features(frames, source.scaling).astype(np.float64)
  return frames * source.scaling.scale + source.scaling.offset
