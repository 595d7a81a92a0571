"""SqueezeNet v1.1 without classifier: 512 numbers a frame, 0.7 M parameters.

The weights are those of DeepCognition/keras-squeezenet (MIT), a Keras HDF5
file whose layers have the names of the authors' Caffe network. What was checked
before trusting them:

- Preprocessing, on 240 UCF101 clips of ten actions (4 frames each; mean feature
  of a clip, centred; ranked by cosine without clips of the same class and
  group). Mean average precision: BGR minus the Caffe means .344, RGB minus the
  same means .334, channels in the order GRB .317, BGR or RGB without means .319
  or .312, torchvision's mean and std .247, scaled to [-1, 1] .24. So: unscaled,
  means subtracted. Between BGR and RGB the difference is small (.009; 95 % of
  bootstraps over groups in -.001 to .019). But a linear probe on the same clips
  was better with BGR at each of five ridge strengths (at best .646 against
  .588), the first input channel has the smallest weights of the three (norm
  4.5, 7.0, 6.2), as fits blue, and the Caffe network is documented as BGR.
  So: BGR.
- Kernels are not mirrored: with mirrored ones the same figure was .282.
- Padding. The Keras code pools only windows that fit as a whole, Caffe also
  those that hang over the edge. At 224 x 224 pixels the maps are 111, 55, 27
  and 13 wide, so every window fits and the two are one. Hence `IMAGE_SIZE`.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from chain_jax.models.backbones.layers import (
    convolution,
    global_mean,
    max_pool,
)

IMAGE_SIZE = 224  # Pixels; see above before changing it.
FEATURE_DIM = 512
# Width of the squeeze layer of each fire module; each of the two expand
# layers is four times as wide. arXiv:1602.07360 and its release v1.1.
_SQUEEZE_WIDTHS = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}
_POOLED_BEFORE = (2, 4, 6)


class Fire(nn.Module):
  """Narrows the maps, then widens them by 1 x 1 and by 3 x 3 kernels.

  Attributes:
    squeeze_width: Channels after narrowing; the result has 8 times as many.
  """

  squeeze_width: int

  @nn.compact
  def __call__(
      self, maps: Float[Array, "batch height width channels"]
  ) -> Float[Array, "batch height width expanded"]:
    """Returns the 1 x 1 channels, then the 3 x 3 channels."""
    width = 4 * self.squeeze_width
    maps = convolution(self.squeeze_width, 1, name="squeeze1x1")(maps)
    maps = nn.relu(maps)
    small = convolution(width, 1, name="expand1x1")(maps)
    large = convolution(width, 3, padding=1, name="expand3x3")(maps)
    return nn.relu(jnp.concatenate([small, large], axis=-1))


class SqueezeNet(nn.Module):
  """SqueezeNet v1.1 up to fire9, averaged over the map.

  Source: arXiv:1602.07360; v1.1 of the authors' repository.
  """

  @nn.compact
  def __call__(
      self, images: Float[Array, "batch height width 3"]
  ) -> Float[Array, "batch 512"]:
    """Returns the features of preprocessed images, each >= 0."""
    maps = nn.relu(convolution(64, 3, stride=2, name="conv1")(images))
    for place, squeeze_width in _SQUEEZE_WIDTHS.items():
      if place in _POOLED_BEFORE:
        maps = max_pool(maps, size=3, stride=2)
      maps = Fire(squeeze_width, name=f"fire{place}")(maps)
    return global_mean(maps)
