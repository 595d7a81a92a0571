"""A video-feature set made from a seed, in which time matters.

Classes come in groups. The classes of one group show the same scenes for the
same expected time and differ only in when each scene is on: in the order of
the scenes, or in the structure (each scene once, or cut back and forth). The
mean of a video's frames therefore tells its group and no more. Inside a class
vary, in proportion to `difficulty`: how the whole video is lit and framed, how
each scene looks, how a scene moves, how long a scene lasts, and frame noise.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from chain_jax.data import sources
from chain_jax.data.records import IDENTITY
from chain_jax.labels import Labels

_SCENES_PER_GROUP = 4
# A video is cut into this many shots; every pattern fills two with each scene.
_NUM_SHOTS = 2 * _SCENES_PER_GROUP
# Set so that, at difficulty 1, neither a group nor a pattern is trivial:
# nuisance of a video, look and drift of a scene, frame noise, shot boundaries.
_VIDEO_STD, _SCENE_STD, _DRIFT_STD, _FRAME_STD = 0.6, 0.4, 0.4, 0.3
_BOUNDARY_STD = 0.25  # In shots.
_GROUP_STD, _SHARED_STD = 0.6, 0.5  # What scenes of a group, or all, share.


class SyntheticWorld(NamedTuple):
  """What all videos of a set share."""

  scenes: Float[np.ndarray, "groups scenes dim"]
  patterns: Int[np.ndarray, "patterns shots"]
  num_frames: int
  difficulty: float
  seed: int


def make_world(
    *,
    num_appearances: int,
    num_patterns: int,
    num_frames: int,
    feature_dim: int,
    difficulty: float,
    seed: int,
) -> SyntheticWorld:
  """Draws the scenes of every group and the patterns of time.

  Args:
    num_appearances: Groups of classes; each has its own four scenes.
    num_patterns: Classes in a group, at most 8.
    num_frames: Frames a video.
    feature_dim: Width of a frame's feature.
    difficulty: Scales everything that varies inside a class.
    seed: Of the set.

  Returns:
    The world; class `group * num_patterns + pattern`.
  """
  rng = np.random.default_rng([seed, 0])
  shared = rng.standard_normal((1, 1, feature_dim)) * _SHARED_STD
  group = rng.standard_normal((num_appearances, 1, feature_dim)) * _GROUP_STD
  shape = (num_appearances, _SCENES_PER_GROUP, feature_dim)
  return SyntheticWorld(
      scenes=shared + group + rng.standard_normal(shape),
      patterns=time_patterns()[:num_patterns],
      num_frames=num_frames,
      difficulty=difficulty,
      seed=seed,
  )


def time_patterns() -> Int[np.ndarray, "patterns shots"]:
  """Lists eight ways to show four scenes for two shots each.

  Even rows show each scene in one piece and differ in order; odd rows cut
  back and forth between scenes and differ in structure.

  >>> time_patterns()[0].tolist(), time_patterns()[1].tolist()
  ([0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 0, 1, 2, 3, 2, 3])
  """
  orders = [(0, 1, 2, 3), (3, 1, 0, 2), (2, 0, 3, 1), (1, 3, 2, 0)]
  whole = [np.repeat(order, 2) for order in orders]
  cut = [
      np.array([a, b, a, b, c, d, c, d])
      for a, b, c, d in (orders[0], orders[2], orders[1], orders[3])
  ]
  return np.array(list(itertools.chain(*zip(whole, cut, strict=True))))


def make_video(
    world: SyntheticWorld, *, label: int, split_index: int, video: int
) -> Float32[np.ndarray, "frames dim"]:
  """Makes one video, a function of (seed, split, video) and its class.

  Args:
    world: What all videos share.
    label: The class.
    split_index: 0 train, 1 gallery, 2 query.
    video: Position in its split.

  Returns:
    Non-negative frame features.
  """
  rng = np.random.default_rng([world.seed, 1, split_index, video])
  group, pattern = divmod(label, len(world.patterns))
  num_scenes, dim = world.scenes.shape[1:]
  hard = world.difficulty

  def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)

  look = world.scenes[group] + hard * _SCENE_STD * normal(num_scenes, dim)
  look = look + hard * _VIDEO_STD * normal(1, dim)
  scene, phase = _shots(
      world.patterns[pattern],
      num_frames=world.num_frames,
      boundary_std=min(hard, 1.0) * _BOUNDARY_STD,
      rng=rng,
  )
  # A scene moves along a line of its own; cutting back to it goes on from it.
  drift = hard * _DRIFT_STD * normal(num_scenes, dim)
  frames = look[scene] + phase[:, None] * drift[scene]
  frames += hard * _FRAME_STD * normal(world.num_frames, dim)
  # Like the ReLU at the end of the networks that give the field's features.
  return np.maximum(frames, 0.0).astype(np.float32)


def _shots(
    pattern: Int[np.ndarray, "shots"],
    *,
    num_frames: int,
    boundary_std: float,
    rng: np.random.Generator,
) -> tuple[Int[np.ndarray, "frames"], Float[np.ndarray, "frames"]]:
  """Returns each frame's scene, and how far that scene has moved, -1 to 1."""
  edges = np.arange(1, _NUM_SHOTS) + boundary_std * np.clip(
      rng.standard_normal(_NUM_SHOTS - 1), -1.9, 1.9
  )
  position = (np.arange(num_frames) + 0.5) * _NUM_SHOTS / num_frames
  scene = pattern[np.searchsorted(edges, position)]
  phase = np.zeros(num_frames)
  for one in np.unique(scene):
    shown = np.flatnonzero(scene == one)
    phase[shown] = np.linspace(-1, 1, len(shown))
  return scene, phase


def draw_classes(
    *, num_classes: int, num_videos: int, seed: int, split_index: int
) -> Int[np.ndarray, "n"]:
  """Deals the classes out evenly, in random order."""
  rng = np.random.default_rng([seed, 2, split_index])
  return rng.permutation(np.arange(num_videos) % num_classes)


class SyntheticSource:
  """One split of a synthetic set: a `BlockSource` that makes what is read."""

  rows_per_block = 64
  dtype = np.dtype(np.float32)
  num_variants = 1
  scaling = IDENTITY

  def __init__(
      self, world: SyntheticWorld, *, split: str, num_videos: int
  ) -> None:
    self._world = world
    self._split_index = ("train", "gallery", "query").index(split)
    num_classes = len(world.scenes) * len(world.patterns)
    self._classes = draw_classes(
        num_classes=num_classes,
        num_videos=num_videos,
        seed=world.seed,
        split_index=self._split_index,
    )
    self.labels = Labels.from_classes(self._classes, num_classes=num_classes)
    self.ids = np.array(
        [f"synthetic-{split}-{i:06d}" for i in range(num_videos)]
    )
    self.feature_dim = world.scenes.shape[-1]
    self.num_frames = np.full(num_videos, world.num_frames, np.int32)
    self.shard_starts = sources.single_shard(num_videos)

  def __len__(self) -> int:
    return len(self.ids)

  def read_frames(self, video: int) -> Float32[np.ndarray, "frames dim"]:
    """Makes the frames of one video."""
    return make_video(
        self._world,
        label=int(self._classes[video]),
        split_index=self._split_index,
        video=video,
    )

  def read_block(
      self, start: int, stop: int
  ) -> Float32[np.ndarray, "rows frames dim"]:
    """Makes the frames of videos `start .. stop - 1`."""
    return np.stack([self.read_frames(video) for video in range(start, stop)])
