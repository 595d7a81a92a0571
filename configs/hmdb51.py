"""HMDB51 as the field evaluates it: VGG features, gallery = train set.

    python -m chain_jax.main --config=configs/hmdb51.py --config.data.root=DIR

DIR holds `hmdb_{train,test}_feats.h5` and `hmdb_{train,test}_labels.mat`: 3,570
train videos, 1,530 queries, 51 classes. Settings are those of
`configs/ucf101.py`, the nearest set that was at hand. Not run: the files were
not at hand. Published, 64 bits, mAP@5 / @20 / @100: S5VH .256 / .189 / .088,
AutoSSVH .256 / .175 / .076.
"""

from chain_jax import config as config_lib
from chain_jax import presets


def get_config(preset: str = "chain_plus") -> config_lib.ExperimentConfig:
  """Returns the config; `preset` is one of `chain_jax/presets.py`."""
  config = config_lib.ExperimentConfig(name="hmdb51")
  config.data.dataset = "hmdb51"
  config.data.cache_in_memory = True
  config.data.num_frames = 16
  config.model.depth = 1
  config.model.hash_hidden_dim = 512
  config.model.dropout_rate = 0.3
  config.train.batch_size = 64
  config.train.num_epochs = 60
  presets.apply(config, preset)
  return config
