"""From a file of weights to the variables of a network, strictly.

Every tensor of the network must be in the file, with its shape, as finite
floats, and nothing else but what a full checkpoint is known to hold besides.
"""

import pathlib
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from chain_jax.errors import InputError
from chain_jax.models.backbones.weight_files import (
    StoredTensor,
    open_keras_hdf5,
    open_safetensors,
    refuse_pickle,
)

_RIGHT_FILE = "check that this is the weights file of this backbone"
_FLOATS = ("float16", "float32", "float64")
# Leaves of Flax's layers and what torch calls them.
_TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


class WeightLayout(NamedTuple):
  """How a kind of file names and lays out the tensors of a network.

  Attributes:
    suffixes: Of its files, in lower case.
    open: Opens one and yields its tensors by name.
    tensor_name: From the path of a variable, without its collection, to the
      name of its tensor.
    kernel_axes: By number of dimensions: which axis of Flax's kernel each
      axis of the stored one is. A kernel not named here is stored as it is.
  """

  suffixes: tuple[str, ...]
  open: Callable[
      [pathlib.Path], AbstractContextManager[dict[str, StoredTensor]]
  ]
  tensor_name: Callable[[tuple[str, ...]], str]
  kernel_axes: Mapping[int, tuple[int, ...]]


def _torchvision_name(path: tuple[str, ...]) -> str:
  *layers, leaf = path
  return ".".join(layers).replace("_", ".") + "." + _TORCH_LEAVES[leaf]


# torch stores `[out, in, height, width]` and `[out, in]`.
TORCHVISION = WeightLayout(
    (".safetensors",),
    open_safetensors,
    _torchvision_name,
    {4: (3, 2, 0, 1), 2: (1, 0)},
)
KERAS = WeightLayout((".h5", ".hdf5"), open_keras_hdf5, "/".join, {})


def load_variables(
    path: pathlib.Path,
    shapes: Mapping[str, Any],
    layout: WeightLayout,
    *,
    unused: str = "",
) -> dict[str, Any]:
  """Reads the variables of a network from a file, or says what is wrong there.

  Args:
    path: The file of weights.
    shapes: The variables as `jax.eval_shape` of the network's `init` gives
      them: a tree of whatever has a `shape`.
    layout: How the file names and lays out its tensors.
    unused: A regular expression; tensors whose whole name it matches may be
      in the file and are not read.

  Returns:
    The same tree with float32 numpy arrays.

  Raises:
    InputError: If the file is missing, damaged or of another kind, or a
      tensor is missing, not known, wrongly shaped, not float, or not finite;
      names the tensor.
  """
  _check_file(path, layout)
  leaves = traverse_util.flatten_dict(shapes)
  names = {place: layout.tensor_name(place[1:]) for place in leaves}
  with layout.open(path) as stored:
    _check_names(path, set(names.values()), set(stored), unused)
    axes = {
        place: _stored_axes(place, leaf.shape, layout)
        for place, leaf in leaves.items()
    }
    for place, leaf in leaves.items():
      shape = tuple(leaf.shape[axis] for axis in axes[place])
      _check_tensor(path, names[place], stored[names[place]], shape)
    arrays = {
        place: _read(path, name, stored[name], axes[place])
        for place, name in names.items()
    }
  return traverse_util.unflatten_dict(arrays)


def _stored_axes(
    place: tuple[str, ...], shape: tuple[int, ...], layout: WeightLayout
) -> tuple[int, ...]:
  as_it_is = tuple(range(len(shape)))
  if place[-1] != "kernel":
    return as_it_is
  return layout.kernel_axes.get(len(shape), as_it_is)


def _check_file(path: pathlib.Path, layout: WeightLayout) -> None:
  if not path.is_file():
    raise InputError(
        f"{path}: must be a file of weights, got none; check the path."
    )
  if path.suffix.lower() in layout.suffixes:
    return
  refuse_pickle(path)
  raise InputError(
      f"{path}: weights of this backbone must be in a"
      f" {' or '.join(layout.suffixes)} file, got {path.suffix or 'no suffix'};"
      f" {_RIGHT_FILE}."
  )


def _check_names(
    path: pathlib.Path, expected: set[str], stored: set[str], unused: str
) -> None:
  missing = sorted(expected - stored)
  if missing:
    raise InputError(
        f"{path}: must hold every tensor of the network, but {_some(missing)}"
        f" missing; {_RIGHT_FILE}."
    )
  extra = sorted(
      name for name in stored - expected if not re.fullmatch(unused, name)
  )
  if extra:
    raise InputError(
        f"{path}: must hold no tensor but the network's, but {_some(extra)} not"
        f" part of it; {_RIGHT_FILE}."
    )


def _some(names: list[str]) -> str:
  """Names the first, counts the others, and adds the verb."""
  if len(names) == 1:
    return f"{names[0]!r} is"
  return f"{names[0]!r} and {len(names) - 1} more are"


def _check_tensor(
    path: pathlib.Path, name: str, tensor: StoredTensor, shape: tuple[int, ...]
) -> None:
  if tuple(tensor.shape) != shape:
    raise InputError(
        f"{path}: tensor {name!r} must have the shape {list(shape)}, got"
        f" {list(tensor.shape)}; {_RIGHT_FILE}."
    )
  if tensor.dtype not in _FLOATS:
    raise InputError(
        f"{path}: tensor {name!r} must be {', '.join(_FLOATS[:-1])} or"
        f" {_FLOATS[-1]}, got {tensor.dtype}; convert it before saving."
    )


def _read(
    path: pathlib.Path, name: str, tensor: StoredTensor, axes: tuple[int, ...]
) -> np.ndarray:
  with np.errstate(over="ignore"):  # Too large for float32 is found below.
    array = tensor.read().astype(np.float32)
  finite = np.isfinite(array)
  if not finite.all():
    raise InputError(
        f"{path}: tensor {name!r} must be finite in float32, got"
        f" {array[~finite].flat[0]} among its {array.size} values; take an"
        " undamaged file."
    )
  return np.ascontiguousarray(array.transpose(np.argsort(axes)))
