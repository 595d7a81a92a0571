"""Every setting of a run: its unit, default and meaning.

A file in `configs/` returns an `ExperimentConfig` and changes only what
differs from the defaults here. `slots` makes a misspelt field an error.
"""

import dataclasses
from typing import Any

DATASETS = (
    "synthetic",
    "prepared",
    "fcvid",
    "activitynet",
    "ucf101",
    "hmdb51",
)


@dataclasses.dataclass(slots=True, kw_only=True)
class SyntheticConfig:
  """The built-in video-feature set; see `data/synthetic.py`."""

  num_train: int = 2000  # Videos without labels to learn from.
  num_gallery: int = 1000  # Videos searched in.
  num_query: int = 320  # Videos searched with.
  num_appearances: int = 8  # Groups of classes that share their scenes.
  num_patterns: int = 4  # Classes in a group, told apart by time alone.
  num_frames: int = 32  # Stored frames a video; at least 8.
  difficulty: float = 1.0  # Scale of all that varies inside a class; >= 0.
  seed: int = 0  # Of the set itself, apart from the run's seed.


@dataclasses.dataclass(slots=True, kw_only=True)
class PreparedConfig:
  """A dataset that `chain_jax.prepare` wrote: which split does what."""

  train_split: str = "train"  # train | validation | gallery | query.
  gallery_split: str = "gallery"  # Videos searched in.
  query_split: str = "query"  # Videos searched with.
  validation_split: str = ""  # Scored in training; "" = none of its own.
  segments_root: str = ""  # Dataset of segments to score too; "" = none.
  demo_shards: int = 0  # Makes synthetic YouTube-8M shards if none are there.
  way_out: str = ""  # What to do where `data.root` holds no dataset.


@dataclasses.dataclass(slots=True, kw_only=True)
class DataConfig:
  """Which videos, and how their frames become batches."""

  dataset: str = "synthetic"  # One of `DATASETS`.
  root: str = ""  # Folder of the dataset's files; unused by synthetic.
  feature_dim: int = 4096  # Width of a frame's feature.
  num_frames: int = 25  # Frames a view, T; longer videos are sampled.
  cache_in_memory: bool = False  # Read every feature once, keep its dtype.
  cache_on_device: bool = False  # Keep the train split on the devices.
  shuffle: str = "videos"  # videos | shards: shards, then videos near by.
  shuffle_window: int = 16  # Storage shards that videos are shuffled over.
  num_workers: int = 0  # Processes that make batches; 0 = threads here.
  validation_fraction: float = 0.0  # Share of train held out; 0 = none.
  validation_group_pattern: str = ""  # Regex; its group 1 stays on one side.
  evaluated_split: str = "query"  # query | validation: those held out instead.
  synthetic: SyntheticConfig = dataclasses.field(
      default_factory=SyntheticConfig
  )
  prepared: PreparedConfig = dataclasses.field(default_factory=PreparedConfig)


@dataclasses.dataclass(slots=True, kw_only=True)
class AugmentConfig:
  """How one video becomes two views; 0 or (1, 1) switches a part off."""

  sampling: str = "segments"  # segments | uniform | consecutive.
  crop_fraction: tuple[float, float] = (0.5, 1.0)  # Of the video's length.
  playback_rate: tuple[float, float] = (1.0, 1.0)  # > 1 skips frames.
  noise_std: float = 0.1  # Per view, in units of the video's feature RMS.
  dropout_rate: float = 0.1  # Share of feature dimensions set to 0 in a view.
  mix_max: float = 0.2  # Largest weight of a neighbouring frame; 0 to 1.
  mask_fraction: float = 0.0  # Share of a view's frames hidden in training.


@dataclasses.dataclass(slots=True, kw_only=True)
class ModelConfig:
  """The temporal encoder and the hash layer."""

  num_bits: int = 64  # Code length; a multiple of 8.
  # Of the bits, rounded down to whole bytes: the last ones are not learnt but
  # tell near videos apart by their mean frames.
  detail_share: float = 0.0
  # Tokens also tell how far a frame is from its view's mean, by dimension.
  frame_deviations: bool = False
  width: int = 256  # Of a frame token.
  depth: int = 2  # Transformer blocks; 0 pools the projected frames.
  num_heads: int = 4  # Divides `width`.
  mlp_dim: int = 1024  # Hidden width of a block's MLP.
  dropout_rate: float = 0.1  # Inside the blocks.
  position_scale: float = 1.0  # Of the positions; features have unit scale.
  branch_init_scale: float = 0.0  # 0: blocks start by passing frames on.
  normalisation: str = "centre"  # Of features: none | centre | standardise.
  l2_normalise: bool = False  # Scale each frame to unit norm first.
  hash_hidden_dim: int = 0  # Hidden width of the hash layer; 0 = linear.
  hash_relaxation: str = "tanh"  # tanh | straight_through.
  hash_pooling: str = "pool_then_hash"  # pool_then_hash | hash_then_mean.
  normalise_bits: bool = True  # Zero mean, unit variance over bits.
  decoder_width: int = 192  # Of `loss.reconstruction`'s decoder.
  decoder_depth: int = 2  # Its transformer blocks.
  remat: bool = False  # Recompute blocks in the backward pass: less memory.
  dtype: str = "float32"  # Of computation: float32 | bfloat16.


@dataclasses.dataclass(slots=True, kw_only=True)
class LossConfig:
  """Weights of the objective's terms; 0 switches a term off."""

  contrastive: float = 1.0
  frame_order: float = 0.2
  scene_change: float = 0.1
  quantisation: float = 0.01
  bit_balance: float = 0.1
  decorrelation: float = 0.002
  reconstruction: float = 0.0  # Of the frames hidden by `mask_fraction`.
  temperature: float = 0.5  # Of the contrastive softmax; > 0.
  learn_temperature: bool = False  # Starts at `temperature`.
  contrastive_method: str = "auto"  # auto | global | tiled | ring.
  positive_prior: float = 0.0  # Debiased NT-Xent's tau+; 0 = plain NT-Xent.
  scene_threshold_std: float = 1.0  # A change lies below mean - this * std.


@dataclasses.dataclass(slots=True, kw_only=True)
class NeighbourConfig:
  """Near videos as further positives; see `data/neighbours.py`."""

  num_neighbours: int = 0  # Nearest videos listed for each; 0 = off.
  pooling: str = "mean"  # Of a video's frames, compared: mean | variance.
  num_components: int = 0  # Principal ones that are compared; 0 = features.
  whitening: float = 0.0  # Of the components; 1 = all vary alike.
  num_directions: int = 0  # Second lists, by what tells kinds apart; 0 = none.
  min_overlap: float = 0.2  # Of two videos' lists, for one to count; 0 to 1.
  weight: float = 1.0  # Times the overlap; the own second view has 1.
  batch_share: float = 0.0  # Of a batch, drawn as neighbours of the rest.


@dataclasses.dataclass(slots=True, kw_only=True)
class OptimizerConfig:
  """AdamW under a warm-up and a cosine decay to zero."""

  learning_rate: float = 1e-3  # At the peak.
  warmup_steps: int = 50
  weight_decay: float = 0.01  # Skips norms and biases.
  gradient_clip: float = 1.0  # Largest global norm; 0 = no clipping.
  adam_b2: float = 0.98


@dataclasses.dataclass(slots=True, kw_only=True)
class TrainConfig:
  """Length and rhythm of a run."""

  seed: int = 0
  batch_size: int = 128  # Videos a step, over all devices.
  device_batch_size: int = 0  # Videos a device runs at once; 0 = its share.
  num_epochs: int = 100  # Passes over the train split.
  max_steps: int = 0  # Cuts the run short; 0 = no limit.
  log_every_steps: int = 20
  checkpoint_every_steps: int = 200
  keep_checkpoints: int = 2
  # A folder that all hosts see, or gs:// or s3://; "" = WORKDIR/checkpoints.
  checkpoint_folder: str = ""
  validate_every_steps: int = 0  # 0 = only at the end, where held out.
  hang_seconds: int = 1800  # Several processes end if none moves; 0 = never.
  profile_start_step: int = 0  # First step traced unasked; 0 = none.
  profile_num_steps: int = 5  # Steps a trace; 0 = no traces, asked for or not.


@dataclasses.dataclass(slots=True, kw_only=True)
class ShardingConfig:
  """How devices share the work; nothing learnt depends on it.

  But for dropout's draws under `train.device_batch_size`: they differ with the
  number of rounds.
  """

  model_parallel: int = 1  # Devices of a host that share the wide layers.


@dataclasses.dataclass(slots=True, kw_only=True)
class EvaluationConfig:
  """What is exported and reported."""

  batch_size: int = 256  # Videos a step of the export.
  self_match: str = "removed"  # removed | kept: a query in its own gallery.
  baseline_seed: int = 0
  baseline_videos: int = 100_000  # LSH and ITQ learn from so many; 0 = neither.


@dataclasses.dataclass(slots=True, kw_only=True)
class ExperimentConfig:
  """A whole run. `name` names its default folder and its report."""

  name: str = "experiment"
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  loss: LossConfig = dataclasses.field(default_factory=LossConfig)
  neighbours: NeighbourConfig = dataclasses.field(
      default_factory=NeighbourConfig
  )
  optimizer: OptimizerConfig = dataclasses.field(
      default_factory=OptimizerConfig
  )
  train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
  sharding: ShardingConfig = dataclasses.field(default_factory=ShardingConfig)
  evaluation: EvaluationConfig = dataclasses.field(
      default_factory=EvaluationConfig
  )


def from_dict(content: dict[str, Any]) -> ExperimentConfig:
  """Undoes `dataclasses.asdict`, also after JSON.

  A field that is not there keeps its default: it was added later.

  Raises:
    TypeError: If a value stands in the place of fields.

  >>> from_dict({"name": "a", "model": {"num_bits": 32}}).model.num_bits
  32
  """
  return _fill(ExperimentConfig(), content)


def _fill(config: Any, content: Any, name: str = "config") -> Any:
  if not isinstance(content, dict):
    raise TypeError(f"`{name}` must be an object of fields, got {content!r}.")
  for field in dataclasses.fields(config):
    if field.name in content:
      value, default = content[field.name], getattr(config, field.name)
      if dataclasses.is_dataclass(default):
        value = _fill(default, value, field.name)
      elif isinstance(default, tuple) and isinstance(value, list):
        value = tuple(value)
      setattr(config, field.name, value)
  return config


def field_value(config: Any, name: str) -> Any:
  """Returns the value of a dotted field name.

  >>> field_value(ExperimentConfig(), "model.num_bits")
  64
  """
  for part in name.split("."):
    config = getattr(config, part)
  return config


def field_names(config: Any, prefix: str = "") -> list[str]:
  """Lists the dotted names of all settings, depth first."""
  names = []
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      names += field_names(value, f"{prefix}{field.name}.")
    else:
      names.append(prefix + field.name)
  return names


def differing_fields(config: dict, other: dict, prefix: str = "") -> list[str]:
  """Names the dotted fields in which two `dataclasses.asdict` differ.

  >>> differing_fields({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2})
  ['a.b']
  """
  names = []
  for key in sorted(config.keys() | other.keys()):
    ours, theirs = config.get(key), other.get(key)
    if isinstance(ours, dict) and isinstance(theirs, dict):
      names += differing_fields(ours, theirs, f"{prefix}{key}.")
    elif _plain(ours) != _plain(theirs):
      names.append(prefix + key)
  return names


def _plain(value: Any) -> Any:
  # JSON has no tuples.
  return list(value) if isinstance(value, tuple) else value
