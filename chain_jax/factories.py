"""What a config asks for: optimizer, first state and training step."""

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


def make_initialiser(
    config: config_lib.ExperimentConfig,
    model: Any,
    optimizer: optax.GradientTransformation,
) -> Any:
  """Makes the function seed -> state for the config's shapes."""
  loss = config.loss
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
  loss = config.loss
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
          reconstruction=loss.reconstruction,
      ),
      temperature=loss.temperature,
      positive_prior=loss.positive_prior,
      scene_threshold_std=loss.scene_threshold_std,
      contrastive_method=loss.contrastive_method,
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
