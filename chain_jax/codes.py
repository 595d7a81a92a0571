"""Binary codes: signs, packed bytes and the code directory on disk.

A code directory holds

    codes.npy      uint8 [n, num_bits // 8], the first bit in the highest place
    ids.npy        fixed-width Unicode [n]
    labels.npz     indptr, indices, num_classes; only when labels are known
    manifest.json  format version, num_bits, count, checksums, where it is from

Nothing in it is pickled. FAISS binary indexes take `codes.npy` as it is.
"""

import hashlib
import json
import os
import pathlib
import shutil
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int8, UInt8

from chain_jax import code_files, errors, provenance, whole_files
from chain_jax.errors import InputError
from chain_jax.labels import Labels


class CodeSet(NamedTuple):
  """The codes of one split, as a code directory holds them."""

  packed: UInt8[np.ndarray, "n num_bytes"]
  ids: np.ndarray  # Unicode [n].
  labels: Labels | None
  manifest: dict[str, Any]

  @property
  def num_bits(self) -> int:
    """Code length in bits."""
    return 8 * self.packed.shape[1]


def binarise(
    hash_logits: Float[np.ndarray, "*batch num_bits"],
) -> Int8[np.ndarray, "*batch num_bits"]:
  """Takes signs; zero, of either sign, becomes +1.

  Args:
    hash_logits: Any float dtype.

  Returns:
    int8, each +1 or -1.

  Raises:
    ValueError: If a value is NaN, which has no sign.

  >>> binarise(np.array([[0.5, 0.0, -0.0, -3.0]])).tolist()
  [[1, 1, 1, -1]]
  """
  if np.isnan(hash_logits).any():
    raise ValueError("`hash_logits` must hold numbers, got NaN.")
  return np.where(hash_logits >= 0, np.int8(1), np.int8(-1))


def pack_bits(
    codes: Int8[np.ndarray, "*batch num_bits"],
) -> UInt8[np.ndarray, "*batch num_bytes"]:
  """Packs eight signs into a byte: first bit highest, 1 for +1.

  Args:
    codes: int8, each +1 or -1.

  Returns:
    uint8 `[..., num_bits // 8]`.

  Raises:
    InputError: If `num_bits` is not a multiple of 8.
    ValueError: If a value is neither +1 nor -1.

  >>> pack_bits(np.array([[1, -1, -1, -1, -1, -1, -1, 1]], np.int8)).tolist()
  [[129]]
  """
  num_bits = codes.shape[-1]
  if num_bits % 8:
    raise InputError(
        f"`num_bits` must be a multiple of 8, got {num_bits}; try"
        f" {num_bits + 8 - num_bits % 8}."
    )
  if not np.all(np.abs(codes) == 1):
    raise ValueError("`codes` must be +1 or -1 throughout; use `binarise`.")
  return np.packbits(codes > 0, axis=-1)


def unpack_bits(
    packed: UInt8[np.ndarray, "*batch num_bytes"],
) -> Int8[np.ndarray, "*batch num_bits"]:
  """Undoes `pack_bits`.

  >>> unpack_bits(np.array([[129]], np.uint8)).tolist()
  [[1, -1, -1, -1, -1, -1, -1, 1]]
  """
  bits = np.unpackbits(packed, axis=-1).astype(np.int8)
  return 2 * bits - 1


def write_code_directory(
    path: str | os.PathLike[str],
    *,
    packed: UInt8[np.ndarray, "n num_bytes"],
    ids: np.ndarray,
    labels: Labels | None,
    manifest: dict[str, Any],
) -> None:
  """Writes a code directory in one step; an existing one is replaced.

  The files are written to a hidden folder beside `path`, flushed to disk and
  then renamed, so no reader finds half a directory. One writer per `path`.

  Args:
    path: The directory; its parents are made where missing.
    packed: From `pack_bits`.
    ids: str `[n]`.
    labels: Of the `n` videos, or None when unknown.
    manifest: What the caller knows (config, method, step, seed, split, ...);
      JSON values. The format's own fields are filled in and win.

  Raises:
    InputError: If lengths differ, or `path` exists and holds something else.
    RunError: If the disk is full or `path` cannot be written.
  """
  path = pathlib.Path(path).resolve()
  ids = np.asarray(ids, dtype=np.str_)
  code_files.check_lengths(packed, ids, labels, where=str(path))
  _check_replaceable(path)
  partial = path.with_name(f".{path.name}.partial")
  previous = path.with_name(f".{path.name}.previous")
  with errors.writing(path, way_out="make room for it, what was there stays"):
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(partial)
    try:
      partial.mkdir()
      _write_files(partial, packed, ids, labels, manifest)
      _remove(previous)
      if path.exists():
        path.rename(previous)
      partial.rename(path)
    finally:
      _remove(partial)
    _remove(previous)


def read_code_directory(path: str | os.PathLike[str]) -> CodeSet:
  """Reads a code directory and checks all of it.

  Args:
    path: A directory written by `write_code_directory`, or made by hand to
      the same format (`checksums` may be absent then).

  Returns:
    Its codes, ids, labels (None when it has none) and manifest.

  Raises:
    InputError: If anything is missing, damaged or contradictory; one line
      that names the file.
  """
  path = pathlib.Path(path)
  manifest = code_files.read_manifest(path)
  packed = code_files.read_codes(path, manifest)
  ids = code_files.read_ids(path, manifest)
  labels = code_files.read_labels(path, manifest)
  code_files.check_lengths(packed, ids, labels, where=str(path))
  return CodeSet(packed, ids, labels, manifest)


def _write_files(
    folder: pathlib.Path,
    packed: np.ndarray,
    ids: np.ndarray,
    labels: Labels | None,
    manifest: dict[str, Any],
) -> None:
  packed = np.ascontiguousarray(packed)
  np.save(folder / "codes.npy", packed, allow_pickle=False)
  np.save(folder / "ids.npy", ids, allow_pickle=False)
  if labels is not None:
    np.savez_compressed(folder / "labels.npz", **labels._asdict())
  filled = {
      "git_commit": manifest.get("git_commit") or provenance.git_commit(),
      "format_version": code_files.FORMAT_VERSION,
      "num_bits": 8 * packed.shape[1],
      "bit_order": code_files.BIT_ORDER,
      "count": len(packed),
      "checksum": hashlib.sha256(packed.data).hexdigest(),
      "checksums": {
          file.name: code_files.file_checksum(file)
          for file in sorted(folder.iterdir())
      },
      "package_versions": provenance.package_versions(),
  }
  text = json.dumps(manifest | filled, indent=2, allow_nan=False) + "\n"
  (folder / "manifest.json").write_text(text, encoding="utf-8")
  # The rename must not reach the disk before the contents.
  for file in [*folder.iterdir(), folder]:
    whole_files.flush(file)


def _check_replaceable(path: pathlib.Path) -> None:
  """Refuses to replace what is not a code directory."""
  if not path.exists() or (path / "manifest.json").is_file():
    return
  if path.is_dir() and not any(path.iterdir()):
    return
  raise InputError(
      f"{path}: must be a code directory to be replaced, but holds something"
      " else; choose another path."
  )


def _remove(folder: pathlib.Path) -> None:
  if folder.exists():
    shutil.rmtree(folder)
