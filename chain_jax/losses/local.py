"""Losses inside one video: the order of its frames, its scene changes."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

# Cosines in float32 differ by about 1e-6 from rounding alone: a gap below
# this is no scene change, however even the rest of the video is.
_COSINE_TOLERANCE = 1e-5


def frame_order_loss(
    logits: Float[Array, "batch frames frames"],
    frame_permutation: Int[Array, "batch frames"],
    frame_mask: Bool[Array, "batch frames"],
) -> Float[Array, ""]:
  """Cross-entropy of each shuffled frame's true index.

  Args:
    logits: `[b, s, c]` scores "slot s shows frame c"; float32 or bfloat16.
    frame_permutation: Slot s shows frame `frame_permutation[b, s]`.
    frame_mask: False where frame c of the video, in its own order, is
      padding. Such frames are no class, and the slots that show them do not
      count.

  Returns:
    Mean over the valid frames of the batch, in nats, float32; 0 if none is.

  >>> logits = jnp.zeros((1, 3, 3))
  >>> mask = jnp.array([[True, True, False]])
  >>> print(f"{frame_order_loss(logits, jnp.array([[1, 0, 2]]), mask):.4f}")
  0.6931
  """
  log_probability = jax.nn.log_softmax(_valid_classes(logits, frame_mask))
  is_label = _is_label(frame_permutation)
  picked = jnp.sum(jnp.where(is_label, log_probability, 0.0), axis=-1)
  return _mean_over(-picked, _slot_mask(frame_permutation, frame_mask))


def frame_order_accuracy(
    logits: Float[Array, "batch frames frames"],
    frame_permutation: Int[Array, "batch frames"],
    frame_mask: Bool[Array, "batch frames"],
) -> Float[Array, ""]:
  """Share of valid frames whose true index has the highest logit.

  Arguments as in `frame_order_loss`. Chance is about 1 / (valid frames).

  >>> logits = jnp.array([[[0.0, 1.0], [0.0, 1.0]]])
  >>> mask = jnp.ones((1, 2), bool)
  >>> print(frame_order_accuracy(logits, jnp.array([[1, 0]]), mask))
  0.5
  """
  guess = jnp.argmax(_valid_classes(logits, frame_mask), axis=-1)
  correct = (guess == frame_permutation).astype(jnp.float32)
  return _mean_over(correct, _slot_mask(frame_permutation, frame_mask))


def scene_change_labels(
    views: Float[Array, "*batch frames dim"],
    frame_mask: Bool[Array, "*batch frames"],
    *,
    threshold_std: float,
) -> tuple[Bool[Array, "*batch frames-1"], Bool[Array, "*batch frames-1"]]:
  """Marks pairs of adjacent frames that are unusually unlike.

  A pair is a change where the cosine of its two input frames lies more than
  `threshold_std` standard deviations below the mean of its own view's pairs.
  A view whose frames are evenly alike has none.

  Args:
    views: Input frame features, float32 or bfloat16. Two all-zero frames are
      alike (cosine 1), a zero and another frame are not (cosine 0).
    frame_mask: False where a frame is padding.
    threshold_std: k in "mean - k * std"; population standard deviation.

  Returns:
    The labels, and where they are valid: where both frames are. A label is
    False where it is not valid.

  >>> frames = jnp.array([[1.0, 0], [1, 0], [1, 0], [0, 1], [0, 1]])
  >>> labels, _ = scene_change_labels(
  ...     frames, jnp.ones(5, bool), threshold_std=1.0
  ... )
  >>> labels.tolist()
  [False, False, True, False]
  """
  valid = frame_mask[..., :-1] & frame_mask[..., 1:]
  cosines = jnp.where(valid, _adjacent_cosines(views), 0.0)
  count = jnp.maximum(jnp.sum(valid, axis=-1, keepdims=True), 1)
  mean = jnp.sum(cosines * valid, axis=-1, keepdims=True) / count
  deviation = jnp.square(cosines - mean) * valid
  std = jnp.sqrt(jnp.sum(deviation, axis=-1, keepdims=True) / count)
  gap = (mean - threshold_std * std) - cosines
  return valid & (gap > _COSINE_TOLERANCE), valid


def scene_change_loss(
    logits: Float[Array, "*batch pairs"],
    labels: Bool[Array, "*batch pairs"],
    valid: Bool[Array, "*batch pairs"],
) -> Float[Array, ""]:
  """Binary cross-entropy of the scene changes.

  Args:
    logits: Score of a change; float32 or bfloat16.
    labels: True where the scene changes.
    valid: False where a pair does not count.

  Returns:
    Mean over the valid pairs of the batch, in nats, float32; 0 if none is.

  >>> valid = jnp.array([True, False])
  >>> print(f"{scene_change_loss(jnp.zeros(2), valid, valid):.4f}")
  0.6931
  """
  logits = logits.astype(jnp.float32)
  # -log sigmoid(x) is softplus(-x); of the other class, softplus(x).
  loss = jax.nn.softplus(jnp.where(labels, -logits, logits))
  return _mean_over(loss, valid)


def _valid_classes(logits, frame_mask):
  # Finite: a video without a valid frame must make no NaN on the way either.
  lowest = jnp.finfo(jnp.float32).min
  return jnp.where(frame_mask[:, None, :], logits.astype(jnp.float32), lowest)


def _is_label(frame_permutation):
  classes = jnp.arange(frame_permutation.shape[-1])
  return frame_permutation[..., None] == classes  # [batch, slots, classes]


def _slot_mask(frame_permutation, frame_mask):
  return jnp.take_along_axis(frame_mask, frame_permutation, axis=-1)


def _adjacent_cosines(views):
  frames = views.astype(jnp.float32)
  norm = jnp.sqrt(jnp.sum(jnp.square(frames), axis=-1))
  before, after = norm[..., :-1], norm[..., 1:]
  dot = jnp.sum(frames[..., :-1, :] * frames[..., 1:, :], axis=-1)
  both_zero = (before == 0) & (after == 0)
  cosines = dot / jnp.maximum(before * after, jnp.finfo(jnp.float32).tiny)
  return jnp.where(both_zero, 1.0, cosines)


def _mean_over(values, mask):
  count = jnp.sum(mask, dtype=jnp.float32)
  return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(count, 1.0)
