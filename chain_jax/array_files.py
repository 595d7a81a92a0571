"""Arrays in .npy and .npz files, whoever wrote them.

Sizes are checked in the headers before memory is taken for them: a header must
tell of just the bytes that are there, and an .npz must not unpack to much more
than the file itself. Only what is asked for is read. Nothing is unpickled.
"""

import math
import os
import pathlib
import stat
import weakref
import zipfile
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Shaped

from chain_jax import errors

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# Those that np.savez and np.savez_compressed use. `zipfile` unpacks others
# without a bound.
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What may be unpacked, in bytes and as a multiple of the file. Deflate packs
# up to 1032 times; ids and labels of real sets 3 to 10 times.
_MOST_BYTES, _MOST_TIMES = 2**28, 100
_CHUNK = 2**24


class Rows:
  """The rows of a .npy file, each read when it is asked for.

  By plain reads: where a file that is mapped into memory is cut, the whole
  process dies.

  Attributes:
    shape: Of the whole array.
    dtype: Of the array.
  """

  def __init__(self, path: str | os.PathLike[str], **words: str):
    """Opens a file.

    Args:
      path: The file.
      **words: `must_be` and `way_out` of `errors.reading`.

    Raises:
      InputError: If it is no array of numbers or text, or not whole.
    """
    self._path, self._words = pathlib.Path(path), words
    with errors.reading(path, **words), _opened(self._path) as file:
      self._header = _read_header(file, _size(file))
      self._file = os.dup(file.fileno())
      weakref.finalize(self, os.close, self._file)
    self.shape, self.dtype = self._header.shape, self._header.dtype

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, row: int) -> Shaped[np.ndarray, "*shape"]:
    """Reads one row.

    Raises:
      InputError: If the file was cut meanwhile.
    """
    row = range(len(self))[row]
    with errors.reading(self._path, **self._words):
      if self._header.is_fortran:
        return self._gather(row)
      values = np.empty(self.shape[1:], self.dtype)
      place = self._header.start + row * values.nbytes
      _fill(values, lambda done, size: os.pread(self._file, size, place + done))
      _check_text(values)
      return values

  def _gather(self, row: int) -> np.ndarray:
    """Picks a row's values out of a file that holds the last axis first."""
    # Mapped, for they lie apart: so it must at least be whole before.
    num_bytes = self._header.start + self._header.num_bytes
    if os.fstat(self._file).st_size < num_bytes:
      raise ValueError("it was cut")
    with os.fdopen(os.dup(self._file), "rb") as file:
      header = self._header
      mapped = np.memmap(
          file, self.dtype, "r", header.start, self.shape, order="F"
      )
      return np.array(mapped[row])


def read_npy(
    path: str | os.PathLike[str], *, must_be: str, way_out: str
) -> Shaped[np.ndarray, "..."]:
  """Reads a .npy file.

  Args:
    path: The file.
    must_be: As of `errors.reading`.
    way_out: As of `errors.reading`.

  Raises:
    InputError: If it is no array of numbers or text, or not whole.
  """
  with (
      errors.reading(path, must_be=must_be, way_out=way_out),
      _opened(pathlib.Path(path)) as file,
  ):
    return _read_array(file, _size(file))


def read_npz(
    path: str | os.PathLike[str],
    names: Sequence[str],
    *,
    optional: Sequence[str] = (),
    must_be: str,
    way_out: str,
) -> dict[str, Shaped[np.ndarray, "..."]]:
  """Reads some arrays of an .npz file.

  Args:
    path: The file.
    names: Arrays that it must hold.
    optional: Arrays that are read where it holds them.
    must_be: As of `errors.reading`.
    way_out: As of `errors.reading`.

  Raises:
    InputError: If one is missing, no array of numbers or text, or not whole,
      or all of them are much larger than the file.
  """
  with (
      errors.reading(path, must_be=must_be, way_out=way_out),
      _opened(pathlib.Path(path)) as file,
      zipfile.ZipFile(file) as archive,
  ):
    members = {
        member.filename.removesuffix(".npy"): member
        for member in archive.infolist()
    }
    for name in names:
      if name not in members:
        found = ", ".join(sorted(members)) or "none"
        raise ValueError(f"it must hold an array {name!r}, got {found}")
    wanted = {n: members[n] for n in (*names, *optional) if n in members}
    num_bytes = sum(member.file_size for member in wanted.values())
    if num_bytes > most_unpacked(_size(file)):
      raise ValueError(f"it unpacks to {num_bytes} bytes, which are too many")
    return {
        name: _read_member(archive, member) for name, member in wanted.items()
    }


def write_npz(file: BinaryIO, arrays: dict[str, Any]) -> None:
  """Writes arrays for `read_npz`: packed, unless they pack too well for it."""
  np.savez_compressed(file, **arrays)
  num_bytes = sum(np.asarray(values).nbytes for values in arrays.values())
  if num_bytes + _CHUNK > most_unpacked(file.tell()):
    file.seek(0)
    file.truncate()
    np.savez(file, **arrays)


def most_unpacked(num_bytes: int) -> int:
  """Returns to how many bytes a file may unpack, by its size.

  >>> most_unpacked(4 * 10**6)
  400000000
  """
  return max(_MOST_BYTES, _MOST_TIMES * num_bytes)


class _Header(NamedTuple):
  """What stands before the values of an array."""

  shape: tuple[int, ...]
  is_fortran: bool
  dtype: np.dtype
  start: int  # Of the values, in bytes.

  @property
  def num_bytes(self) -> int:
    """How many bytes the values take."""
    return math.prod(self.shape) * self.dtype.itemsize


def _opened(path: pathlib.Path) -> BinaryIO:
  # Opening a pipe would wait for its other end.
  if not stat.S_ISREG(path.stat().st_mode):
    raise ValueError("it is no file")
  return path.open("rb")


def _size(file: BinaryIO) -> int:
  return os.fstat(file.fileno()).st_size


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo
) -> np.ndarray:
  if member.compress_type not in _PACKINGS:
    raise ValueError(f"{member.filename} is packed by an unknown method")
  with archive.open(member) as stream:
    return _read_array(stream, member.file_size)


def _read_array(stream: BinaryIO | zipfile.ZipExtFile, size: int) -> np.ndarray:
  header = _read_header(stream, size)
  if not header.num_bytes:
    return np.zeros(header.shape, header.dtype)
  values = np.empty(math.prod(header.shape), header.dtype)
  _fill(values, lambda _, count: stream.read(count))
  _check_text(values)
  return values.reshape(header.shape, order="F" if header.is_fortran else "C")


def _read_header(stream: BinaryIO | zipfile.ZipExtFile, size: int) -> _Header:
  """Reads a header; refuses one that does not fit the size of the whole."""
  version = np.lib.format.read_magic(stream)
  if version not in _HEADERS:
    raise ValueError(f"arrays of format {version} are not known")
  header = _Header(*_HEADERS[version](stream), stream.tell())
  if header.dtype.kind not in "biufcSU":
    raise ValueError(f"it holds {header.dtype}, neither numbers nor text")
  # An axis of length 0 lets the others be of any length.
  axes = [max(length, 1) for length in header.shape]
  if (
      min(header.shape, default=0) < 0
      or header.start + header.num_bytes != size
      or math.prod(axes) * header.dtype.itemsize > max(size, _MOST_BYTES)
      or math.prod(axes) > max(size, _MOST_BYTES)
  ):
    raise ValueError(
        f"its header tells of {header.dtype} {list(header.shape)}, which are"
        f" not the {size - header.start} bytes that follow"
    )
  return header


def _fill(values: np.ndarray, read: Callable[[int, int], bytes]) -> None:
  """Fills an array with bytes from `read(how many are there, how many)`."""
  target, done = values.reshape(-1).view(np.uint8), 0
  while done < len(target):
    part = read(done, min(_CHUNK, len(target) - done))
    if not part:
      raise ValueError(f"it ends {len(target) - done} bytes too early")
    target[done : done + len(part)] = np.frombuffer(part, np.uint8)
    done += len(part)


def _check_text(values: np.ndarray) -> None:
  """Refuses text with what is no character: it could not be printed."""
  if values.dtype.kind != "U" or not values.size:
    return
  width = values.dtype.itemsize // 4
  codes = values.reshape(-1).view(
      np.dtype(np.uint32).newbyteorder(values.dtype.byteorder)
  )
  places = np.flatnonzero(codes > 0xD7FF)
  high = codes[places]
  wrong = (high < 0xE000) | (high > 0x10FFFF)
  if wrong.any():
    place = places[np.argmax(wrong)]
    raise ValueError(
        f"text must be UTF-8, got U+{codes[place]:X} in item {place // width}"
    )
