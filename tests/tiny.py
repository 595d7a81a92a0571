"""A run that takes seconds: what the tests of whole runs share."""

from chain_jax import config as config_lib


def tiny_config(**changes):
  """Returns a config of 12 steps; `changes` are dotted with two underscores."""
  config = config_lib.ExperimentConfig(name="tiny")
  synthetic = config.data.synthetic
  synthetic.num_train, synthetic.num_gallery, synthetic.num_query = 48, 30, 12
  synthetic.num_appearances, synthetic.num_patterns = 2, 2
  synthetic.num_frames = 8
  config.data.feature_dim, config.data.num_frames = 24, 6
  config.model.num_bits, config.model.width, config.model.depth = 16, 16, 1
  config.model.num_heads, config.model.mlp_dim = 2, 16
  config.train.batch_size, config.train.num_epochs = 16, 4
  config.train.log_every_steps, config.train.checkpoint_every_steps = 1, 4
  config.evaluation.batch_size = 16
  for name, value in changes.items():
    *path, last = name.split("__")
    part = config
    for step in path:
      part = getattr(part, step)
    setattr(part, last, value)
  return config
