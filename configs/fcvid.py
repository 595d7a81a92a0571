"""FCVID as the field evaluates it: the test set is query and gallery.

    python -m chain_jax.main --config=configs/fcvid.py --config.data.root=DIR

DIR holds `fcv_{train,test}_feats.h5` and `fcv_test_labels.mat`: 45,585 train and
45,600 test videos, 239 classes. The peers leave a query in its own gallery; here
it is removed, and the report has both numbers. Features stay on disk: in float32
both files take 37 GB. Not run: the files were not at hand. Published, 64 bits,
mAP@5 / @20 / @100, self-match kept: ConMH .524 / .373 / .267, AutoSSVH
.539 / .381 / .273, WSCH .558 / .424 / .328.
"""

from chain_jax import config as config_lib
from chain_jax import presets


def get_config(preset: str = "chain_plus") -> config_lib.ExperimentConfig:
  """Returns the config; `preset` is one of `chain_jax/presets.py`."""
  config = config_lib.ExperimentConfig(name="fcvid")
  config.data.dataset = "fcvid"
  config.model.depth = 4
  config.model.hash_hidden_dim = 512
  config.optimizer.warmup_steps = 500
  config.train.batch_size = 512
  config.train.num_epochs = 100
  config.train.checkpoint_every_steps = 1000
  config.train.log_every_steps = 50
  # Hardly any neighbours meet in a batch of so many videos by chance.
  config.neighbours.batch_share = 0.5
  presets.apply(config, preset)
  return config
