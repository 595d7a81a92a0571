"""What a run carries from step to step, and the model it belongs to."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Array, Float32

from chain_jax import config as config_lib
from chain_jax import sharding
from chain_jax.models import chain

# Among the parameters, where the temperature is learned.
_LOG_TEMPERATURE = "log_temperature"
_LOWEST_TEMPERATURE = 0.01


@flax.struct.dataclass
class TrainState:
  """All that a checkpoint holds; `step` is the position in the data."""

  step: Any  # int32 scalar: batches seen.
  params: Any
  statistics: Any  # Measured on the train features; never trained.
  optimizer_state: Any


def make_model(
    config: config_lib.ModelConfig, *, reconstructs: bool = False
) -> chain.ChainModel:
  """Makes the model that the config describes.

  Args:
    config: Of the model.
    reconstructs: Have a decoder; to encode videos none is needed, and the
      parameters of one do no harm.
  """
  return chain.ChainModel(
      num_bits=config.num_bits,
      detail_share=config.detail_share,
      frame_deviations=config.frame_deviations,
      width=config.width,
      depth=config.depth,
      num_heads=config.num_heads,
      mlp_dim=config.mlp_dim,
      dropout_rate=config.dropout_rate,
      position_scale=config.position_scale,
      branch_init_scale=config.branch_init_scale,
      l2_normalise=config.l2_normalise,
      hash_hidden_dim=config.hash_hidden_dim,
      hash_relaxation=config.hash_relaxation,
      hash_pooling=config.hash_pooling,
      normalise_bits=config.normalise_bits,
      reconstructs=reconstructs,
      decoder_width=config.decoder_width,
      decoder_depth=config.decoder_depth,
      remat=config.remat,
      dtype=config.dtype,
  )


def make_initialiser(
    model: chain.ChainModel,
    optimizer: optax.GradientTransformation,
    *,
    num_frames: int,
    feature_dim: int,
    learned_temperature: float | None = None,
) -> Any:
  """Returns the pure function seed -> `TrainState`.

  Args:
    model: The model.
    optimizer: Its optimizer.
    num_frames: Frames a view.
    feature_dim: Width of a frame's feature.
    learned_temperature: Where the contrastive temperature starts, if it is
      learned; None = it is not.

  Returns:
    A function of an int seed, to be jitted or evaluated for its shapes only.
  """
  views = jnp.zeros((1, 2, num_frames, feature_dim), jnp.float32)
  mask = jnp.ones((1, 2, num_frames), bool)
  permutation = jnp.arange(num_frames, dtype=jnp.int32)[None]

  def initialise(seed: int | jax.Array) -> TrainState:
    variables = model.init(
        jax.random.key(seed), views, mask, permutation, deterministic=True
    )
    params = variables["params"]
    if learned_temperature is not None:
      start = jnp.log(jnp.float32(learned_temperature))
      params = {**params, _LOG_TEMPERATURE: start}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        statistics=variables["statistics"],
        optimizer_state=optimizer.init(params),
    )

  return initialise


def temperature_of(params: Any) -> Float32[Array, ""] | None:
  """Returns the learned temperature; None where there is none."""
  log_temperature = params.get(_LOG_TEMPERATURE)
  return None if log_temperature is None else jnp.exp(log_temperature)


def bound_temperature(params: Any) -> Any:
  """Keeps a learned temperature at .01 or above: arXiv:2103.00020, Sec. 2.5."""
  if _LOG_TEMPERATURE not in params:
    return params
  bounded = jnp.maximum(params[_LOG_TEMPERATURE], np.log(_LOWEST_TEMPERATURE))
  return {**params, _LOG_TEMPERATURE: bounded}


def abstract_state(initialise: Any, mesh: Mesh) -> TrainState:
  """Returns shapes, dtypes and shardings of the state; allocates nothing."""
  shapes = jax.eval_shape(initialise, 0)
  return jax.tree.map(
      lambda leaf, where: jax.ShapeDtypeStruct(
          leaf.shape, leaf.dtype, sharding=where
      ),
      shapes,
      sharding.parameter_shardings(shapes, mesh),
  )


def start(initialise: Any, seed: int, mesh: Mesh) -> TrainState:
  """Draws a state, each array where `sharding` wants it."""
  shapes = jax.eval_shape(initialise, seed)
  places = sharding.parameter_shardings(shapes, mesh)
  return jax.jit(initialise, out_shardings=places)(seed)


def feature_scaling(
    mean: np.ndarray, std: np.ndarray, *, normalisation: str
) -> tuple[np.ndarray, np.ndarray]:
  """Turns the train features' statistics into the model's mean and scale.

  Args:
    mean: Of each feature dimension, `[dim]`.
    std: Of each feature dimension, `[dim]`.
    normalisation: "none" leaves features alone; "centre" takes the mean off
      and divides by one number, which keeps the angles between centred
      features; "standardise" divides each dimension by its own deviation.

  Returns:
    `mean` and `scale`, float32 `[dim]`: the model sees (x - mean) * scale.
  """
  rms = float(np.sqrt(np.mean(np.square(std, dtype=np.float64))))
  if normalisation == "none" or rms == 0:
    return np.zeros_like(mean), np.ones_like(std)
  if normalisation == "centre":
    return mean, np.full_like(std, 1 / rms)
  # A dimension that never moves carries nothing: don't blow up its noise.
  return mean, (1 / np.maximum(std, 0.01 * rms)).astype(np.float32)


def fill_statistics(
    statistics: Any, values: dict[str, np.ndarray], mesh: Mesh
) -> Any:
  """Returns the model's statistics with the values, by name, of process 0.

  Each host has measured them, and processors of two kinds may round
  differently: what is replicated must not.
  """
  values = multihost_utils.broadcast_one_to_all(values)
  return jax.tree_util.tree_map_with_path(
      lambda path, _: jax.device_put(
          jnp.asarray(values[path[-1].key]), sharding.replicated(mesh)
      ),
      statistics,
  )
