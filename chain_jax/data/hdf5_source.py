"""Frame features in one HDF5 file, read by row."""

import math
import os
import pathlib
import threading

import h5py
import numpy as np
from jaxtyping import Int, Integer, Num

from chain_jax import errors
from chain_jax.data import sources
from chain_jax.data.file_rows import FileRows
from chain_jax.data.hdf5_header import read_header
from chain_jax.data.records import IDENTITY, check_finite
from chain_jax.errors import InputError
from chain_jax.labels import Labels

# A block of videos read at once is about this large.
_BLOCK_BYTES = 64 * 2**20
# Room for all chunks that one row touches, so that the next row finds them.
_CHUNK_CACHE_BYTES = (8 * 2**20, 256 * 2**20)  # At least, at most.


class Hdf5Source:
  """Videos of one HDF5 file, read by row.

  Random rows are fastest where the data are contiguous, which is what h5py
  writes unless told otherwise: chosen frames are then copied straight out of
  the file, mapped into memory, and HDF5 has no part in it. With chunks, rows are read whole, which
  is fast where a chunk is a video, `(1, frames, dim)`. Where chunks cross many
  videos, each read unpacks all of these: cache such a file.

  Features are checked for NaN and infinity when a process first asks for
  their video.

  Safe between threads, and after pickling or forking: each process opens the
  file for itself.
  """

  def __init__(self, path: str | os.PathLike, *, labels: Labels | None):
    """Opens the file and checks it, all but the features themselves.

    Args:
      path: With `feats`, float16, float32 or float64 `[n, frames, dim]` or
        `[n, frames, variants, dim]`, and perhaps `ids`, `[n]` strings. Without
        `ids`, a video is called "<file stem>-<row, 6 digits>".
      labels: Of these videos, or None.

    Raises:
      InputError: If the file is not such a one, or has another number of
        videos than `labels`.
    """
    self.path = pathlib.Path(path)
    self.labels = labels
    header = read_header(self.path)
    self.shape, self.dtype = header.shape, header.dtype
    self.feature_dim = self.shape[-1]
    self.num_frames = np.full(self.shape[0], self.shape[1], np.int32)
    self.num_variants = math.prod(self.shape[2:-1])
    self.scaling = IDENTITY
    self.shard_starts = sources.single_shard(self.shape[0])
    self.ids = header.ids
    if self.ids is None:
      names = [f"{self.path.stem}-{row:06d}" for row in range(len(self))]
      self.ids = np.array(names)
    self._rows = None
    if header.offset is not None:
      self._rows = FileRows(self.path, self.dtype, self.shape, header.offset)
    self._name, self._num_bytes = header.name, header.num_bytes
    chunks = header.chunks or (1, *self.shape[1:])
    self.rows_per_block, chunk_bytes = _block_plan(
        self.shape, chunks, self.dtype.itemsize
    )
    # The cache's size can only be chosen when a file is opened.
    self._chunk_cache_bytes = int(np.clip(chunk_bytes, *_CHUNK_CACHE_BYTES))
    self._forget_handle()
    if labels is not None and labels.num_videos != len(self):
      raise InputError(
          f"{self.path} must have one video a row of its label matrix, got"
          f" {len(self)} videos and {labels.num_videos} rows of labels; take"
          " both from the same release."
      )

  def __len__(self) -> int:
    return self.shape[0]

  def __getstate__(self) -> dict:
    state = dict(self.__dict__)
    for name in ("_lock", "_dataset", "_process"):
      del state[name]
    return state

  def __setstate__(self, state: dict):
    self.__dict__.update(state)
    self._forget_handle()

  def read_frames(
      self, video: int
  ) -> Num[np.ndarray, "num_frames *variants dim"]:
    """Reads one video, in the dtype of the file.

    Raises:
      InputError: If the file is damaged there, or a value is not finite.
    """
    return self.read_block(video, video + 1)[0]

  def read_block(
      self, start: int, stop: int
  ) -> Num[np.ndarray, "rows num_frames *variants dim"]:
    """Reads the videos `start .. stop - 1`.

    Raises:
      IndexError: If there are no such videos.
      InputError: If the file is damaged there, or a value is not finite.
    """
    if not 0 <= start < stop <= len(self):
      raise IndexError(f"videos {start} .. {stop - 1} of {len(self)}")
    if self._rows is not None:
      return self._rows.read(start, stop)
    where = f"{self.path}: rows {start} .. {stop - 1}"
    with errors.reading(where, must_be="undamaged", way_out="copy it again"):
      features = self._features()
      block = features[start:stop]
      # HDF5 reads zeros past a file's end.
      descriptor = features.file.id.get_vfd_handle()
      if os.fstat(descriptor).st_size < self._num_bytes:
        raise EOFError("the file is shorter than it was")
    for row, frames in enumerate(block, start):
      check_finite(frames, video=f"{self.path}, row {row}")
    return block

  def gather(
      self,
      videos: Integer[np.ndarray, "n"],
      frame_indices: Int[np.ndarray, "n views slots"],
      variants: Int[np.ndarray, "n views"] | None,
  ) -> Num[np.ndarray, "n views slots dim"]:
    """Reads chosen frames, as `sources.gather_frames` does."""
    if self._rows is None:
      return sources.gather_whole(self, videos, frame_indices, variants)
    rows_per_video = self.shape[1] * self.num_variants
    return sources.take_rows(
        self._rows.all_frames(videos),
        videos.astype(np.int64) * rows_per_video,
        frame_indices,
        variants,
        num_variants=self.num_variants,
    )

  def _forget_handle(self) -> None:
    self._dataset, self._process = None, None
    self._lock = threading.Lock()

  def _features(self) -> h5py.Dataset:
    """Returns the open dataset of this process; h5py itself locks reads."""
    if self._process != os.getpid():
      # Another process's lock may have been held when this one was forked.
      self._forget_handle()
      self._process = os.getpid()
    with self._lock:
      if self._dataset is None:
        # 100 slots a chunk is what h5py advises; a prime spreads them.
        file = h5py.File(
            self.path,
            "r",
            rdcc_nbytes=self._chunk_cache_bytes,
            rdcc_nslots=100003,
        )
        self._dataset = file[self._name]
      return self._dataset


def _block_plan(
    shape: tuple[int, ...], chunks: tuple[int, ...], itemsize: int
) -> tuple[int, int]:
  """Returns the rows to read at once, and the bytes of the chunks of a row."""
  row_bytes = math.prod(shape[1:]) * itemsize
  rows = max(1, _BLOCK_BYTES // row_bytes // chunks[0]) * chunks[0]
  num_chunks = math.prod(
      -(-n // c) for n, c in zip(shape[1:], chunks[1:], strict=True)
  )
  return rows, num_chunks * math.prod(chunks) * itemsize
