"""Shards like those of YouTube-8M, made from a seed.

Encoded, quantised, labelled and named like the frame-level release, so that all
that reads it can be tried without it. Classes are numbered by how common they
are, and a video shows each of its classes for a stretch of time. Classes come
in groups that share their scenes and differ in the order in which they show
them: the mean of a video's frames tells groups, frames in order tell classes.
"""

import os
import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int
from tensorflow_datasets.proto import tf_example_pb2

from chain_jax.data import tfrecord, youtube8m
from chain_jax.errors import InputError

PARTS = ("train", "validate")
_CLASSES_PER_GROUP = 4
# Each row is the order in which a class of a group shows the scenes.
_ORDERS = np.array([(0, 1, 2, 3), (3, 1, 0, 2), (2, 0, 3, 1), (1, 3, 2, 0)])
_NUM_SCENES = _ORDERS.shape[1]
# How common a class is: 1 / (its number + shift), Zipf's law flattened at the
# head, where YouTube-8M's classes differ less.
_ZIPF_SHIFT = 5
_MEAN_LABELS, _MAX_LABELS = 3, 6
_MIN_FRAMES = 120
_SHORT_AUDIO_SHARE = 0.2
_MAX_SEGMENTS = 5
# A few features vary about as much as whitened ones do, the others less:
# standard deviation (1 + place / _KNEE)^-1/2 within rgb and within audio.
_KNEE = 16
# What scenes of one group share and what is their own; then what varies inside a
# class: a video, how it shows a scene, a frame. Set so that the mean of the
# frames finds videos of its classes much better than chance, and far from always.
_GROUP_STD, _SCENE_STD = 0.5, 0.8
_VIDEO_STD, _LOOK_STD, _FRAME_STD = 0.4, 0.4, 0.5


class Youtube8mWorld(NamedTuple):
  """What all videos of a set share."""

  scenes: Float32[np.ndarray, "groups scenes dim"]
  stds: Float32[np.ndarray, "dim"]
  shares: Float[np.ndarray, "num_classes"]  # How common each class is.
  seed: int


class _Plan(NamedTuple):
  """What one video shows: its classes in the order of time."""

  labels: Int[np.ndarray, "num_labels"]
  label_index: Int[np.ndarray, "num_frames"]  # Into `labels`.
  scene: Int[np.ndarray, "num_frames"]


def make_world(*, num_classes: int, seed: int) -> Youtube8mWorld:
  """Draws the scenes.

  Args:
    num_classes: Classes 0 to `num_classes - 1` are used; at most 3862.
    seed: Of the set.

  Raises:
    InputError: If `num_classes` or `seed` is out of range.
  """
  if not 1 <= num_classes <= youtube8m.NUM_CLASSES:
    raise InputError(
        f"`num_classes` must be in 1..{youtube8m.NUM_CLASSES}, got"
        f" {num_classes}; 40 is plenty for a demonstration."
    )
  if seed < 0:
    raise InputError(f"`seed` must be at least 0, got {seed}; try {-seed}.")
  rng = np.random.default_rng([seed, 0])
  places = np.r_[: youtube8m.RGB_DIM, : youtube8m.AUDIO_DIM]
  stds = (1 + places / _KNEE) ** -0.5
  num_groups = -(-num_classes // _CLASSES_PER_GROUP)
  group = rng.standard_normal((num_groups, 1, len(stds)))
  scene = rng.standard_normal((num_groups, _NUM_SCENES, len(stds)))
  shares = 1 / (np.arange(num_classes) + _ZIPF_SHIFT)
  return Youtube8mWorld(
      scenes=((_GROUP_STD * group + _SCENE_STD * scene) * stds).astype(
          np.float32
      ),
      stds=stds.astype(np.float32),
      shares=shares / shares.sum(),
      seed=seed,
  )


def write_shards(
    folder: str | os.PathLike,
    *,
    num_shards: int,
    videos_per_shard: int,
    seed: int,
    part: str = "train",
    num_classes: int = 40,
    segments: bool = False,
) -> list[pathlib.Path]:
  """Writes `train0000.tfrecord`, `train0001.tfrecord`, ...

  Args:
    folder: Made if it is not there; shards of these names are replaced.
    num_shards: Files; the release has 3,844 for each part.
    videos_per_shard: About 230 kB each.
    seed: Of the set; both parts of one set have the same.
    part: `train` or `validate`.
    num_classes: Classes that occur.
    segments: Add segments rated by people; the release of 2019 has them for
      some of the validate part.

  Returns:
    The files.

  Raises:
    InputError: If an argument is out of range.
  """
  if part not in PARTS:
    raise InputError(f"`part` must be one of {', '.join(PARTS)}, got {part!r}.")
  for name, value in (
      ("num_shards", num_shards),
      ("videos_per_shard", videos_per_shard),
  ):
    if value < 1:
      raise InputError(f"`{name}` must be at least 1, got {value}; try 1.")
  world = make_world(num_classes=num_classes, seed=seed)
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  paths = [folder / f"{part}{i:04d}.tfrecord" for i in range(num_shards)]
  for shard, path in enumerate(paths):
    start = shard * videos_per_shard
    tfrecord.write_records(
        path,
        (
            make_record(world, part=part, video=video, segments=segments)
            for video in range(start, start + videos_per_shard)
        ),
    )
  return paths


def make_record(
    world: Youtube8mWorld, *, part: str, video: int, segments: bool = False
) -> bytes:
  """Makes one video, a function of (seed, part, video).

  Args:
    world: What all videos share.
    part: Of `PARTS`.
    video: Position in its part.
    segments: Add segments; the rest stays the same.

  Returns:
    A serialised `tf.train.SequenceExample`.
  """
  rng = np.random.default_rng([world.seed, 1, PARTS.index(part), video])
  plan = _plan(world, rng)
  quantised = youtube8m.quantise(_features(world, plan, rng))
  num_audio = len(quantised) - int(rng.random() < _SHORT_AUDIO_SHARE)
  example = tf_example_pb2.SequenceExample()
  context = example.context.feature
  context["id"].bytes_list.value.append(f"{part}-{video:06d}".encode())
  context["labels"].int64_list.value.extend(np.sort(plan.labels).tolist())
  rgb = quantised[:, : youtube8m.RGB_DIM]
  audio = quantised[:num_audio, youtube8m.RGB_DIM :]
  for key, rows in (("rgb", rgb), ("audio", audio)):
    frames = example.feature_lists.feature_list[key].feature
    for row in rows:
      frames.add().bytes_list.value.append(row.tobytes())
  if segments:
    _add_segments(example, plan, len(world.shares), rng)
  return example.SerializeToString(deterministic=True)


def _plan(world: Youtube8mWorld, rng: np.random.Generator) -> _Plan:
  """Draws the classes of a video and when it shows which scene."""
  # The mean is that of 1 + binomial(_MAX_LABELS - 1, share).
  share = (_MEAN_LABELS - 1) / (_MAX_LABELS - 1)
  num_labels = min(1 + rng.binomial(_MAX_LABELS - 1, share), len(world.shares))
  labels = rng.choice(
      len(world.shares), num_labels, replace=False, p=world.shares
  )
  num_frames = int(rng.integers(_MIN_FRAMES, youtube8m.MAX_FRAMES + 1))
  # Four shots a label, none more than twice as long as another.
  weights = 1 + rng.random(num_labels * _NUM_SCENES)
  ends = np.cumsum(weights) * (num_frames / weights.sum())
  shot = np.searchsorted(ends, np.arange(num_frames) + 0.5)
  orders = _ORDERS[labels % _CLASSES_PER_GROUP].reshape(-1)
  return _Plan(labels, shot // _NUM_SCENES, orders[shot])


def _features(
    world: Youtube8mWorld, plan: _Plan, rng: np.random.Generator
) -> Float32[np.ndarray, "num_frames dim"]:
  """Makes the frames before they are quantised."""
  dim = len(world.stds)

  def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)

  groups = plan.labels // _CLASSES_PER_GROUP
  nuisance = _VIDEO_STD * normal(1, 1, dim)
  nuisance = nuisance + _LOOK_STD * normal(len(groups), _NUM_SCENES, dim)
  looks = world.scenes[groups] + nuisance * world.stds
  # Noise of a frame is uniform, six times faster to draw than normal; its
  # variance is that of a width of sqrt(12).
  frames = rng.random((len(plan.scene), dim), dtype=np.float32)
  frames -= np.float32(0.5)
  frames *= np.float32(_FRAME_STD * 12**0.5) * world.stds
  frames += looks[plan.label_index, plan.scene]
  return frames


def _add_segments(
    example: tf_example_pb2.SequenceExample,
    plan: _Plan,
    num_classes: int,
    rng: np.random.Generator,
) -> None:
  """Rates a few segments: the class that is shown, and one that is not."""
  context = example.context.feature
  length = youtube8m.SEGMENT_FRAMES
  candidates = np.arange(0, len(plan.scene) - length, length)
  chosen = rng.choice(candidates, rng.integers(1, _MAX_SEGMENTS + 1), False)
  for start in np.sort(chosen).tolist():
    shown = set(plan.labels[plan.label_index[start : start + length]].tolist())
    other = int(rng.integers(num_classes))
    ratings = [(label, 1.0) for label in sorted(shown)]
    if other not in shown:
      ratings.append((other, 0.0))
    for label, score in ratings:
      context["segment_start_times"].int64_list.value.append(start)
      context["segment_labels"].int64_list.value.append(label)
      context["segment_scores"].float_list.value.append(score)
