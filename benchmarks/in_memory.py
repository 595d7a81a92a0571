"""Random frames in memory, for benchmarks that time what comes after reading."""

import numpy as np

from chain_jax.data import cached_source, records, sources


class _RandomSource:
  """Videos of random frames, made when they are read."""

  labels = None
  num_variants = 1
  scaling = records.IDENTITY

  def __init__(
      self, num_videos: int, num_frames: int, feature_dim: int, dtype: str
  ):
    self.dtype = np.dtype(dtype)
    self.ids = np.array([f"video {i}" for i in range(num_videos)])
    self.feature_dim = feature_dim
    self.num_frames = np.full(num_videos, num_frames, np.int32)
    self.shard_starts = sources.single_shard(num_videos)

  def __len__(self) -> int:
    return len(self.ids)

  def read_frames(self, video: int) -> np.ndarray:
    shape = (int(self.num_frames[video]), self.feature_dim)
    rng = np.random.default_rng(video)
    return (rng.random(shape, np.float32) * 99).astype(self.dtype)


def random_source(
    num_videos: int, num_frames: int, feature_dim: int, dtype: str = "float16"
) -> cached_source.CachedSource:
  """Returns videos `[num_frames, feature_dim]` as a cached set has them."""
  return cached_source.CachedSource(
      _RandomSource(num_videos, num_frames, feature_dim, dtype)
  )
