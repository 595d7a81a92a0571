"""What a config may hold: rules for one field, or for two together."""

import math
from typing import Any

from chain_jax import config as config_lib
from chain_jax import config_ranges, errors


def validate(config: config_lib.ExperimentConfig, *, num_devices: int) -> None:
  """Checks what one field, or two together, can get wrong.

  Args:
    config: The settings of a run.
    num_devices: Devices that share a batch.

  Raises:
    InputError: On the first field outside its rule.
  """
  _check_types(config)
  _check_choices(config)
  _check_ranges(config)
  model = config.model
  _check(
      model.num_bits > 0 and model.num_bits % 8 == 0,
      "model.num_bits",
      "a positive multiple of 8",
      model.num_bits,
      f"{max(8, round(model.num_bits / 8) * 8)}",
  )
  frames = config.data.synthetic.num_frames
  _check(
      frames % 8 == 0,
      "data.synthetic.num_frames",
      "a multiple of the 8 shots of a video, or pooled frames tell the classes",
      frames,
      f"{max(1, round(frames / 8)) * 8}",
  )
  _check_width("model.width", model)
  _check_temperature(config.loss)
  _check_reconstruction(config)
  _check_shares(config, num_devices)


def _check_width(name: str, model: config_lib.ModelConfig) -> None:
  width = getattr(model, name.removeprefix("model."))
  even_heads = math.lcm(2, model.num_heads)
  _check(
      width % even_heads == 0,
      name,
      f"even and a multiple of `model.num_heads` = {model.num_heads}",
      width,
      f"{max(1, width // even_heads) * even_heads}",
  )


def _check_reconstruction(config: config_lib.ExperimentConfig) -> None:
  if not config.loss.reconstruction:
    return
  _check_width("model.decoder_width", config.model)
  _check(
      config.augment.mask_fraction > 0,
      "augment.mask_fraction",
      "above 0 where `loss.reconstruction` is, or no frame is left to guess",
      config.augment.mask_fraction,
      "0.5",
  )


def _check_temperature(loss: config_lib.LossConfig) -> None:
  _check(
      not loss.learn_temperature or loss.temperature >= 0.01,
      "loss.temperature",
      "at least 0.01, its bound where it is learned",
      loss.temperature,
      "0.5",
  )


def _check_shares(
    config: config_lib.ExperimentConfig, num_devices: int
) -> None:
  shared_by = config.sharding.model_parallel
  for name, size in (
      ("model.num_heads", config.model.num_heads),
      ("model.mlp_dim", config.model.mlp_dim),
  ):
    _check(
        size % shared_by == 0,
        name,
        f"a multiple of `sharding.model_parallel` = {shared_by}",
        size,
        f"{max(1, size // shared_by) * shared_by}",
    )
  num_parts = max(1, num_devices // shared_by)
  for name, size in (
      ("train.batch_size", config.train.batch_size),
      ("evaluation.batch_size", config.evaluation.batch_size),
  ):
    _check(
        size % num_parts == 0,
        name,
        f"a multiple of the {num_parts} devices",
        size,
        f"{max(1, size // num_parts) * num_parts}",
    )


# By the type of a field's default: what it may be, and how to say so.
_TYPES = {
    bool: (bool, "True or False"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "a text"),
    tuple: ((tuple, list), "a pair of numbers"),
}


def _check_types(config: config_lib.ExperimentConfig) -> None:
  """A config file can set anything; the command line has checked its own."""
  defaults = config_lib.ExperimentConfig()
  for name in config_lib.field_names(defaults):
    value = config_lib.field_value(config, name)
    default = config_lib.field_value(defaults, name)
    allowed, words = _TYPES[type(default)]
    parts = value if isinstance(value, (tuple, list)) else [value]
    is_switch = any(isinstance(part, bool) for part in parts)
    _check(
        isinstance(value, allowed)
        and is_switch == isinstance(default, bool)
        and (
            not isinstance(default, tuple)
            or all(isinstance(part, (int, float)) for part in parts)
        ),
        name,
        words,
        repr(value),
        repr(default),
    )


_SPLITS = ("train", "validation", "gallery", "query")


def _check_choices(config: config_lib.ExperimentConfig) -> None:
  choices = {
      "data.dataset": config_lib.DATASETS,
      "data.prepared.train_split": _SPLITS,
      "data.prepared.gallery_split": _SPLITS,
      "data.prepared.query_split": _SPLITS,
      "data.prepared.validation_split": ("", *_SPLITS),
      "data.shuffle": ("videos", "shards"),
      "data.evaluated_split": ("query", "validation"),
      "augment.sampling": ("segments", "uniform", "consecutive"),
      "loss.contrastive_method": ("auto", "global", "tiled", "ring"),
      "model.normalisation": ("none", "centre", "standardise"),
      "model.hash_relaxation": ("tanh", "straight_through"),
      "model.hash_pooling": ("pool_then_hash", "hash_then_mean"),
      "model.dtype": ("float32", "bfloat16"),
      "neighbours.pooling": ("mean", "variance"),
      "evaluation.self_match": ("removed", "kept"),
  }
  for name, allowed in choices.items():
    value = config_lib.field_value(config, name)
    _check(
        value in allowed,
        name,
        f"one of {', '.join(allowed)}",
        repr(value),
        repr(allowed[0]),
    )
  folder = config.train.checkpoint_folder
  _check(
      "://" not in folder or folder.startswith(("gs://", "s3://")),
      "train.checkpoint_folder",
      "a folder, or a URL that begins with gs:// or s3://",
      repr(folder),
      "a folder that all hosts see",
  )


def _check_ranges(config: config_lib.ExperimentConfig) -> None:
  for name, (low, high) in config_ranges.RANGES.items():
    value = config_lib.field_value(config, name)
    above = value > high and math.isfinite(high)
    _check(
        low <= value <= high and math.isfinite(value),
        name,
        f"at least {low}" if high == math.inf else f"in [{low}, {high}]",
        value,
        str(high if above else low),
    )
  for name in (*config_ranges.RANGES, "model.num_bits"):
    value = config_lib.field_value(config, name)
    largest = config_ranges.LARGEST_INT
    if isinstance(value, float):
      largest = config_ranges.LARGEST_FLOAT
    largest = config_ranges.LARGEST.get(name, largest)
    _check(value <= largest, name, f"at most {largest}", value, str(largest))
  for name, limit in (
      ("augment.crop_fraction", 1.0),
      ("augment.playback_rate", 1000.0),
  ):
    bounds = tuple(config_lib.field_value(config, name))
    _check(
        len(bounds) == 2 and 0 < bounds[0] <= bounds[1] <= limit,
        name,
        f"(low, high) with 0 < low <= high <= {limit}",
        bounds,
        "(1.0, 1.0), which switches it off",
    )


def _check(holds: bool, name: str, rule: str, value: Any, way_out: str) -> None:
  if not holds:
    raise errors.InputError(
        f"`{name}` must be {rule}, got {value}; try {way_out}."
    )
