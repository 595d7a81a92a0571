"""Sources over arrays, for the tests of what works on any source."""

import numpy as np

from chain_jax.data import records


class ArraySource:
  """Videos of any lengths, counting how often it is read."""

  def __init__(self, videos, labels=None, scaling=records.IDENTITY):
    self.videos = videos
    self.ids = np.array([f"video-{row}" for row in range(len(videos))])
    self.labels = labels
    self.feature_dim = videos[0].shape[-1]
    self.num_frames = np.array([len(frames) for frames in videos], np.int32)
    self.num_variants = int(np.prod(videos[0].shape[1:-1]))
    self.dtype = videos[0].dtype
    self.scaling = scaling
    self.shard_starts = np.array([0, len(videos)], np.int64)
    self.num_reads = 0

  def __len__(self):
    return len(self.videos)

  def read_frames(self, video):
    self.num_reads += 1
    return self.videos[video].copy()


class ArrayBlockSource(ArraySource):
  """The same, in blocks of two."""

  rows_per_block = 2

  def read_block(self, start, stop):
    self.num_reads += 1
    return np.stack(self.videos[start:stop])


def random_videos(shapes, dtype=np.float16):
  rng = np.random.default_rng(0)
  return [rng.random(shape).astype(dtype) for shape in shapes]


RAGGED = [(3, 4), (1, 4), (5, 4), (2, 4)]
EQUAL = [(3, 2, 4)] * 5
