"""From pixels to what a pretrained network was trained on."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, UInt8


class Preprocessing(NamedTuple):
  """What is done to each pixel: `(pixel * scale - mean) / std`.

  Attributes:
    scale: Multiplies the pixel values 0 to 255.
    mean: Of red, green and blue, after scaling.
    std: Of red, green and blue, after scaling.
    blue_first: The network wants its channels as blue, green, red.
  """

  scale: float
  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  blue_first: bool


# Of torchvision's ImageNet networks: its documentation, "Models and
# pre-trained weights", gives mean and std of pixels in [0, 1].
TORCHVISION = Preprocessing(
    scale=1 / 255,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    blue_first=False,
)
# Of networks that come from Caffe, as Keras knows them: its function
# `preprocess_input` in the mode "caffe".
CAFFE = Preprocessing(
    scale=1.0,
    mean=(123.68, 116.779, 103.939),
    std=(1.0, 1.0, 1.0),
    blue_first=True,
)


def preprocess(
    frames: UInt8[Array, "batch height width 3"], settings: Preprocessing
) -> Float[Array, "batch height width 3"]:
  """Turns RGB frames into float32 images as the network expects them.

  >>> black = jnp.zeros((1, 1, 1, 3), jnp.uint8)
  >>> print(preprocess(black, CAFFE)[0, 0, 0])
  [-103.939 -116.779 -123.68 ]
  """
  images = frames.astype(jnp.float32) * settings.scale
  images = (images - jnp.array(settings.mean)) / jnp.array(settings.std)
  return images[..., ::-1] if settings.blue_first else images
