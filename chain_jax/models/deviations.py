"""How far each frame of a view is from the view's mean, in each dimension."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from chain_jax.models import hashing

# Of a view's mean square: a smaller variance counts as little as it is.
_LEAST_CHANGE = 0.01


def squared_deviations(
    frames: Float[Array, "*batch frames dim"],
    frame_mask: Bool[Array, "*batch frames"],
) -> Float[Array, "*batch frames dim"]:
  """Squares the difference of each frame from the mean of its view.

  Averaged over frames they are the variance of each dimension over time, which
  what stands still and what all frames are shifted by leave as it is. They are
  scaled so that this variance has a root mean square of 1 over dimensions, but
  for views that hardly change: of these there would be nothing but noise.

  Args:
    frames: Of whole views, finite.
    frame_mask: True where a frame counts for the mean and the scale. What
      others deviate from them is given too.

  Returns:
    As `frames`, in its dtype; 0 where all frames of a view are equal.

  >>> frames = jnp.array([[3.0, 5.0], [1.0, 5.0], [9.0, 9.0]])
  >>> print(squared_deviations(frames, jnp.array([True, True, False])))
  [[ 1.4142135  0.       ]
   [ 1.4142135  0.       ]
   [69.29646   22.627417 ]]
  """
  exact = frames.astype(jnp.float32)
  mean = hashing.masked_mean(exact, frame_mask)[..., None, :]
  squares = jnp.square(exact - mean)
  variance = hashing.masked_mean(squares, frame_mask)
  energy = jnp.mean(hashing.masked_mean(jnp.square(exact), frame_mask), axis=-1)
  rms_variance = jnp.sqrt(jnp.mean(jnp.square(variance), axis=-1))
  scale = jnp.maximum(rms_variance, _LEAST_CHANGE * energy)[..., None, None]
  return (squares / jnp.where(scale > 0, scale, 1.0)).astype(frames.dtype)
