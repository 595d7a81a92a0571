"""A small network without training, to try commands without any weights."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from chain_jax.models.backbones.layers import convolution, global_mean

IMAGE_SIZE = 64  # Pixels.
FEATURE_DIM = 128
_SEED = 0
_WIDTHS = (32, 64, FEATURE_DIM)


class UntrainedNet(nn.Module):
  """Three strided convolutions, averaged over the map."""

  @nn.compact
  def __call__(
      self, images: Float[Array, "batch height width 3"]
  ) -> Float[Array, "batch 128"]:
    """Returns the features of preprocessed images, each >= 0."""
    maps = images
    for place, width in enumerate(_WIDTHS):
      layer = convolution(
          width, 3, stride=2, padding=1, name=f"conv{place + 1}"
      )
      maps = nn.relu(layer(maps))
    return global_mean(maps)


def random_variables() -> dict:
  """Returns the variables of `UntrainedNet`, the same on every call."""
  # Its stream is frozen, unlike that of NumPy's newer generators, and unlike
  # jax.random it needs no compilation, which took seconds.
  rng = np.random.RandomState(_SEED)
  params, channels = {}, 3
  for place, width in enumerate(_WIDTHS):
    # He: keeps the scale of the values through relu, arXiv:1502.01852.
    scale = np.sqrt(2 / (9 * channels))
    kernel = rng.normal(scale=scale, size=(3, 3, channels, width))
    params[f"conv{place + 1}"] = {
        "kernel": jnp.asarray(kernel, jnp.float32),
        "bias": jnp.zeros(width),
    }
    channels = width
  return {"params": params}
