"""Methods by name: which settings make a config train by which method.

A preset sets the method, not the model's size, the data or the batch, so that
methods are compared at an equal encoder and budget.
"""

from collections.abc import Callable

from chain_jax import config as config_lib
from chain_jax.errors import InputError


def apply(config: config_lib.ExperimentConfig, name: str) -> None:
  """Sets a config's method.

  Args:
    config: Changed in place.
    name: "chain" is the paper's parts only. "chain_plus" adds neighbours as
      positives, what moves as an input of its own, detail bits, and what goes
      with them. "conmh" is the objective of ConMH (AAAI 2023): contrast of two
      masked views, their hidden frames guessed.

  Raises:
    InputError: If there is no such preset.
  """
  if name not in PRESETS:
    raise InputError(
        "the preset, after the config's colon, must be one of"
        f" {', '.join(PRESETS)}, got {name!r}; leave it out for the config's"
        " own choice."
    )
  PRESETS[name](config)


def _chain(config: config_lib.ExperimentConfig) -> None:
  # High: a low one drives videos of one kind as far apart as any others.
  config.loss.temperature = 1.0
  config.loss.frame_order = 0.1
  config.loss.decorrelation = 0.03
  config.augment.noise_std = 1.0
  config.augment.dropout_rate = config.augment.mix_max = 0.0


def _chain_plus(config: config_lib.ExperimentConfig) -> None:
  _chain(config)
  # What moves tells kinds apart better than what is seen all the time.
  config.neighbours.pooling = "variance"
  config.model.frame_deviations = True
  config.neighbours.num_neighbours = 40
  config.neighbours.num_components = 32
  config.neighbours.whitening = 0.25
  config.neighbours.num_directions = 16
  config.neighbours.min_overlap = 0.3
  config.neighbours.weight = 0.1
  # Lower than without neighbours, or all videos of a kind get the same code.
  config.loss.temperature = 0.4
  config.loss.bit_balance = 1.0
  # For without them videos of a kind often have the same code.
  config.model.detail_share = 0.125


def _conmh(config: config_lib.ExperimentConfig) -> None:
  config.loss.temperature = 0.5
  config.loss.positive_prior = 0.1
  config.loss.reconstruction = 1.0
  config.augment.mask_fraction = 0.5
  config.model.hash_relaxation = "straight_through"
  config.loss.frame_order = config.loss.scene_change = 0.0
  config.loss.quantisation = 0.0
  config.loss.bit_balance = config.loss.decorrelation = 0.0
  # A visible frame must not show what is hidden, nor a view be spoilt twice.
  config.augment.mix_max = 0.0
  config.augment.noise_std = config.augment.dropout_rate = 0.0


PRESETS: dict[str, Callable[[config_lib.ExperimentConfig], None]] = {
    "chain": _chain,
    "chain_plus": _chain_plus,
    "conmh": _conmh,
}
