"""The config's dataset, as the splits that a run works on."""

from typing import NamedTuple

from chain_jax import config as config_lib
from chain_jax.data import (
    augment,
    cached_source,
    dataset_folder,
    field_files,
    frame_sampling,
    holding_out,
    sources,
    synthetic,
)
from chain_jax.data import fingerprints as fingerprints_lib
from chain_jax.errors import InputError


class Splits(NamedTuple):
  """Sources of a run. The field's gallery can be the train set or the query."""

  train: sources.VideoSource  # Without what is held out.
  # Searched with, and in, while training; None = nothing is held out.
  validation: tuple[sources.VideoSource, sources.VideoSource] | None
  gallery: sources.VideoSource
  query: sources.VideoSource


def make_splits(config: config_lib.DataConfig, *, seed: int) -> Splits:
  """Opens the dataset and holds the validation videos out of train.

  Args:
    config: Which dataset.
    seed: Chooses the validation groups.

  Returns:
    The splits. With `data.evaluated_split` "validation", `query` and `gallery`
    are the validation pair: the dataset's own queries take no part in the run.

  Raises:
    InputError: If a file is missing or damaged, or unlike the config.
  """
  splits = _open_splits(config, seed=seed)
  if config.evaluated_split == "query":
    return splits
  if splits.validation is None:
    raise InputError(
        "`data.evaluated_split` must be 'query' where nothing is held out, got"
        f" {config.evaluated_split!r}; set `data.validation_fraction`, such as"
        " 0.25."
    )
  query, gallery = splits.validation
  return splits._replace(gallery=gallery, query=query)


def _open_splits(config: config_lib.DataConfig, *, seed: int) -> Splits:
  if config.dataset == "prepared":
    splits = _prepared(config)
    if not config.validation_fraction:
      return splits
    train, _, gallery, query = splits
  elif config.dataset == "synthetic":
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
  kept, held_out = holding_out.split_validation(
      train.ids,
      fraction=config.validation_fraction,
      group_pattern=config.validation_group_pattern,
      seed=seed,
  )
  rest = sources.SubsetSource(train, kept)
  return Splits(
      train=rest,
      validation=(sources.SubsetSource(train, held_out), rest),
      gallery=gallery,
      query=query,
  )


def open_segments(config: config_lib.DataConfig) -> Splits | None:
  """Opens the rated segments that are scored beside whole videos.

  Returns:
    Their gallery and query, which is `train` too: nothing learns from them;
    None where the config names no segments.

  Raises:
    InputError: If the folder holds no such dataset.
  """
  if not config.prepared.segments_root:
    return None
  dataset = dataset_folder.open_dataset(config.prepared.segments_root)
  query = dataset.split("query")
  sources.check_feature_dim(query, config.feature_dim)
  return Splits(query, None, dataset.split("gallery"), query)


def fingerprints(splits: Splits) -> dict[str, str]:
  """Names the videos of every split that a run works on, by what they are.

  Returns:
    `fingerprints.of_source` of each split, under its name and their endings.
  """
  named = splits._asdict()
  if splits.validation is not None:
    named["validation"] = splits.validation[0]
  found: dict[str, str] = {}
  known: dict[int, dict[str, str]] = {}
  for name, source in named.items():
    if source is None:
      continue
    if id(source) not in known:  # The gallery may be the train split.
      known[id(source)] = fingerprints_lib.of_source(source)
    for part, fingerprint in known[id(source)].items():
      found[name + part] = fingerprint
  return found


def _prepared(config: config_lib.DataConfig) -> Splits:
  """Opens a prepared dataset; one object where two splits are the same."""
  chosen = config.prepared
  dataset = dataset_folder.open_dataset(config.root, way_out=chosen.way_out)
  names = (chosen.train_split, chosen.gallery_split, chosen.query_split)
  opened: dict[str, sources.VideoSource] = {}
  for name in (*names, chosen.validation_split):
    if name and name not in opened:
      opened[name] = dataset.split(name)
      sources.check_feature_dim(opened[name], config.feature_dim)
  if config.cache_in_memory:
    cached_source.check_fits_in_memory(list(opened.values()))
    opened = {n: cached_source.CachedSource(s) for n, s in opened.items()}
  train, gallery, query = (opened[name] for name in names)
  validation = None
  if chosen.validation_split:
    # Small enough to be searched in as well; the train split need not be.
    validation = (opened[chosen.validation_split],) * 2
  return Splits(train, validation, gallery, query)


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
