"""Features of the backbones against loops in float64, and against torch."""

import importlib
import pathlib

import backbone_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_backbones as reference
from flax import traverse_util

from chain_jax.errors import InputError
from chain_jax.models.backbones import (
    loading,
    weights,
)

_DATA = pathlib.Path(__file__).resolve().parents[2] / "shared/data"
_REAL_WEIGHTS = (
    _DATA / "squeezenet/squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
_CLIPS = _DATA / "ucf101_clips"
# Sums of up to 4608 float32 products in 5 to 26 layers: each layer is off by
# some 1e-6 of its largest values. A wrong padding or order moves them by 1e-1.
_CLOSE = dict(rtol=1e-4, atol=1e-4)


def _frames(count=2, size=64, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


_SMALL = {
    "vgg16": (reference.VGG, reference.VGG_SHAPES, reference.vgg),
    "resnet50": (reference.RESNET, reference.resnet_shapes(), reference.resnet),
}


def _load_small(name, tmp_path, monkeypatch):
  """Loads a shrunken network through a file; returns it and its tensors."""
  numpy_files = pytest.importorskip(
      "safetensors.numpy", reason="needs chain_jax[video]"
  )
  module, shapes, _ = _SMALL[name]
  recipe = loading._RECIPES[name]._replace(module=module, image_size=64)
  monkeypatch.setitem(loading._RECIPES, name, recipe)
  tensors = backbone_files.random_tensors(shapes)
  path = tmp_path / f"{name}.safetensors"
  numpy_files.save_file(tensors, path)
  return loading.load_backbone(name, path), tensors


@pytest.mark.parametrize("name", _SMALL)
def test_torchvision_networks_agree_with_loops_in_float64(
    name, tmp_path, monkeypatch
):
  backbone, tensors = _load_small(name, tmp_path, monkeypatch)
  frames = _frames()
  expected = _SMALL[name][2](tensors, reference.images_of(frames, name))
  # Else most layers are dead, and this test blind.
  assert np.abs(expected[0] - expected[1]).max() > 0.1
  actual = backbone.extract(backbone.variables, frames)
  np.testing.assert_allclose(
      np.asarray(actual), expected.astype(np.float32), **_CLOSE, strict=True
  )


def test_squeezenet_agrees_with_loops_in_float64(tmp_path):
  tensors = backbone_files.squeezenet_tensors()
  path = backbone_files.write_keras(tmp_path / "weights.h5", tensors)
  backbone = loading.load_backbone("squeezenet", path)
  frames = _frames(size=63)  # Maps of 31, 15, 7 and 3 pixels.
  expected = reference.squeezenet(
      tensors, reference.images_of(frames, "squeezenet")
  )
  assert np.abs(expected[0] - expected[1]).max() > 10
  actual = backbone.extract(backbone.variables, frames)
  # Pixels reach 150 here, not 2 as above: so do the errors.
  np.testing.assert_allclose(
      np.asarray(actual),
      expected.astype(np.float32),
      rtol=1e-4,
      atol=1e-2,
      strict=True,
  )


@pytest.fixture
def torch_backbones():
  return importlib.import_module("torch_backbones")  # Skips without torch.


def test_small_vgg16_agrees_with_torch(tmp_path, monkeypatch, torch_backbones):
  backbone, tensors = _load_small("vgg16", tmp_path, monkeypatch)
  model = torch_backbones.VGG16(
      reference.VGG.block_widths, reference.VGG.block_depths, 5, 2
  )
  _assert_agrees_with_torch(torch_backbones, backbone, model, tensors)


def test_small_resnet50_agrees_with_torch(
    tmp_path, monkeypatch, torch_backbones
):
  backbone, tensors = _load_small("resnet50", tmp_path, monkeypatch)
  model = torch_backbones.ResNet50(
      reference.RESNET.width, reference.RESNET.depths
  )
  _assert_agrees_with_torch(torch_backbones, backbone, model, tensors)


def _assert_agrees_with_torch(torch_backbones, backbone, model, tensors):
  frames = _frames()
  images = reference.images_of(frames, backbone.name).astype(np.float32)
  np.testing.assert_allclose(
      np.asarray(backbone.extract(backbone.variables, frames)),
      torch_backbones.run(model, tensors, images),
      **_CLOSE,
      strict=True,
  )


@pytest.mark.parametrize("name", _SMALL)
def test_full_networks_have_the_tensors_of_torchvision(name, torch_backbones):
  with torch_backbones.torch.device("meta"):
    model = {
        "vgg16": lambda: torch_backbones.VGG16(
            (64, 128, 256, 512, 512), (2, 2, 3, 3, 3), 4096, 7
        ),
        "resnet50": lambda: torch_backbones.ResNet50(64, (3, 4, 6, 3)),
    }[name]()
  expected = {
      key: tuple(value.shape)
      for key, value in model.state_dict().items()
      if not key.endswith("num_batches_tracked")
  }
  recipe = loading._RECIPES[name]
  shapes = loading._variable_shapes(recipe.module, recipe.image_size)
  actual = {}
  for place, leaf in traverse_util.flatten_dict(shapes).items():
    axes = weights._stored_axes(place, leaf.shape, weights.TORCHVISION)
    stored = tuple(leaf.shape[axis] for axis in axes)
    actual[weights.TORCHVISION.tensor_name(place[1:])] = stored
  assert actual == expected


# Published counts: torchvision gives 138,357,544 parameters for VGG-16, of
# which fc7 and fc8 are 4096 * 4096 + 4096 and 4096 * 1000 + 1000; 25,557,032
# for ResNet-50, of which fc is 2048 * 1000 + 1000; the shared SqueezeNet
# file has 722,496.
@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [
        ("squeezenet", 722_496),
        ("vgg16", 138_357_544 - 16_781_312 - 4_097_000),
        ("resnet50", 25_557_032 - 2_049_000),
    ],
)
def test_full_networks_have_the_published_size(name, num_parameters):
  recipe = loading._RECIPES[name]
  shapes = loading._variable_shapes(recipe.module, recipe.image_size)
  leaves = jax.tree.leaves(shapes["params"])
  assert sum(leaf.size for leaf in leaves) == num_parameters
  images = jax.ShapeDtypeStruct((3, 224, 224, 3), jnp.float32)
  features = jax.eval_shape(recipe.module.apply, shapes, images)
  assert features.shape == (3, recipe.feature_dim)
  assert features.dtype == jnp.float32


def test_random_backbone_is_the_same_each_time_and_says_what_it_is(capsys):
  first = loading.load_backbone("random", None)
  second = loading.load_backbone("random", None)
  warning = capsys.readouterr().err
  assert warning.count("UNTRAINED") == warning.count("\n") == 2
  assert (first.weights_checksum, first.image_size) == ("random", 64)
  frames = _frames(3)
  features = np.asarray(first.extract(first.variables, frames))
  assert (features.shape, features.dtype) == ((3, 128), np.float32)
  np.testing.assert_array_equal(
      features,
      np.asarray(second.extract(second.variables, frames)),
      strict=True,
  )
  assert len(np.unique(features, axis=0)) == 3


def test_random_backbone_takes_no_weights(tmp_path):
  with pytest.raises(InputError, match="`weights` must be left out"):
    loading.load_backbone("random", tmp_path / "weights.h5")


def test_a_misspelt_backbone_is_refused_and_the_nearest_named():
  with pytest.raises(InputError, match="got 'vgg-16'; did you mean 'vgg16'?"):
    loading.load_backbone("vgg-16", None)


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("squeezenet", "DeepCognition/keras-squeezenet"),
        ("vgg16", "torchvision.models.vgg16(weights="),
        ("resnet50", "torchvision.models.resnet50(weights="),
    ],
)
def test_without_weights_the_error_says_how_to_get_them(name, way_out):
  with pytest.raises(InputError) as caught:
    loading.load_backbone(name, None)
  assert way_out in str(caught.value)
  assert "\n" not in str(caught.value)


def _clip_frames(*, places):
  """Frames of the first clip of each class: `[clips, places, ...]`."""
  if not (_REAL_WEIGHTS.is_file() and _CLIPS.is_dir()):
    pytest.skip("needs ../shared/data: squeezenet/ and ucf101_clips/")
  av = pytest.importorskip("av", reason="needs chain_jax[video]")
  clips = []
  for folder in sorted(_CLIPS.iterdir()):
    with av.open(sorted(folder.glob("*.mp4"))[0]) as container:
      frames = list(container.decode(video=0))
    chosen = [frames[int(place * len(frames))] for place in places]
    clips.append(
        [
            frame.to_image().crop((40, 0, 280, 240)).resize((224, 224))
            for frame in chosen
        ]
    )
  return np.array([[np.asarray(frame) for frame in clip] for clip in clips])


def _real_tensors():
  with weights.KERAS.open(_REAL_WEIGHTS) as stored:
    tensors = {name: tensor.read() for name, tensor in stored.items()}
  return {
      name: value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
      for name, value in tensors.items()
  }


def test_real_squeezenet_on_real_frames_agrees_with_loops_in_float64():
  frames = _clip_frames(places=[0.5])[:2, 0]
  backbone = loading.load_backbone("squeezenet", _REAL_WEIGHTS)
  expected = reference.squeezenet(
      _real_tensors(), reference.images_of(frames, "squeezenet")
  )
  np.testing.assert_allclose(
      np.asarray(backbone.extract(backbone.variables, frames)),
      expected.astype(np.float32),
      rtol=1e-3,
      atol=1e-3,  # Features reach 50; 26 layers in float32.
      strict=True,
  )


@pytest.mark.parametrize("ceil_mode", [False, True], ids=["keras", "caffe"])
def test_real_squeezenet_on_real_frames_agrees_with_torch(
    ceil_mode, torch_backbones
):
  frames = _clip_frames(places=[0.5])[:2, 0]
  backbone = loading.load_backbone("squeezenet", _REAL_WEIGHTS)
  leaves = {"kernel": "weight", "bias": "bias"}
  tensors = {
      name.rpartition("/")[0].replace("/", ".")
      + f".{leaves[name.rpartition('/')[2]]}": value
      for name, value in _real_tensors().items()
  }
  images = reference.images_of(frames, "squeezenet").astype(np.float32)
  # At 224 pixels both ways to pool are the same: see squeezenet.py.
  expected = torch_backbones.run(
      torch_backbones.SqueezeNet(ceil_mode), tensors, images
  )
  np.testing.assert_allclose(
      np.asarray(backbone.extract(backbone.variables, frames)),
      expected,
      rtol=1e-3,
      atol=1e-3,
      strict=True,
  )


def test_real_squeezenet_finds_the_other_frame_of_each_clip():
  frames = _clip_frames(places=[0.3, 0.6])
  backbone = loading.load_backbone("squeezenet", _REAL_WEIGHTS)
  features = [
      np.asarray(backbone.extract(backbone.variables, frames[:, place]))
      for place in (0, 1)
  ]
  first, second = (
      values / np.linalg.norm(values, axis=1, keepdims=True)
      for values in features
  )
  nearest = np.argmax(first @ second.T, axis=1)
  np.testing.assert_array_equal(nearest, np.arange(len(frames)), strict=True)
