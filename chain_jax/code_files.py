"""Reads and checks the files of a code directory, one at a time.

Every kind of damage ends as one `InputError` that names the file. Use
`codes.read_code_directory`; this module is its inside.
"""

import hashlib
import json
import pathlib
import zipfile
from typing import Any

import numpy as np

from chain_jax.errors import InputError
from chain_jax.labels import Labels

FORMAT_VERSION = 1
BIT_ORDER = "first bit highest, 1 for +1"

# All that `np.load` raises on damaged bytes without pickles.
_LOAD_ERRORS = (
    ValueError,
    OSError,
    EOFError,
    KeyError,
    MemoryError,
    SyntaxError,
    zipfile.BadZipFile,
)
_REBUILD = "export the codes again"


def file_checksum(file: pathlib.Path) -> str:
  """Returns the sha256 of a file's bytes, in hex."""
  with file.open("rb") as opened:
    return hashlib.file_digest(opened, "sha256").hexdigest()


def check_lengths(
    packed: np.ndarray, ids: np.ndarray, labels: Labels | None, *, where: str
) -> None:
  """Raises `InputError` unless codes, ids and labels have one length."""
  lengths = {"codes": len(packed), "ids": len(ids)}
  if labels is not None:
    lengths["labels"] = labels.num_videos
  if len(set(lengths.values())) > 1:
    raise InputError(
        f"{where}: codes, ids and labels must be of one length, got"
        f" {lengths}; {_REBUILD}."
    )


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
  """Reads `manifest.json` and checks the fields that the format promises."""
  if not folder.is_dir():
    raise InputError(
        f"{folder}: must be a code directory, but no such directory exists;"
        " give a folder that `--mode=export` wrote."
    )
  file = _existing(folder, "manifest.json")
  try:
    manifest = json.loads(file.read_text(encoding="utf-8"))
  except (ValueError, OSError) as error:
    raise InputError(
        f"{file}: must be JSON, but {error}; {_REBUILD}."
    ) from None
  if not isinstance(manifest, dict):
    raise InputError(f"{file}: must be a JSON object; {_REBUILD}.")
  _check_field(file, manifest, "format_version", FORMAT_VERSION)
  _check_field(file, manifest, "bit_order", BIT_ORDER)
  num_bits = manifest.get("num_bits")
  if not isinstance(num_bits, int) or num_bits <= 0 or num_bits % 8:
    raise InputError(
        f"{file}: `num_bits` must be a positive multiple of 8, got"
        f" {num_bits!r}; {_REBUILD}."
    )
  if not isinstance(manifest.get("checksums", {}), dict):
    raise InputError(f"{file}: `checksums` must be an object; {_REBUILD}.")
  return manifest


def read_codes(folder: pathlib.Path, manifest: dict[str, Any]) -> np.ndarray:
  """Reads `codes.npy`: uint8 `[count, num_bits // 8]`."""
  packed = _load(folder, "codes.npy", manifest)
  file = folder / "codes.npy"
  shape = (manifest.get("count"), manifest["num_bits"] // 8)
  if packed.dtype != np.uint8 or packed.shape != shape:
    raise InputError(
        f"{file}: must be uint8 {list(shape)} as manifest.json says, got"
        f" {packed.dtype} {list(packed.shape)}; {_REBUILD}."
    )
  packed = np.ascontiguousarray(packed)
  checksum = hashlib.sha256(packed.data).hexdigest()
  if checksum != manifest.get("checksum"):
    raise InputError(
        f"{file}: must match the checksum in manifest.json"
        f" ({str(manifest.get('checksum'))[:12]}), got {checksum[:12]};"
        f" {_REBUILD}."
    )
  return packed


def read_ids(folder: pathlib.Path, manifest: dict[str, Any]) -> np.ndarray:
  """Reads `ids.npy`: fixed-width Unicode `[count]`."""
  ids = _load(folder, "ids.npy", manifest)
  if ids.dtype.kind != "U" or ids.ndim != 1:
    raise InputError(
        f"{folder / 'ids.npy'}: must be Unicode [n], got {ids.dtype}"
        f" {list(ids.shape)}; {_REBUILD}."
    )
  return ids


def read_labels(
    folder: pathlib.Path, manifest: dict[str, Any]
) -> Labels | None:
  """Reads `labels.npz`, or returns None where the split has no labels."""
  file = folder / "labels.npz"
  promised = "labels.npz" in manifest.get("checksums", {})
  if not file.exists() and not promised:
    return None
  arrays = _load(folder, "labels.npz", manifest)
  try:
    indptr, indices = arrays["indptr"], arrays["indices"]
    labels = Labels(
        indptr.astype(np.int64, casting="safe"),
        indices.astype(np.int64, casting="safe"),
        int(arrays["num_classes"]),
    )
  except (KeyError, TypeError, ValueError) as error:
    reason = " ".join(str(error).split())
    raise InputError(
        f"{file}: must hold integers `indptr`, `indices` and `num_classes`,"
        f" but {reason}; {_REBUILD}."
    ) from None
  _check_labels(file, labels)
  return labels


def _check_labels(file: pathlib.Path, labels: Labels) -> None:
  indptr, indices = labels.indptr, labels.indices
  if (
      indptr.ndim != 1
      or indices.ndim != 1
      or len(indptr) == 0
      or indptr[0] != 0
      or indptr[-1] != len(indices)
      or np.any(np.diff(indptr) < 0)
  ):
    raise InputError(
        f"{file}: `indptr` must rise from 0 to the {indices.size} labels;"
        f" {_REBUILD}."
    )
  is_first = np.zeros(len(indices), bool)
  is_first[indptr[:-1][np.diff(indptr) > 0]] = True
  if np.any((np.diff(indices, prepend=-1) <= 0) & ~is_first):
    raise InputError(
        f"{file}: the labels of a video must rise and each stand once;"
        f" {_REBUILD}."
    )
  wrong = indices[(indices < 0) | (indices >= labels.num_classes)]
  if wrong.size:
    raise InputError(
        f"{file}: labels must be in 0 to {labels.num_classes - 1}, got"
        f" {wrong[0]}; {_REBUILD}."
    )


def _load(folder: pathlib.Path, name: str, manifest: dict[str, Any]) -> Any:
  """Loads an array, or a dict of arrays for `.npz`, never a pickle."""
  file = _existing(folder, name)
  expected = manifest.get("checksums", {}).get(name)
  try:
    checksum = file_checksum(file)
    if expected is not None and checksum != expected:
      raise InputError(
          f"{file}: must match its checksum in manifest.json"
          f" ({str(expected)[:12]}), got {checksum[:12]}; {_REBUILD}."
      )
    loaded = np.load(file, allow_pickle=False)
    if isinstance(loaded, np.ndarray) != (file.suffix == ".npy"):
      raise ValueError(f"not a {file.suffix} file")
    if file.suffix == ".npy":
      return loaded
    with loaded:
      return dict(loaded)
  except InputError:
    raise
  except _LOAD_ERRORS as error:
    reason = " ".join(str(error).split()) or type(error).__name__
    raise InputError(f"{file}: cannot be read: {reason}; {_REBUILD}.") from None


def _existing(folder: pathlib.Path, name: str) -> pathlib.Path:
  file = folder / name
  if not file.is_file():
    raise InputError(f"{file}: a code directory needs it; {_REBUILD}.")
  return file


def _check_field(
    file: pathlib.Path, manifest: dict[str, Any], field: str, expected: Any
) -> None:
  if manifest.get(field) != expected:
    raise InputError(
        f"{file}: `{field}` must be {expected!r}, got"
        f" {manifest.get(field)!r}; {_REBUILD} with this version."
    )
