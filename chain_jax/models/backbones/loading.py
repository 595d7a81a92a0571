"""The one way to a backbone: its name and weights give a feature extractor."""

import difflib
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float, UInt8

from chain_jax.code_files import file_checksum
from chain_jax.errors import InputError
from chain_jax.models.backbones import (
    preprocessing,
    resnet50,
    squeezenet,
    untrained,
    vgg16,
)
from chain_jax.models.backbones.weights import (
    KERAS,
    TORCHVISION,
    WeightLayout,
    load_variables,
)

BACKBONES = ("squeezenet", "vgg16", "resnet50", "random")


class Backbone(NamedTuple):
  """A network that turns frames into features, with its variables.

  Attributes:
    name: One of `BACKBONES`.
    feature_dim: Numbers a frame.
    image_size: Height and width of the frames it takes, in pixels.
    weights_checksum: SHA-256 of the weights file in hex, or "random".
    variables: On the device.
    extract: `extract(variables, frames)` turns uint8 RGB frames
      `[batch, image_size, image_size, 3]` into float32 features
      `[batch, feature_dim]`. It is compiled once for each batch size, so keep
      to one; preprocessing happens inside, on the device.
  """

  name: str
  feature_dim: int
  image_size: int
  weights_checksum: str
  variables: Any
  extract: Callable[[Any, Any], Any]


class _Recipe(NamedTuple):
  """What `load_backbone` needs to know of a pretrained network."""

  module: nn.Module
  feature_dim: int
  image_size: int
  preprocessing: preprocessing.Preprocessing
  layout: WeightLayout
  unused: str  # Tensors of a full checkpoint that are not read.
  source: str  # Where the weights are from.


def _torchvision_source(name: str) -> str:
  return (
      "make them once where torchvision and safetensors are installed: python"
      ' -c "import torchvision; from safetensors.torch import save_file;'
      f" save_file(torchvision.models.{name}(weights='IMAGENET1K_V1')"
      f".state_dict(), '{name}.safetensors')\""
  )


_RECIPES = {
    "squeezenet": _Recipe(
        squeezenet.SqueezeNet(),
        squeezenet.FEATURE_DIM,
        squeezenet.IMAGE_SIZE,
        preprocessing.CAFFE,
        KERAS,
        r"conv10/(kernel|bias)",
        "download squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5 (3 MB)"
        " from github.com/DeepCognition/keras-squeezenet",
    ),
    "vgg16": _Recipe(
        vgg16.VGG16(),
        vgg16.FEATURE_DIM,
        vgg16.IMAGE_SIZE,
        preprocessing.TORCHVISION,
        TORCHVISION,
        vgg16.UNUSED_TENSORS,
        _torchvision_source("vgg16"),
    ),
    "resnet50": _Recipe(
        resnet50.ResNet50(),
        resnet50.FEATURE_DIM,
        resnet50.IMAGE_SIZE,
        preprocessing.TORCHVISION,
        TORCHVISION,
        resnet50.UNUSED_TENSORS,
        _torchvision_source("resnet50"),
    ),
}


def load_backbone(name: str, weights: pathlib.Path | None) -> Backbone:
  """Loads a backbone, ready to extract features.

  Args:
    name: One of `BACKBONES`. "random" is a small network with fixed random
      weights, to try commands; a line on standard error says so.
    weights: Of its pretrained weights; None for "random". SqueezeNet: a
      Keras HDF5 file. Others: safetensors with torchvision's names.

  Raises:
    InputError: If the name is not known, weights are missing or given where
      there are none, or the file is not what the network needs.
  """
  if name not in BACKBONES:
    nearest = difflib.get_close_matches(name, BACKBONES, n=1, cutoff=0)[0]
    raise InputError(
        f"`backbone` must be one of {', '.join(BACKBONES)}, got {name!r}; did"
        f" you mean {nearest!r}?"
    )
  if name == "random":
    return _random_backbone(weights)
  recipe = _RECIPES[name]
  if weights is None:
    raise InputError(
        f"`weights` must name a file for the backbone {name!r}, got"
        f" none; {recipe.source}"
    )
  variables = load_variables(
      weights,
      _variable_shapes(recipe.module, recipe.image_size),
      recipe.layout,
      unused=recipe.unused,
  )
  return Backbone(
      name,
      recipe.feature_dim,
      recipe.image_size,
      file_checksum(weights),
      jax.device_put(variables),
      _make_extract(recipe.module, recipe.preprocessing),
  )


def _random_backbone(weights: pathlib.Path | None) -> Backbone:
  if weights is not None:
    raise InputError(
        "`weights` must be left out for the backbone 'random', which has none,"
        f" got {weights}; name the backbone of that file."
    )
  print(
      "warning: the backbone 'random' is an UNTRAINED network; its features"
      " are for trying commands and say nothing about videos.",
      file=sys.stderr,
      flush=True,
  )
  return Backbone(
      "random",
      untrained.FEATURE_DIM,
      untrained.IMAGE_SIZE,
      "random",
      untrained.random_variables(),
      _make_extract(untrained.UntrainedNet(), preprocessing.TORCHVISION),
  )


def _variable_shapes(module: nn.Module, image_size: int) -> Mapping[str, Any]:
  images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
  return jax.eval_shape(module.init, jax.random.key(0), images)


def _make_extract(
    module: nn.Module, settings: preprocessing.Preprocessing
) -> Callable[[Any, Any], Any]:
  @jax.jit
  def extract(
      variables: Any, frames: UInt8[Array, "batch size size 3"]
  ) -> Float[Array, "batch feature_dim"]:
    # Features are stored and compared across machines: no device may round
    # its products to bfloat16 or TF32.
    with jax.default_matmul_precision("float32"):
      return module.apply(variables, preprocessing.preprocess(frames, settings))

  return extract
