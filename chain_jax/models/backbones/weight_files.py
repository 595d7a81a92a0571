"""Opens files of weights: safetensors, and Keras HDF5; never a pickle.

Safetensors are opened by names, shapes and types only, so that a file can be
refused before its numbers are read. HDF5 is read in a process of its own, which
a damaged file may crash or hang.
"""

import contextlib
import math
import pathlib
import shlex
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import h5py
import numpy as np

from chain_jax.errors import InputError, one_line
from chain_jax.guarded import call_guarded

# Suffixes of files that torch and others write with pickle inside.
PICKLE_SUFFIXES = (".pth", ".pt", ".pkl", ".pickle", ".bin", ".ckpt", ".tar")
_COPY_AGAIN = "copy or download it again"
# Names of layers fill some kilobytes; HDF5 keeps no attribute above 64 KiB.
_MAX_ATTRIBUTE_BYTES = 2**16
_SAFETENSORS_DTYPES = {"F16": "float16", "F32": "float32", "F64": "float64"}


class StoredTensor(NamedTuple):
  """A tensor that is still in its file.

  Attributes:
    shape: As stored.
    dtype: numpy's name for it, or the file's own where numpy has none.
    read: Returns the array; works while the file is open. Raises `InputError`
      if the file is damaged there.
  """

  shape: tuple[int, ...]
  dtype: str
  read: Callable[[], Any]


def refuse_pickle(path: pathlib.Path) -> None:
  """Raises `InputError`, with the way to convert it, for a pickle by its name.

  A pickle can run any program while it is read, so none is.
  """
  if path.suffix.lower() not in PICKLE_SUFFIXES:
    return
  program = (
      "import sys, torch; from safetensors.torch import save_file;"
      " save_file(torch.load(sys.argv[1], weights_only=True), sys.argv[2])"
  )
  old, new = (shlex.quote(str(p)) for p in (path, path.with_suffix("")))
  raise InputError(
      f"{path}: weights must be safetensors or HDF5, got {path.suffix}, which"
      " may hold a pickle; convert it where torch is installed: python -c"
      f' "{program}" {old} {new}.safetensors'
  )


@contextlib.contextmanager
def open_safetensors(path: pathlib.Path) -> Iterator[dict[str, StoredTensor]]:
  """Opens a safetensors file.

  Yields:
    Its tensors by name.

  Raises:
    InputError: If the file is damaged, or the package is not installed.
  """
  try:
    import safetensors
  except ImportError as error:
    raise InputError(
        f"{path}: reading it needs the package safetensors, which is not"
        " installed; run pip install 'chain_jax[video]'."
    ) from error
  try:
    file = safetensors.safe_open(path, framework="numpy")
  except (safetensors.SafetensorError, OSError) as error:
    raise _damaged(path, "safetensors", error) from error

  def stored(name: str) -> StoredTensor:
    def read() -> np.ndarray:
      try:
        return file.get_tensor(name)
      except (safetensors.SafetensorError, OSError) as error:
        raise _damaged(path, "safetensors", error) from error

    header = file.get_slice(name)
    dtype = header.get_dtype()
    return StoredTensor(
        tuple(header.get_shape()), _SAFETENSORS_DTYPES.get(dtype, dtype), read
    )

  with file:
    yield {name: stored(name) for name in file.keys()}


@contextlib.contextmanager
def open_keras_hdf5(path: pathlib.Path) -> Iterator[dict[str, StoredTensor]]:
  """Opens a file that Keras' `save_weights` wrote.

  Keras lists the weights of a layer in the attribute `weight_names`, the
  kernel first, then the bias; their own names are arbitrary.

  Yields:
    Its tensors by `<layer>/kernel` and `<layer>/bias`.

  Raises:
    InputError: If the file is damaged or laid out otherwise.
  """
  arrays = call_guarded(
      _read_keras,
      path,
      must_be="a whole HDF5 file with the layers that Keras' `save_weights`"
      " writes",
      way_out=_COPY_AGAIN,
  )
  yield {
      name: StoredTensor(
          array.shape,
          array.dtype.newbyteorder("=").name,
          lambda array=array: array,
      )
      for name, array in arrays.items()
  }


def _read_keras(path: str) -> dict[str, np.ndarray]:
  arrays = {}
  with h5py.File(path, "r") as file:
    for layer in _texts(file, "layer_names"):
      group = file[layer]
      for place, key in enumerate(_texts(group, "weight_names")):
        last = ("kernel", "bias")[place] if place < 2 else f"weight{place}"
        dataset = group[key]
        if dataset.shape is None or dataset.dtype.kind not in "biuf":
          raise ValueError(f"{layer}/{last} holds no numbers")
        arrays[f"{layer}/{last}"] = dataset[()]
  return arrays


def _texts(node: h5py.Group, attribute: str) -> list[str]:
  # A damaged shape would have h5py fill the memory before it reads.
  header = node.attrs.get_id(attribute)
  num_bytes = math.prod(header.shape or ()) * header.dtype.itemsize
  if num_bytes > _MAX_ATTRIBUTE_BYTES:
    raise ValueError(f"{attribute} of {num_bytes} bytes")
  values = node.attrs[attribute]
  return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def _damaged(path: pathlib.Path, kind: str, error: Exception) -> InputError:
  return InputError(
      f"{path}: must be a whole {kind} file, got damaged or other data"
      f" ({path.stat().st_size} bytes; {one_line(error)}); {_COPY_AGAIN}."
  )
