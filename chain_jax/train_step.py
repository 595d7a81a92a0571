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
      num_learned_bits=model.num_bits - model.num_detail_bits,
  )
  gradient_fn = _make_gradients(model, loss, rounds=rounds, mesh=mesh)
  see = functools.partial(
      _see,
      scaling=scaling,
      augmentation=augmentation,
      with_frame_order=bool(weights.frame_order),
      mask_fraction=mask_fraction,
  )

  def step(state: TrainState, batch: Any) -> Any:
    keys = _step_keys(seed, state.step)
    grads, metrics = gradient_fn(state, see(batch, keys), keys.dropout)
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


class _StepKeys(NamedTuple):
  """A key for each thing that a step draws."""

  views: jax.Array
  order: jax.Array
  dropout: jax.Array
  hidden: jax.Array


def _step_keys(seed: int, step: Int[Array, ""]) -> _StepKeys:
  step_key = jax.random.fold_in(jax.random.key(seed), step)
  views, model, hidden = jax.random.split(step_key, 3)
  return _StepKeys(views, *jax.random.split(model), hidden)


class _Seen(NamedTuple):
  """What model and loss see of a batch."""

  views: Float32[Array, "batch 2 frames dim"]
  frame_mask: Bool[Array, "batch 2 frames"]
  permutation: Int[Array, "batch frames"] | None
  visible_mask: Bool[Array, "batch 2 frames"] | None
  neighbours: neighbours_lib.BatchNeighbours | None


def _see(
    batch: Any,
    keys: _StepKeys,
    *,
    scaling: records.Scaling,
    augmentation: augment.FeatureAugmentation,
    with_frame_order: bool,
    mask_fraction: float,
) -> _Seen:
  """Draws a batch's views, their shuffled frames and their hidden ones."""
  frame_mask = batch.frame_mask
  views = augment.make_views(
      keys.views, batch.frames, frame_mask, scaling, augmentation
  )
  permutation = visible_mask = None
  if with_frame_order:
    permutation = draw_permutations(keys.order, frame_mask[:, 0])
  if mask_fraction:
    visible_mask = augment.draw_visible(
        keys.hidden, frame_mask, mask_fraction=mask_fraction
    )
  return _Seen(views, frame_mask, permutation, visible_mask, batch.neighbours)


def _make_gradients(
    model: chain.ChainModel,
    loss: gradients.Loss,
    *,
    rounds: int,
    mesh: Mesh,
) -> Callable[..., Any]:
  """Makes (state, seen, rng) -> (gradients, metrics)."""

  def of_state(state: TrainState, seen: _Seen, rng: jax.Array) -> Any:
    def apply(params: Any, part: _Seen, part_rng: jax.Array) -> Any:
      return model.apply(
          {"params": params, "statistics": state.statistics},
          *part[:-1],
          deterministic=False,
          rngs={"dropout": part_rng},
      )

    gradient_fn = gradients.make_gradients(
        apply, loss, rounds=rounds, mesh=mesh
    )
    return gradient_fn(state.params, seen, rng)

  return of_state


def _make_loss(
    weights: total.LossWeights,
    *,
    temperature: float,
    nt_xent: Callable[..., jax.Array],
    scene_threshold_std: float,
    num_learned_bits: int,
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
        num_learned_bits=num_learned_bits,
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
