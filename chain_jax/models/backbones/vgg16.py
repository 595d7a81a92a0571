"""VGG-16 up to relu6: 4096 numbers a frame, the usual feature of the field.

Only the layers up to the first fully connected one run: 117 M parameters.
"""

from flax import linen as nn
from jax import Array
from jaxtyping import Float

from chain_jax.models.backbones.layers import convolution, max_pool

IMAGE_SIZE = 224  # Pixels; the fully connected layer fits no other size.
FEATURE_DIM = 4096
# What a full torchvision checkpoint also holds: fc7 and the classifier.
UNUSED_TENSORS = r"classifier\.[36]\.(weight|bias)"


class VGG16(nn.Module):
  """Thirteen 3 x 3 convolutions in five blocks, then one wide layer.

  Layers have torchvision's names with `_` for `.`: `features_0` to
  `features_28`, `classifier_0`.

  Attributes:
    block_widths: Channels of each block's convolutions.
    block_depths: Number of convolutions in each block.
    feature_dim: Width of the fully connected layer.

  Source: arXiv:1409.1556, configuration D.
  """

  block_widths: tuple[int, ...] = (64, 128, 256, 512, 512)
  block_depths: tuple[int, ...] = (2, 2, 3, 3, 3)
  feature_dim: int = FEATURE_DIM

  @nn.compact
  def __call__(
      self, images: Float[Array, "batch height width 3"]
  ) -> Float[Array, "batch feature_dim"]:
    """Returns the features of preprocessed images, each >= 0."""
    maps, index = images, 0
    for width, depth in zip(self.block_widths, self.block_depths, strict=True):
      for _ in range(depth):
        name = f"features_{index}"
        maps = nn.relu(convolution(width, 3, padding=1, name=name)(maps))
        index += 2  # torchvision counts the relu as a layer,
      maps = max_pool(maps, size=2, stride=2)
      index += 1  # and the pooling.
    # The stored weights expect channel by channel, not pixel by pixel.
    flat = maps.transpose(0, 3, 1, 2).reshape(len(maps), -1)
    return nn.relu(nn.Dense(self.feature_dim, name="classifier_0")(flat))
