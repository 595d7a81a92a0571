"""One update on one global batch, the same on any number of devices."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float32, Int, UInt32

from chain_jax import gradients, sharding
from chain_jax.data import augment, records
from chain_jax.data import neighbours as neighbours_lib
from chain_jax.losses import contrastive, total
from chain_jax.models import chain
from chain_jax.train_state import (
    TrainState,
    bound_temperature,
    temperature_of,
)


def draw_permutations(
    rng: jax.Array, frame_mask: Bool[Array, "batch frames"]
) -> Int[Array, "batch frames"]:
  """Shuffles the valid frames of each view; padding stays at the end.

  Args:
    rng: A key; with the shape it alone decides the draw.
    frame_mask: True where a frame is valid; valid frames come first.

  Returns:
    Slot `s` of the shuffled view shows frame `permutation[s]`.
  """
  scores = jax.random.uniform(rng, frame_mask.shape)
  scores = jnp.where(frame_mask, scores, 2.0)
  return jnp.argsort(scores, axis=-1, stable=True).astype(jnp.int32)


def checksum(videos: Int[Array, "batch"]) -> UInt32[Array, ""]:
  """Names a batch by its videos and their rows, whatever device holds them.

  A sum of products modulo 2^32: exact, so equal on any number of devices.

  >>> int(checksum(jnp.array([3, 5])) - checksum(jnp.array([5, 3]))) > 0
  True
  """
  # An odd constant near 2^32 / golden ratio spreads the rows: Knuth, 6.4.
  rows = jnp.arange(len(videos), dtype=jnp.uint32) * jnp.uint32(2654435761)
  return jnp.sum((videos.astype(jnp.uint32) + 1) * (rows | 1))


def make_train_step(
    model: chain.ChainModel,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    weights: total.LossWeights,
    temperature: float,
    positive_prior: float,
    scene_threshold_std: float,
    contrastive_method: str = "auto",
    instance_temperature: float = 1.0,
    num_instance_bits: int = 0,
    rounds: int = 1,
    scaling: records.Scaling,
    augmentation: augment.FeatureAugmentation,
    mask_fraction: float = 0.0,
    seed: int,
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
  """Makes the jitted training step.

  Args:
    model: The model.
    optimizer: Its optimizer.
    mesh: The batch is split over its axis `data`, wide layers over `model`.
    weights: Of the objective's terms.
    temperature: Of the contrastive softmax, where the state has none of its
      own (`train_state.LOG_TEMPERATURE`).
    positive_prior: Of the debiased contrastive loss; 0 = plain.
    scene_threshold_std: Of the scene change pseudo-labels.
    contrastive_method: Of `contrastive.nt_xent`.
    instance_temperature: Of the bits that tell videos apart.
    num_instance_bits: How many these are, the last of a code; 0 = none.
    rounds: In which the batch goes through the model; 1 = all at once.
    scaling: What the numbers of a batch mean.
    augmentation: How features change.
    mask_fraction: Share of a view's frames that the encoder does not see; 0 =
      it sees all.
    seed: Of the augmentation, of the hidden frames, of dropout and of the
      frame permutations, together with the step.

  Returns:
    (state, batch) -> (state, metrics), of a `pipeline.Batch` as stored. The
    state given is donated: its buffers are reused and it must not be read
    again.
  """
  apply = _make_apply(model)
  loss = _make_loss(
      weights,
      temperature=temperature,
      scene_threshold_std=scene_threshold_std,
      nt_xent=functools.partial(
          contrastive.nt_xent,
          positive_prior=positive_prior,
          method=contrastive_method,
          mesh=mesh,
      ),
      instance_temperature=instance_temperature,
      num_instance_bits=num_instance_bits,
  )

  def step(state: TrainState, batch: Any) -> Any:
    step_rng = jax.random.fold_in(jax.random.key(seed), state.step)
    view_rng, model_rng, mask_rng = jax.random.split(step_rng, 3)
    order_rng, dropout_rng = jax.random.split(model_rng)
    views = augment.make_views(
        view_rng, batch.frames, batch.frame_mask, scaling, augmentation
    )
    seen = _Seen(views, batch.frame_mask, None, None, batch.neighbours)
    if weights.frame_order:
      seen = _shuffle(seen, order_rng)
    seen = _hide(seen, mask_rng, mask_fraction)
    with_statistics = functools.partial(apply, state.statistics)
    gradient_fn = gradients.make_gradients(
        with_statistics, loss, rounds=rounds, mesh=mesh
    )
    grads, metrics = gradient_fn(state.params, seen, dropout_rng)
    state, norms = _update(optimizer, state, grads)
    metrics |= norms | {"batch_checksum": checksum(batch.videos)}
    return sharding.constrain(state, mesh), metrics

  split = sharding.batch_sharding(mesh)
  return jax.jit(
      step,
      in_shardings=(None, split),
      out_shardings=(None, sharding.replicated(mesh)),
      donate_argnums=0,
  )


class _Seen(NamedTuple):
  """What model and loss see of a batch."""

  views: Float32[Array, "batch 2 frames dim"]
  frame_mask: Bool[Array, "batch 2 frames"]
  permutation: Int[Array, "batch frames"] | None
  visible_mask: Bool[Array, "batch 2 frames"] | None
  neighbours: neighbours_lib.BatchNeighbours | None


def _shuffle(seen: _Seen, rng: jax.Array) -> _Seen:
  permutation = draw_permutations(rng, seen.frame_mask[:, 0])
  return seen._replace(permutation=permutation)


def _hide(seen: _Seen, rng: jax.Array, mask_fraction: float) -> _Seen:
  if not mask_fraction:
    return seen
  visible_mask = augment.draw_visible(
      rng, seen.frame_mask, mask_fraction=mask_fraction
  )
  return seen._replace(visible_mask=visible_mask)


def _make_apply(model: chain.ChainModel) -> Callable[..., chain.ChainOutput]:
  """Makes (statistics, params, seen, rng) -> the model's answers."""

  def apply(statistics: Any, params: Any, seen: _Seen, rng: jax.Array) -> Any:
    return model.apply(
        {"params": params, "statistics": statistics},
        *seen[:-1],
        deterministic=False,
        rngs={"dropout": rng},
    )

  return apply


def _make_loss(
    weights: total.LossWeights,
    *,
    temperature: float,
    nt_xent: Callable[..., jax.Array],
    scene_threshold_std: float,
    instance_temperature: float,
    num_instance_bits: int,
) -> Callable[..., Any]:
  """Makes (params, answers, seen) -> (loss, metrics)."""

  def loss(params: Any, output: chain.ChainOutput, seen: _Seen) -> Any:
    learned = temperature_of(params)
    rows, neighbour_weights = seen.neighbours or (None, None)
    value, metrics = total.total_loss(
        output,
        *seen[:-1],
        weights=weights,
        nt_xent=functools.partial(
            nt_xent,
            temperature=temperature if learned is None else learned,
            neighbour_rows=rows,
            neighbour_weights=neighbour_weights,
        ),
        scene_threshold_std=scene_threshold_std,
        instance_nt_xent=functools.partial(
            nt_xent, temperature=instance_temperature
        ),
        num_instance_bits=num_instance_bits,
    )
    if learned is not None:
      metrics["temperature"] = learned
    return value, metrics

  return loss


def _update(
    optimizer: optax.GradientTransformation, state: TrainState, grads: Any
) -> tuple[TrainState, dict[str, jax.Array]]:
  updates, optimizer_state = optimizer.update(
      grads, state.optimizer_state, state.params
  )
  params = bound_temperature(optax.apply_updates(state.params, updates))
  norms = {
      "gradient_norm": optax.tree.norm(grads),
      # The loss is that of the parameters before the update; what is saved
      # after it is checked by this.
      "parameter_norm": optax.tree.norm(params),
  }
  state = state.replace(
      step=state.step + 1, params=params, optimizer_state=optimizer_state
  )
  return state, norms
