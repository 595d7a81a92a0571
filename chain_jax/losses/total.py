"""All terms of CHAIN's loss, weighed and added."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from chain_jax.losses import codes, local, reconstruction
from chain_jax.models import chain


class LossWeights(NamedTuple):
  """Weight of each term, >= 0; 0 keeps the term out of the gradient."""

  contrastive: float
  frame_order: float
  scene_change: float
  quantisation: float
  bit_balance: float
  decorrelation: float
  reconstruction: float = 0.0


def total_loss(
    output: chain.ChainOutput,
    views: Float[Array, "batch 2 frames dim"],
    frame_mask: Bool[Array, "batch 2 frames"],
    frame_permutation: Int[Array, "batch frames"] | None,
    visible_mask: Bool[Array, "batch 2 frames"] | None = None,
    *,
    weights: LossWeights,
    nt_xent: Callable[[Float[Array, "batch 2 num_bits"]], Float[Array, ""]],
    scene_threshold_std: float,
    num_learned_bits: int | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
  """Adds the weighted terms.

  Args:
    output: Of the model on `views`.
    views: The model's input; the scene changes are read off it.
    frame_mask: False where a frame is padding.
    frame_permutation: That the model was given.
    visible_mask: That the model was given; None = nothing was hidden.
    weights: One a term.
    nt_xent: `contrastive.nt_xent` with its settings.
    scene_threshold_std: `threshold_std` of `local.scene_change_labels`.
    num_learned_bits: How many bits, the first ones, the terms on codes see;
      None = all.

  Returns:
    The total, and every term by name, unweighted, beside "total"; float32.
    A term of weight 0 is there too, but "frame_order" and, beside it,
    "frame_order_accuracy" only if the output has their logits,
    "reconstruction" only if it has frame errors.

  Raises:
    ValueError: If a weight is negative, or a term has a weight but not what
      it is read off.
  """
  _check_weights(weights, output)
  if visible_mask is None:
    visible_mask = frame_mask
  relaxed_codes = output.relaxed_codes[..., :num_learned_bits]
  terms = {
      "contrastive": nt_xent(relaxed_codes),
      "scene_change": _scene_change(
          output.scene_change_logits,
          *local.scene_change_labels(
              views, frame_mask, threshold_std=scene_threshold_std
          ),
          visible_mask,
      ),
      "quantisation": codes.quantisation_loss(relaxed_codes),
      "bit_balance": codes.bit_balance_loss(relaxed_codes),
      "decorrelation": codes.decorrelation_loss(relaxed_codes),
  }
  if output.frame_order_logits is not None:
    terms["frame_order"] = local.frame_order_loss(
        output.frame_order_logits, frame_permutation, frame_mask[:, 0]
    )
  if output.frame_errors is not None:
    terms["reconstruction"] = reconstruction.reconstruction_loss(
        output.frame_errors, frame_mask, visible_mask
    )
  total = jnp.zeros(())
  for name, term in terms.items():
    # Left out, not multiplied by 0: a NaN must not come through.
    if getattr(weights, name) > 0:
      total += getattr(weights, name) * term
  scalars = {**terms, "total": total}
  if output.frame_order_logits is not None:
    scalars["frame_order_accuracy"] = local.frame_order_accuracy(
        output.frame_order_logits, frame_permutation, frame_mask[:, 0]
    )
  return total, scalars


def _scene_change(
    logits: Float[Array, "batch 2 pairs"],
    labels: Bool[Array, "batch 2 pairs"],
    valid: Bool[Array, "batch 2 pairs"],
    visible_mask: Bool[Array, "batch 2 frames"],
) -> Float[Array, ""]:
  # What a view's changes are is read off all its frames, but only a pair that
  # the encoder saw is asked about.
  visible = visible_mask[..., :-1] & visible_mask[..., 1:]
  return local.scene_change_loss(logits, labels, valid & visible)


def _check_weights(weights: LossWeights, output: chain.ChainOutput) -> None:
  for name, weight in weights._asdict().items():
    if not weight >= 0:
      raise ValueError(
          f"`weights.{name}` must be >= 0, got {weight}; 0 switches it off."
      )
  if weights.frame_order > 0 and output.frame_order_logits is None:
    raise ValueError(
        "`weights.frame_order` must be 0 where no view was shuffled, got"
        f" {weights.frame_order}; give the model a `frame_permutation`."
    )
  if weights.reconstruction > 0 and output.frame_errors is None:
    raise ValueError(
        "`weights.reconstruction` must be 0 where no frame was guessed, got"
        f" {weights.reconstruction}; make the model with `reconstructs`."
    )
