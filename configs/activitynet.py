"""ActivityNet as the field evaluates it: ResNet-50 features, 30 frames.

    python -m chain_jax.main --config=configs/activitynet.py --config.data.root=DIR

DIR holds `train_feats.h5`, `test_feats.h5` (the gallery), `query_feats.h5`,
`re_label.mat` and `q_label.mat`: 9,722 train, 3,758 gallery and 1,000 query
videos, 200 classes. Not run: the files were not at hand. Published, 64 bits,
mAP@5 / @20 / @100: ConMH .267 / .150 / .042, AutoSSVH .290 / .164 / .045, WSCH
.378 / .242 / .063.
"""

from chain_jax import config as config_lib
from chain_jax import presets


def get_config(preset: str = "chain_plus") -> config_lib.ExperimentConfig:
  """Returns the config; `preset` is one of `chain_jax/presets.py`."""
  config = config_lib.ExperimentConfig(name="activitynet")
  config.data.dataset = "activitynet"
  config.data.feature_dim = 2048
  config.data.num_frames = 30
  config.data.cache_in_memory = True
  config.model.depth = 2
  config.model.hash_hidden_dim = 512
  config.optimizer.warmup_steps = 200
  config.train.batch_size = 256
  config.train.num_epochs = 100
  config.train.checkpoint_every_steps = 500
  # Hardly any neighbours meet in a batch of so many videos by chance.
  config.neighbours.batch_share = 0.5
  presets.apply(config, preset)
  return config
