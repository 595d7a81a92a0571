"""What a config asks for: optimizer, first state and training step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import optax
from jax.sharding import Mesh

from chain_jax import config as config_lib
from chain_jax import gradients, sharding, train_state, train_step
from chain_jax import optimizer as optimizer_lib
from chain_jax.data import sources
from chain_jax.data import splits as splits_lib
from chain_jax.losses import total
from chain_jax.models import chain


def make_model(config: config_lib.ExperimentConfig) -> chain.ChainModel:
  """Makes the model to train: with a decoder where the loss asks for one."""
  return train_state.make_model(
      config.model, reconstructs=config.loss.reconstruction > 0
  )


def make_optimizer(
    config: config_lib.OptimizerConfig, schedule: optax.Schedule
) -> optax.GradientTransformation:
  """Makes the optimizer that the config describes."""
  return optimizer_lib.make_optimizer(
      schedule,
      weight_decay=config.weight_decay,
      gradient_clip=config.gradient_clip,
      adam_b2=config.adam_b2,
  )


def scaled_loss(
    loss: config_lib.LossConfig, *, num_bits: int
) -> config_lib.LossConfig:
  """Fits temperature and decorrelation to a code length.

  Cosines of random codes spread as `num_bits ** -0.5`, and so does the
  temperature. Fewer bits must share more of what there is to tell: their
  decorrelation weighs less, in proportion.

  >>> loss = config_lib.LossConfig(temperature=0.2, reference_bits=64)
  >>> scaled_loss(loss, num_bits=16).temperature
  0.4
  """
  if not loss.reference_bits:
    return loss
  ratio = num_bits / loss.reference_bits
  return dataclasses.replace(
      loss,
      temperature=loss.temperature * ratio**-0.5,
      decorrelation=loss.decorrelation * ratio,
  )


def num_instance_bits(config: config_lib.ExperimentConfig) -> int:
  """Returns how many of a code's last bits learn to tell videos apart."""
  if not config.loss.instance:
    return 0
  share = config.loss.instance_share
  return max(1, round(share * config.model.num_bits))


def make_initialiser(
    config: config_lib.ExperimentConfig,
    model: Any,
    optimizer: optax.GradientTransformation,
) -> Any:
  """Makes the function seed -> state for the config's shapes."""
  loss = scaled_loss(config.loss, num_bits=config.model.num_bits)
  return train_state.make_initialiser(
      model,
      optimizer,
      num_frames=config.data.num_frames,
      feature_dim=config.data.feature_dim,
      learned_temperature=(
          loss.temperature if loss.learn_temperature else None
      ),
  )


def make_step(
    config: config_lib.ExperimentConfig,
    model: Any,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    source: sources.VideoSource,
) -> Callable[..., Any]:
  """Makes the jitted step that the config describes, for videos of `source`."""
  loss = scaled_loss(config.loss, num_bits=config.model.num_bits)
  return train_step.make_train_step(
      model,
      optimizer,
      mesh,
      weights=total.LossWeights(
          contrastive=loss.contrastive,
          frame_order=loss.frame_order,
          scene_change=loss.scene_change,
          quantisation=loss.quantisation,
          bit_balance=loss.bit_balance,
          decorrelation=loss.decorrelation,
          instance=loss.instance,
          reconstruction=loss.reconstruction,
      ),
      temperature=loss.temperature,
      positive_prior=loss.positive_prior,
      scene_threshold_std=loss.scene_threshold_std,
      contrastive_method=loss.contrastive_method,
      instance_temperature=loss.instance_temperature,
      num_instance_bits=num_instance_bits(config),
      rounds=gradients.num_rounds(
          batch_size=config.train.batch_size,
          num_parts=sharding.data_size(mesh),
          device_batch_size=config.train.device_batch_size,
      ),
      scaling=source.scaling,
      augmentation=splits_lib.make_augmentation(config.augment, source),
      mask_fraction=config.augment.mask_fraction,
      seed=config.train.seed,
  )
