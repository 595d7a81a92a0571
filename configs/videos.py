"""A folder of video files, as `prepare videos` made a dataset of it.

    python -m chain_jax.main --config=configs/videos.py --config.data.root=DIR

DIR is the `--output` of

    python -m chain_jax.prepare videos --input=CLIPS --output=DIR --backbone=squeezenet --weights=FILE

All but a share of the videos is learnt from and is the gallery; the rest are
queries, which are scored where labels are known. docs/results.md has what 240
clips of UCF101 gave, and how edited copies find their sources.

    python -m chain_jax.main --config=configs/videos.py:chain_plus --config.data.root=DIR

finds more videos of a kind, and a copy's source a little less often at the first
place; it wants more than 40 videos, a dozen of a kind or more. The config's own choice,
`chain`, suits a folder of which nothing is known.
"""

from chain_jax import config as config_lib
from chain_jax import presets


def get_config(preset: str = "chain") -> config_lib.ExperimentConfig:
  """Returns the config; `preset` is one of `chain_jax/presets.py`."""
  config = config_lib.ExperimentConfig(name="videos")
  config.data.dataset = "prepared"
  config.data.root = "data/videos"
  config.data.prepared.gallery_split = "train"
  config.data.prepared.way_out = (
      "make one by `python -m chain_jax.prepare videos --input=CLIPS"
      " --output=DIR --backbone=squeezenet --weights=FILE` and give"
      " --config.data.root=DIR."
  )
  config.data.feature_dim = 512  # SqueezeNet; VGG-16: 4096, ResNet-50: 2048.
  config.data.num_frames = 16
  config.data.cache_in_memory = True
  # These four as in configs/ucf101.py, chosen on held-out train videos there.
  config.model.depth = 1
  config.model.hash_hidden_dim = 512
  config.model.dropout_rate = 0.3
  config.train.batch_size = 64
  config.train.num_epochs = 100
  presets.apply(config, preset)
  return config
