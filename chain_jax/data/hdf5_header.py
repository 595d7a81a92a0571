"""What an HDF5 file says of its datasets, read in a process of its own.

Only what lies in the file itself is read. A link to another file, values kept
in other files, and views put together from these are refused: HDF5 shows zeros
where such a file is missing, and waits for ever where it is a pipe.
"""

import math
import os
import pathlib
from typing import Any, NamedTuple

import h5py
import numpy as np

from chain_jax.errors import InputError
from chain_jax.guarded import MOST_EXPANSION, call_guarded

FEATURES_KEY = "feats"
_IDS_KEY = "ids"
_MOST_SOFT_LINKS = 16
_COPY = "copy it into one file, for example with `h5repack`"


class Header(NamedTuple):
  """The features of a file.

  Attributes:
    name: Where they lie, by hard links only.
    shape: `[n, frames, dim]` or `[n, frames, variants, dim]`, no 0.
    dtype: float16, float32 or float64 of either byte order.
    chunks: Shape of a chunk; None where there are none.
    offset: Of the first value where all lie in one piece, as `dtype` says.
    num_bytes: Of the file.
    ids: Of the videos, all different; None where the file has none.
  """

  name: str
  shape: tuple[int, ...]
  dtype: np.dtype
  chunks: tuple[int, ...] | None
  offset: int | None
  num_bytes: int
  ids: np.ndarray | None


def read_header(path: pathlib.Path) -> Header:
  """Checks all of a file of features but the features themselves.

  Raises:
    InputError: If it is not such a file.
  """
  found = _call(_describe, path)
  chunks = found["chunks"]
  return Header(
      found["name"],
      tuple(found["shape"]),
      np.dtype(found["dtype"]),
      None if chunks is None else tuple(chunks),
      found["offset"],
      found["num_bytes"],
      found.get("ids"),
  )


def read_arrays(
    path: pathlib.Path, names: tuple[str, ...]
) -> dict[str, np.ndarray]:
  """Reads those of some datasets of numbers that a file has.

  Raises:
    InputError: If one is damaged, or holds something else than numbers.
  """
  return _call(_read_numbers, path, names)


def _call(function: Any, path: pathlib.Path, *arguments: Any) -> dict[str, Any]:
  if not path.is_file():
    raise InputError(f"{path} must be a file, got none; check `data.root`.")
  return call_guarded(
      function,
      path,
      *arguments,
      must_be="a whole HDF5 file",
      way_out="copy it again",
  )


def _describe(path: str) -> dict[str, Any]:
  with h5py.File(path, "r") as file:
    name = _hard_path(file, FEATURES_KEY)
    features = None if name is None else file[name]
    if not isinstance(features, h5py.Dataset):
      keys = ", ".join(sorted(file))[:200] or "none"
      raise InputError(
          f"{path} must hold a dataset {FEATURES_KEY!r}, got {keys}; rename it"
          " there, or check that this is the right file."
      )
    _check_form(path, features)
    _check_place(path, features)
    found = {
        "name": name,
        "shape": features.shape,
        "dtype": features.dtype.str,
        "chunks": features.chunks,
        "offset": _mappable_offset(features),
        "num_bytes": os.path.getsize(path),
    }
    ids = _read_ids(path, file, features.shape[0])
    return found if ids is None else found | {"ids": ids}


def _read_numbers(path: str, names: list[str]) -> dict[str, Any]:
  arrays = {}
  with h5py.File(path, "r") as file:
    for name in names:
      dataset = _member(file, name)
      if dataset is None:
        continue
      if dataset.dtype.kind not in "biuf":
        raise InputError(
            f"{path}: {name!r} must be numbers, got {dataset.dtype}; write it"
            " again as such."
        )
      _check_place(path, dataset)
      arrays[name] = dataset[()]
  return arrays


def _member(file: h5py.File, name: str) -> h5py.Dataset | None:
  name = _hard_path(file, name)
  node = None if name is None else file[name]
  return node if isinstance(node, h5py.Dataset) else None


def _hard_path(file: h5py.File, name: str) -> str | None:
  """Follows soft links; returns a path of hard links, or None if there is none.

  HDF5 would follow links to other files too.

  Raises:
    InputError: If such a link comes up, or soft links lead in a circle.
  """
  path, left, num_soft = "", [name], 0
  while left:
    group, part = file[path or "/"], left.pop(0)
    encoded = part.encode("utf-8", "surrogateescape")
    if not isinstance(group, h5py.Group):
      return None
    if not group.id.links.exists(encoded):
      return None
    kind = group.id.links.get_info(encoded).type
    if kind == h5py.h5l.TYPE_HARD:
      path = f"{path}/{part}"
      continue
    num_soft += 1
    if kind != h5py.h5l.TYPE_SOFT or num_soft > _MOST_SOFT_LINKS:
      raise InputError(
          f"{file.filename}: {name!r} must lie in this file, got a link to"
          f" another file or in a circle; {_COPY}."
      )
    target = group.id.links.get_val(encoded).decode("utf-8", "surrogateescape")
    path = "" if target.startswith("/") else path
    left = [part for part in target.split("/") if part not in ("", ".")] + left
  return path


def _check_form(path: str, features: h5py.Dataset) -> None:
  is_float = features.dtype.kind == "f" and features.dtype.itemsize <= 8
  shape = list(features.shape or [])
  if not is_float or len(shape) not in (3, 4):
    raise InputError(
        f"{path}: {FEATURES_KEY!r} must be float16 or float32 [n, frames, dim]"
        f" or [n, frames, variants, dim], got {features.dtype} of shape"
        f" {shape}; write it again in that form."
    )
  if 0 in shape:
    raise InputError(
        f"{path}: {FEATURES_KEY!r} must hold at least one video, frame and"
        f" dimension, got shape {shape}; extract it again."
    )


def _check_place(path: str, dataset: h5py.Dataset) -> None:
  """Refuses values that lie elsewhere, nowhere, or in far too little room."""
  where = f"{path}: {dataset.name.lstrip('/')!r}"
  plan, file_bytes = dataset.id.get_create_plist(), os.path.getsize(path)
  if plan.get_layout() == h5py.h5d.VIRTUAL or plan.get_external_count():
    raise InputError(
        f"{where} must lie in this file, got values kept in other files;"
        f" {_COPY}."
    )
  shape, itemsize = dataset.shape or (), max(1, dataset.dtype.itemsize)
  chunk_bytes = math.prod(dataset.chunks or ()) * itemsize
  num_bytes = max(math.prod(shape) * itemsize, chunk_bytes)
  filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
  if (
      num_bytes > MOST_EXPANSION * file_bytes
      or (shape and shape[0] > file_bytes)
      or len(set(filters)) < len(filters)
  ):
    raise InputError(
        f"{where} must fit in this file, got {dataset.dtype} of shape"
        f" {list(shape)} ({num_bytes} bytes) in {file_bytes} bytes; write it"
        " again."
    )
  if math.prod(shape) and not _is_written(dataset, file_bytes):
    raise InputError(
        f"{where} must be written for every video, got {dataset.dtype} of shape"
        f" {list(shape)} with values missing; extract it again."
    )


def _is_written(dataset: h5py.Dataset, file_bytes: int) -> bool:
  """Tells whether each row has values in the file, some at least."""
  layout = dataset.id.get_create_plist().get_layout()
  if layout == h5py.h5d.CONTIGUOUS:
    offset = dataset.id.get_offset()
    size = dataset.id.get_storage_size()
    return offset is not None and 0 < size <= file_bytes - offset
  if layout != h5py.h5d.CHUNKED:  # In the header, which has been read.
    return True
  rows = dataset.chunks[0]
  has_chunk = np.zeros(-(-dataset.shape[0] // rows), np.bool_)

  def note(chunk: Any) -> None:
    # HDF5 goes through all of them, so that a loop among them shows here.
    if chunk.byte_offset + chunk.size <= file_bytes:
      has_chunk[chunk.chunk_offset[0] // rows] = True

  dataset.id.chunk_iter(note)
  return bool(has_chunk.all())


def _mappable_offset(features: h5py.Dataset) -> int | None:
  """Returns where in the file the values lie in one piece, if they do."""
  if features.id.get_create_plist().get_layout() != h5py.h5d.CONTIGUOUS:
    return None
  # NumPy has no bfloat16 nor float8: HDF5 turns these into what it has.
  if features.id.get_type() != h5py.h5t.py_create(features.dtype):
    return None
  offset = features.id.get_offset()
  # NumPy would copy all of them first to gather some.
  return None if offset % features.dtype.itemsize else offset


def _read_ids(path: str, file: h5py.File, num_videos: int) -> np.ndarray | None:
  if _hard_path(file, _IDS_KEY) is None:
    return None
  names = _member(file, _IDS_KEY)
  shape = getattr(names, "shape", None)
  if shape != (num_videos,):
    raise InputError(
        f"{path}: {_IDS_KEY!r} must name each of the {num_videos} videos, got"
        f" shape {list(shape or [])}; write both again from one list."
    )
  is_text = h5py.check_string_dtype(names.dtype) is not None
  if not is_text and names.dtype.kind not in "iu":
    raise InputError(
        f"{path}: {_IDS_KEY!r} must be strings, got {names.dtype}; write the"
        " names again as such."
    )
  _check_place(path, names)
  try:
    ids = [v.decode() if isinstance(v, bytes) else str(v) for v in names[()]]
  except UnicodeDecodeError as error:
    raise InputError(
        f"{path}: {_IDS_KEY!r} must be UTF-8, got {error.object[:40]!r}; write"
        " the names again in UTF-8."
    ) from error
  ids = np.array(ids)
  _check_all_differ(path, ids.tolist())
  return ids


def _check_all_differ(path: str, ids: list[str]) -> None:
  first_rows: dict[str, int] = {}
  for row, video_id in enumerate(ids):
    first = first_rows.setdefault(video_id, row)
    if first != row:
      raise InputError(
          f"{path}: {_IDS_KEY!r} must differ from video to video, got"
          f" {video_id[:80]!r} in rows {first} and {row}; leave one of them out."
      )
