"""The backbones once more, in plain torch with torchvision's names.

torch is no dependency: where it is not installed the tests that use this are
skipped. The layers are torch's own, so that padding, pooling, batch norm and
the order of flattening are not ours.
"""

import pytest

torch = pytest.importorskip(
    "torch", reason="compares with torch, which is not installed"
)
nn = torch.nn


class VGG16(nn.Module):
  """`features` and the first layer of `classifier`, as torchvision has them."""

  def __init__(self, widths, depths, feature_dim, map_size):
    super().__init__()
    layers, channels = [], 3
    for width, depth in zip(widths, depths, strict=True):
      for _ in range(depth):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        channels = width
      layers.append(nn.MaxPool2d(2, 2))
    self.features = nn.Sequential(*layers)
    wide = nn.Linear(channels * map_size**2, feature_dim)
    self.classifier = nn.Sequential(wide, nn.ReLU())

  def forward(self, images):
    return self.classifier(torch.flatten(self.features(images), 1))


class _Bottleneck(nn.Module):

  def __init__(self, channels, width, stride, has_projection):
    super().__init__()
    wide = 4 * width
    self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
    self.bn2 = nn.BatchNorm2d(width)
    self.conv3 = nn.Conv2d(width, wide, 1, bias=False)
    self.bn3 = nn.BatchNorm2d(wide)
    self.downsample = None
    if has_projection:
      self.downsample = nn.Sequential(
          nn.Conv2d(channels, wide, 1, stride, bias=False),
          nn.BatchNorm2d(wide),
      )

  def forward(self, maps):
    branch = torch.relu(self.bn1(self.conv1(maps)))
    branch = torch.relu(self.bn2(self.conv2(branch)))
    branch = self.bn3(self.conv3(branch))
    kept = maps if self.downsample is None else self.downsample(maps)
    return torch.relu(kept + branch)


class ResNet50(nn.Module):
  """All but `fc`, as torchvision has it."""

  def __init__(self, width, depths):
    super().__init__()
    self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.maxpool = nn.MaxPool2d(3, 2, padding=1)
    channels = width
    for stage, depth in enumerate(depths):
      middle, blocks = width * 2**stage, []
      for block in range(depth):
        stride = 2 if stage and not block else 1
        blocks.append(_Bottleneck(channels, middle, stride, block == 0))
        channels = 4 * middle
      setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))

  def forward(self, images):
    maps = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
    for stage in range(1, 5):
      maps = getattr(self, f"layer{stage}")(maps)
    return torch.flatten(nn.functional.adaptive_avg_pool2d(maps, 1), 1)


class _Fire(nn.Module):

  def __init__(self, channels, width):
    super().__init__()
    self.squeeze1x1 = nn.Conv2d(channels, width, 1)
    self.expand1x1 = nn.Conv2d(width, 4 * width, 1)
    self.expand3x3 = nn.Conv2d(width, 4 * width, 3, padding="same")

  def forward(self, maps):
    maps = torch.relu(self.squeeze1x1(maps))
    both = torch.cat([self.expand1x1(maps), self.expand3x3(maps)], 1)
    return torch.relu(both)


class SqueezeNet(nn.Module):
  """v1.1 without classifier; `ceil_mode` pools as Caffe does."""

  def __init__(self, ceil_mode=False):
    super().__init__()
    self.conv1 = nn.Conv2d(3, 64, 3, 2)
    self.pool = nn.MaxPool2d(3, 2, ceil_mode=ceil_mode)
    channels = 64
    for place, width in enumerate((16, 16, 32, 32, 48, 48, 64, 64), 2):
      setattr(self, f"fire{place}", _Fire(channels, width))
      channels = 8 * width

  def forward(self, images):
    maps = torch.relu(self.conv1(images))
    for place in range(2, 10):
      maps = self.pool(maps) if place in (2, 4, 6) else maps
      maps = getattr(self, f"fire{place}")(maps)
    return maps.mean((2, 3))


def run(model, tensors, images):
  """Returns the features of float32 NCHW images, as numpy.

  Args:
    model: Of this module.
    tensors: By torch's names; all that the model has but the counters of
      batch norm.
    images: As the network wants them.
  """
  missing, unexpected = model.load_state_dict(
      {name: torch.tensor(value) for name, value in tensors.items()},
      strict=False,
  )
  assert not unexpected
  assert all(name.endswith("num_batches_tracked") for name in missing)
  with torch.no_grad():
    return model.eval()(torch.tensor(images)).numpy()
