"""Loss of the frames that a model had to guess: masked auto-encoding."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float


def reconstruction_loss(
    frame_errors: Float[Array, "*batch frames"],
    frame_mask: Bool[Array, "*batch frames"],
    visible_mask: Bool[Array, "*batch frames"],
) -> Float[Array, ""]:
  """Averages the error over the frames that were hidden.

  Args:
    frame_errors: Squared error of each guessed frame, averaged over its
      dimensions, in squared units of the standardised features.
    frame_mask: False where a frame is padding.
    visible_mask: True where the encoder saw the frame.

  Returns:
    Mean over the valid hidden frames of the batch, float32; 0 if none is.
    All frames weigh the same, however many a view hides.

  Source: arXiv:2111.06377, Sec. 3, "Reconstruction target"; of frames in
  ConMH, AAAI 2023.

  >>> errors = jnp.array([1.0, 2.0, 4.0, jnp.nan])
  >>> valid = jnp.array([True, True, True, False])
  >>> visible = jnp.array([True, False, False, False])
  >>> print(reconstruction_loss(errors, valid, visible))
  3.0
  """
  hidden = frame_mask & ~visible_mask
  count = jnp.sum(hidden, dtype=jnp.float32)
  errors = jnp.where(hidden, frame_errors.astype(jnp.float32), 0.0)
  return jnp.sum(errors) / jnp.maximum(count, 1.0)
