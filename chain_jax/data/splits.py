"""The config's dataset, as the splits that a run works on."""

import hashlib
import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, Shaped

from chain_jax import config as config_lib
from chain_jax.data import (
    augment,
    cached_source,
    field_files,
    frame_sampling,
    records,
    sources,
    synthetic,
)
from chain_jax.errors import InputError


class Splits(NamedTuple):
  """Sources of a run. The field's gallery can be the train set or the query."""

  train: sources.VideoSource  # Without what is held out.
  validation: sources.VideoSource | None  # Held out of train; None = nothing.
  gallery: sources.VideoSource
  query: sources.VideoSource


def make_splits(config: config_lib.DataConfig, *, seed: int) -> Splits:
  """Opens the dataset and holds the validation videos out of train.

  Args:
    config: Which dataset.
    seed: Chooses the validation groups.

  Returns:
    The splits.

  Raises:
    InputError: If a file is missing or damaged, or unlike the config.
  """
  if config.dataset == "synthetic":
    train, gallery, query = _synthetic(config)
  else:
    train, gallery, query = field_files.open_field_dataset(
        config.dataset, config.root, cache_in_memory=config.cache_in_memory
    )
  for source in (train, gallery, query):
    sources.check_feature_dim(source, config.feature_dim)
  if not config.validation_fraction:
    return Splits(train, None, gallery, query)
  if train.labels is None:
    raise InputError(
        "`data.validation_fraction` must be 0 for a train split without labels"
        f" ({config.dataset}), got {config.validation_fraction}."
    )
  kept, held_out = split_validation(
      train.ids,
      fraction=config.validation_fraction,
      group_pattern=config.validation_group_pattern,
      seed=seed,
  )
  return Splits(
      train=sources.SubsetSource(train, kept),
      validation=sources.SubsetSource(train, held_out),
      gallery=gallery,
      query=query,
  )


def fingerprints(splits: Splits) -> dict[str, str]:
  """Names the videos of every split that a run works on, by what they are.

  Returns:
    By split, a SHA-256 in hex of its ids and of the frames of its first,
    middle and last video: enough to tell another release or split from this
    one, and cheap where features lie on a disk.
  """
  return {
      name: _fingerprint(source)
      for name, source in splits._asdict().items()
      if source is not None
  }


def _fingerprint(source: sources.VideoSource) -> str:
  digest = hashlib.sha256("\n".join(source.ids.tolist()).encode())
  for video in (0, len(source) // 2, len(source) - 1):
    frames = records.to_features(source.read_frames(video), source.scaling)
    digest.update(f"{frames.shape}".encode())
    digest.update(np.ascontiguousarray(frames).data)
  return digest.hexdigest()


def _synthetic(
    config: config_lib.DataConfig,
) -> tuple[sources.VideoSource, ...]:
  settings = config.synthetic
  world = synthetic.make_world(
      num_appearances=settings.num_appearances,
      num_patterns=settings.num_patterns,
      num_frames=settings.num_frames,
      feature_dim=config.feature_dim,
      difficulty=settings.difficulty,
      seed=settings.seed,
  )
  splits = [
      synthetic.SyntheticSource(world, split=split, num_videos=num_videos)
      for split, num_videos in (
          ("train", settings.num_train),
          ("gallery", settings.num_gallery),
          ("query", settings.num_query),
      )
  ]
  if config.cache_in_memory:
    splits = [cached_source.CachedSource(split) for split in splits]
  return tuple(splits)


def make_view_settings(
    config: config_lib.AugmentConfig, *, num_frames: int
) -> frame_sampling.ViewSettings:
  """Says how views are sampled in time."""
  return frame_sampling.ViewSettings(
      num_frames=num_frames,
      sampling=config.sampling,
      crop_fraction=tuple(config.crop_fraction),
      playback_rate=tuple(config.playback_rate),
  )


def make_augmentation(
    config: config_lib.AugmentConfig, source: sources.VideoSource
) -> augment.FeatureAugmentation:
  """Says how features change: not at all where variants are stored."""
  if source.num_variants > 1:
    return augment.FeatureAugmentation()
  return augment.FeatureAugmentation(
      noise_std=config.noise_std,
      dropout_rate=config.dropout_rate,
      mix_max=config.mix_max,
  )


def split_validation(
    ids: Shaped[np.ndarray, "n"],
    *,
    fraction: float,
    group_pattern: str,
    seed: int,
) -> tuple[Int64[np.ndarray, "train"], Int64[np.ndarray, "validation"]]:
  """Holds out part of the training videos, whole groups at a time.

  Which groups are held out depends on their names and the seed alone, not on
  the order of the videos, and a larger fraction holds out a smaller one's too.

  Args:
    ids: Names of the training videos.
    fraction: Share of the videos to hold out, 0 <= fraction < 1; met as
      nearly as whole groups allow, by at least one group. 0 holds out none.
    group_pattern: Regular expression, searched in each id; videos with the
      same first group stay on one side. "", or no match: each on its own.
    seed: Chooses the groups.

  Returns:
    Rows to train on and rows held out, each ascending.

  Raises:
    InputError: If the fraction or the pattern is wrong, or all videos are one
      group.

  >>> ids = np.array(["a_g1", "b_g1", "c_g2", "d_g2"])
  >>> split_validation(ids, fraction=0.5, group_pattern=r"_(g\\d)", seed=0)
  (array([2, 3]), array([0, 1]))
  """
  if not 0 <= fraction < 1:
    raise InputError(
        "`data.validation_fraction` must be >= 0 and < 1, got"
        f" {fraction}; try 0.1."
    )
  rows = np.arange(len(ids), dtype=np.int64)
  if fraction == 0:
    return rows, rows[:0]
  groups = _group_names(ids, group_pattern)
  members: dict[str, int] = {}
  for group in groups:
    members[group] = members.get(group, 0) + 1
  if len(members) < 2:
    raise InputError(
        "`data.validation_group_pattern` must leave at least 2 groups to"
        f" split, got {len(members)} from {group_pattern!r} over"
        f" {len(ids)} videos; set `data.validation_fraction` to 0 or change"
        " the pattern."
    )
  held_out, num_held_out = set(), 0
  ranked = sorted(members, key=lambda group: _group_rank(group, seed))
  for group in ranked[:-1]:  # One group stays to train on.
    missing = fraction * len(ids) - num_held_out
    # Stop where one more group would miss the share by more than it misses now.
    if held_out and members[group] - missing >= missing:
      break
    held_out.add(group)
    num_held_out += members[group]
  is_held_out = np.array([group in held_out for group in groups])
  return rows[~is_held_out], rows[is_held_out]


def _group_names(ids: np.ndarray, group_pattern: str) -> list[str]:
  try:
    pattern = re.compile(group_pattern)
  except re.error as error:
    raise InputError(
        "`data.validation_group_pattern` must be a regular expression, got"
        f" {group_pattern!r} ({error})."
    ) from error
  if group_pattern and not pattern.groups:
    raise InputError(
        "`data.validation_group_pattern` must have a group in parentheses,"
        f" got {group_pattern!r}; try {'(' + group_pattern + ')'!r}."
    )
  if not group_pattern:
    return [f"video {video_id}" for video_id in ids]
  names = []
  for video_id in ids:
    found = pattern.search(str(video_id))
    group = found.group(1) if found else None
    names.append(f"video {video_id}" if group is None else f"group {group}")
  if group_pattern and not any(name.startswith("group ") for name in names):
    raise InputError(
        f"`data.validation_group_pattern` must occur in the ids, got"
        f" {group_pattern!r} for ids such as {str(ids[0])!r}; set it to '' to"
        " hold out single videos."
    )
  return names


def _group_rank(group: str, seed: int) -> bytes:
  # Python's own hash changes from process to process.
  return hashlib.sha256(f"{seed} {group}".encode()).digest()
