"""How much arithmetic one training step needs, and how much a program does."""

import math

from jax.extend import core

from chain_jax import config as config_lib


def useful_flops(config: config_lib.ExperimentConfig) -> float:
  """Counts the floating point operations that a training step cannot do without.

  Those of its matrix products, two for each multiplication and addition; all
  else is small beside them. A backward pass costs two products for each of the
  forward pass, but the projection needs no gradient of its input. What a
  program computes a second time to save memory is not counted, so the share of
  a chip's peak that this makes is the model FLOP utilisation of
  arXiv:2204.02311, App. B.

  Args:
    config: A run.

  Returns:
    Of one step on the global batch, over all devices.
  """
  model, data, loss = config.model, config.data, config.loss
  batch, frames, width = config.train.batch_size, data.num_frames, model.width
  # The third view is view 0 with its frames shuffled.
  num_encoded = 3 if loss.frame_order else 2
  block = 4 * width**2 + 2 * width * model.mlp_dim + 2 * frames * width
  products = 3 * batch * num_encoded * frames * model.depth * block
  num_projections = 2 if model.frame_deviations else 1
  products += num_projections * (
      2 * batch * 2 * frames * data.feature_dim * width
  )
  products += 3 * batch * _hash_products(model, frames)
  products += 3 * batch * _head_products(config)
  if loss.reconstruction:
    products += 3 * batch * 2 * frames * _decoder_products(config)
  num_views, num_bits = 2 * batch, model.num_bits
  if loss.contrastive:
    products += 3 * num_views**2 * num_bits
  if loss.decorrelation:
    products += 3 * num_views * num_bits**2
  return 2.0 * products


def _hash_products(model: config_lib.ModelConfig, frames: int) -> int:
  """Counts multiplications of the hash layer, of one video's two views."""
  rows = 2 * (frames if model.hash_pooling == "hash_then_mean" else 1)
  hidden = model.hash_hidden_dim
  if not hidden:
    return rows * model.width * model.num_bits
  return rows * hidden * (model.width + model.num_bits)


# Of `models.heads.SceneChangeHead`.
_SCENE_HIDDEN_DIM = 64


def _head_products(config: config_lib.ExperimentConfig) -> int:
  """Counts multiplications of the heads of the local tasks, of one video."""
  frames, width = config.data.num_frames, config.model.width
  products = 0
  if config.loss.frame_order:
    products += frames * width * frames
  if config.loss.scene_change:
    products += 2 * (frames - 1) * _SCENE_HIDDEN_DIM * (2 * width + 1)
  return products


def _decoder_products(config: config_lib.ExperimentConfig) -> int:
  """Counts multiplications of the decoder, of one frame of a view."""
  width = config.model.decoder_width
  # Query, key, value and output; an MLP four times as wide; scores and sums.
  block = 4 * width**2 + 2 * width * 4 * width
  block += 2 * config.data.num_frames * width
  ends = width * (config.model.width + config.data.feature_dim)
  return ends + config.model.decoder_depth * block


def matmul_flops(jaxpr: core.Jaxpr) -> float:
  """Counts the operations of a program's matrix products, over all devices.

  A scan counts as often as it turns, what `shard_map` runs on each device as
  often as there are devices; a loop of unknown length counts once.
  """
  total = 0.0
  for equation in jaxpr.eqns:
    if equation.primitive.name == "dot_general":
      (contracted, _), _ = equation.params["dimension_numbers"]
      shape = equation.invars[0].aval.shape
      depth = math.prod(shape[axis] for axis in contracted)
      total += 2 * depth * math.prod(equation.outvars[0].aval.shape)
    times = 1
    if equation.primitive.name == "scan":
      times = equation.params["length"]
    elif equation.primitive.name == "shard_map":
      mesh, axes = equation.params["mesh"], equation.params["newly_manual_axes"]
      times = math.prod(mesh.shape[axis] for axis in axes)
    for inner in core.jaxprs_in_params(equation.params):
      total += times * matmul_flops(inner)
  return total
