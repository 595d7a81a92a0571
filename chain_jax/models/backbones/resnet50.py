"""ResNet-50 up to its pooled feature: 2048 numbers a frame, for inference only.

The variant of torchvision: the stride of a block is in its 3 x 3 convolution.
"""

from flax import linen as nn
from jax import Array
from jaxtyping import Float

from chain_jax.models.backbones.layers import (
    convolution,
    global_mean,
    max_pool,
)

IMAGE_SIZE = 224  # Pixels.
FEATURE_DIM = 2048
# What a full torchvision checkpoint also holds: the classifier, and counters
# that only training reads.
UNUSED_TENSORS = r"fc\.(weight|bias)|(.+\.)?num_batches_tracked"
# The block's result is this many times wider than its middle.
_EXPANSION = 4


def _norm(name: str) -> nn.BatchNorm:
  """Returns a batch norm that uses stored statistics; torch's epsilon."""
  return nn.BatchNorm(use_running_average=True, epsilon=1e-5, name=name)


class Bottleneck(nn.Module):
  """Narrow, convolve, widen, and add the result to the input.

  Attributes:
    width: Channels in the middle; the result has four times as many.
    stride: Of the 3 x 3 convolution, in pixels.
    has_projection: The input is brought to the shape of the result by a 1 x 1
      convolution; else it already has it.
  """

  width: int
  stride: int
  has_projection: bool

  @nn.compact
  def __call__(
      self, maps: Float[Array, "batch height width channels"]
  ) -> Float[Array, "batch rows columns widened"]:
    """Returns the maps of the block, each value >= 0."""
    bare = dict(use_bias=False)
    wide = _EXPANSION * self.width
    branch = convolution(self.width, 1, name="conv1", **bare)(maps)
    branch = nn.relu(_norm("bn1")(branch))
    branch = convolution(
        self.width, 3, stride=self.stride, padding=1, name="conv2", **bare
    )(branch)
    branch = nn.relu(_norm("bn2")(branch))
    branch = _norm("bn3")(convolution(wide, 1, name="conv3", **bare)(branch))
    if self.has_projection:
      maps = convolution(
          wide, 1, stride=self.stride, name="downsample_0", **bare
      )(maps)
      maps = _norm("downsample_1")(maps)
    return nn.relu(maps + branch)


class ResNet50(nn.Module):
  """Four stages of bottleneck blocks, averaged over the map.

  Layers have torchvision's names with `_` for `.`: `layer1_0` and so on.

  Attributes:
    width: Channels of the stem and of the first stage's middle; each stage
      doubles it.
    depths: Number of blocks of each stage.

  Source: arXiv:1512.03385, Table 1. Differs: see the module.
  """

  width: int = 64
  depths: tuple[int, ...] = (3, 4, 6, 3)

  @nn.compact
  def __call__(
      self, images: Float[Array, "batch height width 3"]
  ) -> Float[Array, "batch feature_dim"]:
    """Returns the features of preprocessed images, each >= 0."""
    maps = convolution(
        self.width, 7, stride=2, padding=3, use_bias=False, name="conv1"
    )(images)
    maps = nn.relu(_norm("bn1")(maps))
    maps = max_pool(maps, size=3, stride=2, padding=1)
    for stage, depth in enumerate(self.depths):
      for block in range(depth):
        maps = Bottleneck(
            self.width * 2**stage,
            stride=2 if stage > 0 and block == 0 else 1,
            has_projection=block == 0,
            name=f"layer{stage + 1}_{block}",
        )(maps)
    return global_mean(maps)
