"""The config's dataset, as the splits that a run works on."""

import functools
from typing import NamedTuple

from chain_jax import config as config_lib
from chain_jax import errors
from chain_jax.data import augment, field_files, sources, synthetic


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
    raise errors.InputError(
        "`data.validation_fraction` must be 0 for a train split without labels"
        f" ({config.dataset}), got {config.validation_fraction}."
    )
  kept, held_out = sources.split_validation(
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
    splits = [sources.CachedSource(split) for split in splits]
  return tuple(splits)


def make_view_maker(
    config: config_lib.AugmentConfig, *, num_frames: int
) -> functools.partial:
  """Binds the augmentation's settings: (frames, rng) -> two views."""
  return functools.partial(
      augment.make_views,
      num_frames=num_frames,
      sampling=config.sampling,
      crop_fraction=tuple(config.crop_fraction),
      playback_rate=tuple(config.playback_rate),
      noise_std=config.noise_std,
      dropout_rate=config.dropout_rate,
      mix_max=config.mix_max,
  )
