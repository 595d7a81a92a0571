"""The backbones once more: NumPy, float64, channels first, torch's layout.

Also two networks that are shrunken, so that loops are quick, with the names and
shapes that torchvision would give their tensors.
"""

import numpy as np

from chain_jax.models.backbones import resnet50, vgg16

# Two shrunken networks: name -> shape, as torchvision would name them.
VGG = vgg16.VGG16((2, 3, 4, 3, 2), (1, 2, 1, 1, 1), feature_dim=5)
_VGG_CONVOLUTIONS = {0: (2, 3), 3: (3, 2), 5: (3, 3), 8: (4, 3), 11: (3, 4)}
_VGG_CONVOLUTIONS[14] = (2, 3)
_VGG_POOLED_AFTER = (0, 5, 8, 11, 14)
VGG_SHAPES = {
    f"features.{index}.weight": (*channels, 3, 3)
    for index, channels in _VGG_CONVOLUTIONS.items()
}
VGG_SHAPES |= {
    f"features.{index}.bias": channels[:1]
    for index, channels in _VGG_CONVOLUTIONS.items()
}
# The map of 64 x 64 pixels is 2 x 2: with 1 x 1 the order would not show.
VGG_SHAPES |= {
    "classifier.0.weight": (5, 2 * 2 * 2),
    "classifier.0.bias": (5,),
}

RESNET = resnet50.ResNet50(width=2, depths=(2, 1, 1, 1))
# Block -> channels in, channels in the middle, stride.
_RESNET_BLOCKS = {
    "layer1.0": (2, 2, 1),
    "layer1.1": (8, 2, 1),
    "layer2.0": (8, 4, 2),
    "layer3.0": (16, 8, 2),
    "layer4.0": (32, 16, 2),
}


def _norm_shapes(name, channels):
  leaves = ("weight", "bias", "running_mean", "running_var")
  return {f"{name}.{leaf}": (channels,) for leaf in leaves}


def resnet_shapes():
  shapes = {"conv1.weight": (2, 3, 7, 7)} | _norm_shapes("bn1", 2)
  for block, (channels, width, _) in _RESNET_BLOCKS.items():
    wide = 4 * width
    shapes |= {
        f"{block}.conv1.weight": (width, channels, 1, 1),
        f"{block}.conv2.weight": (width, width, 3, 3),
        f"{block}.conv3.weight": (wide, width, 1, 1),
    }
    shapes |= _norm_shapes(f"{block}.bn1", width)
    shapes |= _norm_shapes(f"{block}.bn2", width)
    shapes |= _norm_shapes(f"{block}.bn3", wide)
    if block.endswith(".0"):
      shapes[f"{block}.downsample.0.weight"] = (wide, channels, 1, 1)
      shapes |= _norm_shapes(f"{block}.downsample.1", wide)
  return shapes


def images_of(frames, name):
  """Preprocesses as documented, in float64: `[n, 3, height, width]`."""
  images = frames.astype(np.float64).transpose(0, 3, 1, 2)
  if name == "squeezenet":  # Blue, green, red.
    means = np.array([103.939, 116.779, 123.68])
    return images[:, ::-1] - means[:, None, None]
  means, stds = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
  return (images / 255 - means[:, None, None]) / stds[:, None, None]


def convolve(maps, kernel, bias=0.0, *, stride=1, padding=0):
  """Convolves `[n, in, h, w]` with `[out, in, size, size]`, as torch does."""
  size = kernel.shape[-1]
  sides = ((0, 0), (0, 0), (padding, padding), (padding, padding))
  windows = np.lib.stride_tricks.sliding_window_view(
      np.pad(maps, sides), (size, size), axis=(2, 3)
  )[:, :, ::stride, ::stride]
  summed = np.tensordot(windows, np.float64(kernel), [[1, 4, 5], [1, 2, 3]])
  return (summed + bias).transpose(0, 3, 1, 2)


def max_pool(maps, size, stride, padding=0):
  sides = ((0, 0), (0, 0), (padding, padding), (padding, padding))
  padded = np.pad(maps, sides, constant_values=-np.inf)
  windows = np.lib.stride_tricks.sliding_window_view(
      padded, (size, size), axis=(2, 3)
  )
  return windows[:, :, ::stride, ::stride].max((-1, -2))


def _relu(values):
  return np.maximum(values, 0)


def squeezenet(tensors, maps):
  def layer(name, maps, **settings):
    kernel, bias = tensors[f"{name}/kernel"], tensors[f"{name}/bias"]
    return _relu(convolve(maps, kernel, bias, **settings))

  maps = layer("conv1", maps, stride=2)
  for place in range(2, 10):
    maps = max_pool(maps, 3, 2) if place in (2, 4, 6) else maps
    maps = layer(f"fire{place}/squeeze1x1", maps)
    small = layer(f"fire{place}/expand1x1", maps)
    large = layer(f"fire{place}/expand3x3", maps, padding=1)
    maps = np.concatenate([small, large], axis=1)
  return maps.mean((2, 3))


def vgg(tensors, maps):
  for index in _VGG_CONVOLUTIONS:
    kernel = tensors[f"features.{index}.weight"]
    bias = tensors[f"features.{index}.bias"]
    maps = _relu(convolve(maps, kernel, bias, padding=1))
    maps = max_pool(maps, 2, 2) if index in _VGG_POOLED_AFTER else maps
  flat = maps.reshape(len(maps), -1)  # Channel by channel.
  wide = tensors["classifier.0.weight"].T
  return _relu(flat @ np.float64(wide) + tensors["classifier.0.bias"])


def resnet(tensors, maps):
  def norm(name, maps):
    scale, shift, mean, var = (
        np.float64(tensors[leaf])[:, None, None]
        for leaf in _norm_shapes(name, 0)
    )
    return (maps - mean) / np.sqrt(var + 1e-5) * scale + shift

  def layer(convolution, bn, maps, **settings):
    kernel = tensors[f"{convolution}.weight"]
    return norm(bn, convolve(maps, kernel, **settings))

  maps = _relu(layer("conv1", "bn1", maps, stride=2, padding=3))
  maps = max_pool(maps, 3, 2, padding=1)
  for block, (_, _, stride) in _RESNET_BLOCKS.items():
    branch = _relu(layer(f"{block}.conv1", f"{block}.bn1", maps))
    branch = _relu(
        layer(
            f"{block}.conv2", f"{block}.bn2", branch, stride=stride, padding=1
        )
    )
    branch = layer(f"{block}.conv3", f"{block}.bn3", branch)
    if block.endswith(".0"):
      names = f"{block}.downsample.0", f"{block}.downsample.1"
      maps = layer(*names, maps, stride=stride)
    maps = _relu(maps + branch)
  return maps.mean((2, 3))
