"""What a config may hold: rules for one field, or for two together."""

import math
from typing import Any

from chain_jax import config as config_lib
from chain_jax import errors


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


# Field -> smallest and largest allowed value, both included.
_RANGES = {
    "data.feature_dim": (1, math.inf),
    "data.num_frames": (2, math.inf),
    "data.num_workers": (0, math.inf),
    "data.shuffle_window": (1, math.inf),
    "data.validation_fraction": (0, 0.9),
    "data.synthetic.num_train": (1, math.inf),
    "data.synthetic.num_gallery": (1, math.inf),
    "data.synthetic.num_query": (1, math.inf),
    "data.synthetic.num_appearances": (1, math.inf),
    "data.synthetic.num_patterns": (1, 8),
    "data.synthetic.num_frames": (8, math.inf),
    "data.synthetic.difficulty": (0, math.inf),
    "data.synthetic.seed": (0, 2**31 - 1),
    "data.prepared.demo_shards": (0, 10_000),
    "augment.noise_std": (0, math.inf),
    "augment.dropout_rate": (0, 0.99),
    "augment.mix_max": (0, 1),
    "augment.mask_fraction": (0, 0.99),
    "model.detail_share": (0, 0.99),
    "model.width": (1, math.inf),
    "model.depth": (0, math.inf),
    "model.num_heads": (1, math.inf),
    "model.mlp_dim": (1, math.inf),
    "model.dropout_rate": (0, 0.99),
    "model.hash_hidden_dim": (0, math.inf),
    "model.position_scale": (0, math.inf),
    "model.branch_init_scale": (0, math.inf),
    "model.decoder_width": (1, math.inf),
    "model.decoder_depth": (0, math.inf),
    "loss.contrastive": (0, math.inf),
    "loss.frame_order": (0, math.inf),
    "loss.scene_change": (0, math.inf),
    "loss.quantisation": (0, math.inf),
    "loss.bit_balance": (0, math.inf),
    "loss.decorrelation": (0, math.inf),
    "loss.reconstruction": (0, math.inf),
    "loss.temperature": (1e-6, math.inf),
    "loss.positive_prior": (0, 0.99),
    "loss.scene_threshold_std": (-10, 10),
    "neighbours.num_neighbours": (0, math.inf),
    "neighbours.num_components": (0, math.inf),
    "neighbours.whitening": (0, 1),
    "neighbours.num_directions": (0, math.inf),
    "neighbours.min_overlap": (0, 1),
    "neighbours.weight": (0, math.inf),
    "neighbours.batch_share": (0, 0.5),
    "optimizer.learning_rate": (0, math.inf),
    "optimizer.warmup_steps": (0, math.inf),
    "optimizer.weight_decay": (0, math.inf),
    "optimizer.gradient_clip": (0, math.inf),
    "optimizer.adam_b2": (0, 0.999999),
    "train.seed": (0, 2**31 - 1),
    "train.batch_size": (2, math.inf),
    "train.device_batch_size": (0, math.inf),
    "sharding.model_parallel": (1, math.inf),
    "train.num_epochs": (1, math.inf),
    "train.max_steps": (0, math.inf),
    "train.log_every_steps": (1, math.inf),
    "train.checkpoint_every_steps": (1, math.inf),
    "train.keep_checkpoints": (1, math.inf),
    "train.validate_every_steps": (0, math.inf),
    "train.hang_seconds": (0, math.inf),
    "train.profile_start_step": (0, math.inf),
    "train.profile_num_steps": (0, math.inf),
    "evaluation.batch_size": (1, math.inf),
    "evaluation.baseline_seed": (0, 2**31 - 1),
    "evaluation.baseline_videos": (0, math.inf),
}


# Of fields without a largest value above: what no run can need, and what would
# fail in a library, as steps and videos are counted in int32.
_LARGEST_INT, _LARGEST_FLOAT = 2**31 - 1, 1e9
_LARGEST = {
    "data.feature_dim": 2**20,
    "data.num_frames": 2**16,
    "data.num_workers": 1024,
    "data.synthetic.num_train": 10**7,
    "data.synthetic.num_gallery": 10**7,
    "data.synthetic.num_query": 10**7,
    "data.synthetic.num_appearances": 10_000,
    "data.synthetic.num_frames": 2**16,
    "data.synthetic.difficulty": 1e6,
    "augment.noise_std": 1e6,
    "model.num_bits": 2**16,
    "model.width": 2**16,
    "model.depth": 1000,
    "model.num_heads": 2**16,
    "model.mlp_dim": 2**20,
    "model.hash_hidden_dim": 2**20,
    "model.decoder_width": 2**16,
    "model.decoder_depth": 1000,
    "neighbours.num_neighbours": 2**20,
    "neighbours.num_components": 2**20,
    "neighbours.num_directions": 2**20,
    "train.batch_size": 2**20,
    "train.device_batch_size": 2**20,
    "evaluation.batch_size": 2**20,
}


def _check_ranges(config: config_lib.ExperimentConfig) -> None:
  for name, (low, high) in _RANGES.items():
    value = config_lib.field_value(config, name)
    above = value > high and math.isfinite(high)
    _check(
        low <= value <= high and math.isfinite(value),
        name,
        f"at least {low}" if high == math.inf else f"in [{low}, {high}]",
        value,
        str(high if above else low),
    )
  for name in (*_RANGES, "model.num_bits"):
    value = config_lib.field_value(config, name)
    is_float = isinstance(value, float)
    largest = _LARGEST.get(name, _LARGEST_FLOAT if is_float else _LARGEST_INT)
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
