"""Reads and checks the files of a code directory, one at a time.

Every kind of damage ends as one `InputError` that names the file. Use
`codes.read_code_directory`; this module is its inside.
"""

import hashlib
import pathlib
from typing import Any

import numpy as np

from chain_jax import array_files, errors, whole_files
from chain_jax.errors import InputError
from chain_jax.labels import Labels

FORMAT_VERSION = 1
BIT_ORDER = "first bit highest, 1 for +1"

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
  manifest = whole_files.read_json(
      file, must_be="a JSON object", way_out=_REBUILD
  )
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
  file = _checked(folder, "codes.npy", manifest)
  packed = array_files.read_npy(
      file, must_be="an array of codes", way_out=_REBUILD
  )
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
  file = _checked(folder, "ids.npy", manifest)
  ids = array_files.read_npy(
      file, must_be="an array of names", way_out=_REBUILD
  )
  if ids.dtype.kind != "U" or ids.ndim != 1:
    raise InputError(
        f"{file}: must be Unicode [n], got {ids.dtype}"
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
  words = {
      "must_be": "integers `indptr`, `indices` and `num_classes` of labels",
      "way_out": _REBUILD,
  }
  arrays = array_files.read_npz(
      _checked(folder, "labels.npz", manifest), Labels._fields, **words
  )
  with errors.reading(file, **words):
    return Labels.from_file(**arrays)


def _checked(
    folder: pathlib.Path, name: str, manifest: dict[str, Any]
) -> pathlib.Path:
  """Names a file that matches its checksum, where the manifest has one."""
  file = _existing(folder, name)
  expected = manifest.get("checksums", {}).get(name)
  with errors.reading(file, must_be="a file", way_out=_REBUILD):
    checksum = file_checksum(file)
  if expected is not None and checksum != expected:
    raise InputError(
        f"{file}: must match its checksum in manifest.json"
        f" ({str(expected)[:12]}), got {checksum[:12]}; {_REBUILD}."
    )
  return file


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
