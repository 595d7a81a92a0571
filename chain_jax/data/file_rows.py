"""Videos that lie in one piece of a file."""

import math
import mmap
import os
import pathlib
import weakref

import numpy as np
from jaxtyping import Integer, Num

from chain_jax import errors
from chain_jax.data.records import check_finite
from chain_jax.errors import InputError


class FileRows:
  """Videos one after another in a file, also mapped into memory.

  Each is first read by its place, checked for NaN and infinity, and only then
  looked at through the map, which is faster for chosen frames. For where a disk
  fails or a file ends too early, reading gives an error, and touching the map
  ends the process.

  Safe between threads, and after pickling or forking.
  """

  def __init__(
      self,
      path: pathlib.Path,
      dtype: np.dtype,
      shape: tuple[int, ...],
      offset: int,
  ):
    """Opens the file.

    Args:
      path: Of the file.
      dtype: Of the values.
      shape: `[n, frames, ..., dim]`.
      offset: Of the first value in the file; a multiple of its size.

    Raises:
      InputError: If it cannot be opened, or is too short.
    """
    self.path, self.dtype, self.shape = path, dtype, shape
    self._offset = offset
    self._row_bytes = math.prod(shape[1:]) * dtype.itemsize
    with errors.reading(path, must_be="a file", way_out="check it"):
      self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
      weakref.finalize(self, os.close, self._descriptor)
      self._memory = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)
    self._check_length()
    values = np.frombuffer(
        self._memory, dtype, count=math.prod(shape), offset=offset
    )
    # In this process, by this object.
    self._is_checked = np.zeros(shape[0], np.bool_)
    self._flat = values.reshape(-1, shape[-1])

  def __reduce__(self) -> tuple:
    return FileRows, (self.path, self.dtype, self.shape, self._offset)

  def read(self, start: int, stop: int) -> Num[np.ndarray, "rows *video dim"]:
    """Reads the videos `start .. stop - 1`.

    Raises:
      InputError: If the file is too short now, cannot be read, or a value is
        not finite.
    """
    block = np.empty((stop - start, *self.shape[1:]), self.dtype)
    left = memoryview(block.reshape(-1).view(np.uint8))
    position = self._offset + start * self._row_bytes
    where = f"{self.path}: rows {start} .. {stop - 1}"
    with errors.reading(where, must_be="readable", way_out="copy it again"):
      while left:
        num_bytes = os.preadv(self._descriptor, [left], position)
        if not num_bytes:
          self._check_length()
          raise EOFError("the file ends there")
        left, position = left[num_bytes:], position + num_bytes
    for row in np.flatnonzero(~self._is_checked[start:stop]).tolist():
      check_finite(block[row], video=f"{self.path}, row {start + row}")
      self._is_checked[start + row] = True
    return block

  def all_frames(
      self, videos: Integer[np.ndarray, "n"]
  ) -> Num[np.ndarray, "rows dim"]:
    """Returns the map of all frames, once `videos` are known to be good.

    Raises:
      InputError: As `read` does.
    """
    for video in videos[~self._is_checked[videos]].tolist():
      self.read(video, video + 1)
    self._check_length()
    return self._flat

  def _check_length(self) -> None:
    end = self._offset + self.shape[0] * self._row_bytes
    if self._memory.size() < end:
      raise InputError(
          f"{self.path} must stay whole while it is read, got"
          f" {self._memory.size()} bytes of at least {end}; copy it again, and"
          " write new features under another name."
      )
