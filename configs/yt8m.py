"""YouTube-8M, frame level: rgb and audio of 3.9 million train videos.

    python -m chain_jax.main --config=configs/yt8m.py --config.data.root=DIR

DIR is what `prepare youtube8m` made of the shards, 1.5 TB of record files; on a
pod every host runs this same command and sees DIR on a shared disk. Batches,
schedule and bfloat16 are set for 16 chips or more (TPU v5e-16). Nothing of this
has been run on YouTube-8M itself or on a pod: neither was at hand. What was run:

    python -m chain_jax.main --config=configs/yt8m.py:tiny

which makes 20 synthetic shards of 200 videos, prepares them, trains, and scores
videos and segments, in minutes on two cores (docs/results.md).

A video is relevant to another if they share a label. Queries and gallery come
from the validate part; the test part has no labels.
"""

from chain_jax import config as config_lib

_WAY_OUT = (
    "download the shards by `curl data.yt8m.org/download.py |"
    " partition=2/frame/train mirror=us python3` (and partition=2/frame/validate),"
    " then `python -m chain_jax.prepare youtube8m --train='train*.tfrecord'"
    " --evaluation='validate*.tfrecord' --output=data/yt8m`; or try it all"
    " without a download: `python -m chain_jax.main"
    " --config=configs/yt8m.py:tiny`."
)


def get_config(size: str = "full") -> config_lib.ExperimentConfig:
  """Returns the config; `size` is "full" or "tiny"."""
  if size not in ("full", "tiny"):
    raise ValueError(
        f"the config must be yt8m.py or yt8m.py:tiny, got {size!r}"
    )
  config = config_lib.ExperimentConfig(name="yt8m")
  config.data.dataset = "prepared"
  config.data.root = "data/yt8m"
  config.data.prepared.validation_split = "validation"
  config.data.prepared.way_out = _WAY_OUT
  config.data.feature_dim = 1024 + 128
  # Of up to 300 stored frames: one of every 9 seconds, drawn anew each time.
  config.data.num_frames = 32
  config.data.num_workers = 8
  # Whitened features: no dimension is larger than others.
  config.model.normalisation = "standardise"
  config.model.dtype = "bfloat16"
  config.model.depth = 4
  config.model.width = 512
  config.model.num_heads = 8
  config.model.mlp_dim = 2048
  config.train.batch_size = 4096
  config.train.num_epochs = 20
  config.train.log_every_steps = 50
  config.train.checkpoint_every_steps = 500
  config.train.validate_every_steps = 2000
  config.optimizer.warmup_steps = 1000
  config.optimizer.learning_rate = 2e-3
  config.evaluation.batch_size = 4096
  return _tiny(config) if size == "tiny" else config


def _tiny(
    config: config_lib.ExperimentConfig,
) -> config_lib.ExperimentConfig:
  """The same path on one small machine, on synthetic shards."""
  config.name = "yt8m_tiny"
  config.data.root = "data/yt8m_tiny"
  config.data.prepared.segments_root = "data/yt8m_tiny_segments"
  config.data.prepared.demo_shards = 20
  config.data.num_workers = 0
  config.model.dtype = "float32"
  config.model.depth = 1
  config.model.width = 128
  config.model.num_heads = 4
  config.model.mlp_dim = 256
  config.train.batch_size = 128
  config.train.num_epochs = 20
  config.train.validate_every_steps = 0
  config.train.checkpoint_every_steps = 100
  config.train.log_every_steps = 20
  config.optimizer.warmup_steps = 20
  config.evaluation.batch_size = 256
  return config
