"""One update on one global batch, the same on any number of devices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float32, Int, UInt32

from chain_jax import sharding
from chain_jax.data import augment, records
from chain_jax.losses import total
from chain_jax.models import chain
from chain_jax.train_state import TrainState


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
    scaling: records.Scaling,
    augmentation: augment.FeatureAugmentation,
    seed: int,
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
  """Makes the jitted training step.

  Args:
    model: The model.
    optimizer: Its optimizer.
    mesh: The batch is split over its axis `data`; parameters are replicated.
    weights: Of the objective's terms.
    temperature: Of the contrastive softmax.
    positive_prior: Of the debiased contrastive loss; 0 = plain.
    scene_threshold_std: Of the scene change pseudo-labels.
    scaling: What the numbers of a batch mean.
    augmentation: How features change.
    seed: Of the augmentation, of dropout and of the frame permutations,
      together with the step.

  Returns:
    (state, batch) -> (state, metrics), of a `pipeline.Batch` as stored. The
    state given is donated: its buffers are reused and it must not be read
    again.
  """

  loss_fn = _make_loss_fn(
      model,
      weights=weights,
      temperature=temperature,
      positive_prior=positive_prior,
      scene_threshold_std=scene_threshold_std,
  )

  def step(state: TrainState, batch: Any) -> Any:
    step_rng = jax.random.fold_in(jax.random.key(seed), state.step)
    view_rng, model_rng = jax.random.split(step_rng)
    views = augment.make_views(
        view_rng, batch.frames, batch.frame_mask, scaling, augmentation
    )
    gradients, metrics = jax.grad(loss_fn, has_aux=True)(
        state.params, state.statistics, views, batch.frame_mask, model_rng
    )
    updates, optimizer_state = optimizer.update(
        gradients, state.optimizer_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    metrics["gradient_norm"] = optax.tree.norm(gradients)
    # The loss is that of the parameters before the update; what is saved after
    # it is checked by this.
    metrics["parameter_norm"] = optax.tree.norm(params)
    metrics["batch_checksum"] = checksum(batch.videos)
    return (
        state.replace(
            step=state.step + 1, params=params, optimizer_state=optimizer_state
        ),
        metrics,
    )

  whole, split = sharding.replicated(mesh), sharding.batch_sharding(mesh)
  return jax.jit(
      step,
      in_shardings=(whole, split),
      out_shardings=(whole, whole),
      donate_argnums=0,
  )


def _make_loss_fn(
    model: chain.ChainModel, *, weights: total.LossWeights, **settings: float
) -> Callable[..., Any]:
  """Makes (params, statistics, views, mask, rng) -> (loss, metrics)."""

  def loss_fn(
      params: Any,
      statistics: Any,
      views: Float32[Array, "batch 2 frames dim"],
      frame_mask: Bool[Array, "batch 2 frames"],
      rng: jax.Array,
  ) -> Any:
    order_rng, dropout_rng = jax.random.split(rng)
    permutation = None
    if weights.frame_order:
      permutation = draw_permutations(order_rng, frame_mask[:, 0])
    output = model.apply(
        {"params": params, "statistics": statistics},
        views,
        frame_mask,
        permutation,
        deterministic=False,
        rngs={"dropout": dropout_rng},
    )
    return total.total_loss(
        output, views, frame_mask, permutation, weights=weights, **settings
    )

  return loss_fn
