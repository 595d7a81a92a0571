"""Frame features in one HDF5 file, read by row."""

import os
import pathlib
import threading

import h5py
import numpy as np
from jaxtyping import Int, Integer, Num

from chain_jax.data import sources
from chain_jax.data.records import IDENTITY, check_finite
from chain_jax.errors import InputError
from chain_jax.labels import Labels

_FEATURES_KEY = "feats"
_IDS_KEY = "ids"
# A block of videos read at once is about this large.
_BLOCK_BYTES = 64 * 2**20
# Room for all chunks that one row touches, so that the next row finds them.
_CHUNK_CACHE_BYTES = (8 * 2**20, 256 * 2**20)  # At least, at most.


class Hdf5Source:
  """Videos of one HDF5 file, read by row.

  Random rows are fastest where the data are contiguous, which is what h5py
  writes unless told otherwise: the file is then mapped into memory, and chosen
  frames are copied straight out of it. With chunks, rows are read whole, which
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
    self._chunk_cache_bytes = _CHUNK_CACHE_BYTES[0]
    self._forget_handle()
    features = self._features()
    _check_features(self.path, features)
    self.shape, self.dtype = features.shape, features.dtype
    self.feature_dim = int(self.shape[-1])
    self.num_frames = np.full(self.shape[0], self.shape[1], np.int32)
    self.num_variants = int(np.prod(self.shape[2:-1]))
    self.scaling = IDENTITY
    self.shard_starts = sources.single_shard(self.shape[0])
    self._offset = _mappable_offset(features)
    self.ids = _read_ids(self.path, features)
    self.rows_per_block, chunk_bytes = _block_plan(features)
    # The cache's size can only be chosen when a file is opened.
    self._chunk_cache_bytes = int(np.clip(chunk_bytes, *_CHUNK_CACHE_BYTES))
    features.file.close()
    self._forget_handle()
    if labels is not None and labels.num_videos != len(self):
      raise InputError(
          f"{self.path} must have one video a row of its label matrix, got"
          f" {len(self)} videos and {labels.num_videos} rows of labels; take"
          " both from the same release."
      )

  def __len__(self) -> int:
    return int(self.shape[0])

  def __getstate__(self) -> dict:
    state = dict(self.__dict__)
    for name in ("_lock", "_dataset", "_process", "_map", "_checked"):
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
    if self._offset is not None:
      block = self._mapped()[start:stop].copy()
      self._check_mapped(np.arange(start, stop))
      return block
    try:
      block = self._features()[start:stop]
    except OSError as error:
      raise InputError(
          f"{self.path}: rows {start} .. {stop - 1} must be readable, got"
          f" damaged data ({error}); copy the file again."
      ) from error
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
    if self._offset is None:
      return sources.gather_whole(self, videos, frame_indices, variants)
    flat = self._mapped().reshape(-1, self.feature_dim)
    self._check_mapped(videos)
    rows_per_video = self.shape[1] * self.num_variants
    return sources.take_rows(
        flat,
        videos.astype(np.int64) * rows_per_video,
        frame_indices,
        variants,
        num_variants=self.num_variants,
    )

  def _forget_handle(self) -> None:
    self._dataset, self._process = None, None
    self._map, self._checked = None, None
    self._lock = threading.Lock()

  def _mapped(self) -> np.ndarray:
    """Returns all features, mapped into this process's memory."""
    if self._map is None:
      # A plain array: np.memmap makes each slice of it slow.
      self._map = np.asarray(
          np.memmap(
              self.path,
              self.dtype,
              mode="r",
              offset=self._offset,
              shape=self.shape,
          )
      )
      self._checked = np.zeros(len(self), np.bool_)
    return self._map

  def _check_mapped(self, videos: np.ndarray) -> None:
    """Refuses what is not finite; a video is checked once in a process."""
    for video in videos[~self._checked[videos]].tolist():
      check_finite(self._map[video], video=f"{self.path}, row {video}")
      self._checked[video] = True

  def _features(self) -> h5py.Dataset:
    """Returns the open dataset of this process; h5py itself locks reads."""
    if self._process != os.getpid():
      # Another process's lock may have been held when this one was forked.
      self._forget_handle()
      self._process = os.getpid()
    with self._lock:
      if self._dataset is None:
        self._dataset = _open_features(self.path, self._chunk_cache_bytes)
      return self._dataset


def _open_features(path: pathlib.Path, chunk_cache_bytes: int) -> h5py.Dataset:
  if not path.is_file():
    raise InputError(f"{path} must be a file, got none; check `data.root`.")
  try:
    # 100 slots a chunk is what h5py advises; a prime spreads them.
    file = h5py.File(
        path, "r", rdcc_nbytes=chunk_cache_bytes, rdcc_nslots=100003
    )
  except OSError as error:
    damage = "a truncated one" if "truncated" in str(error) else "another"
    raise InputError(
        f"{path} must be a whole HDF5 file, got {damage}"
        f" ({path.stat().st_size} bytes; {error}); copy it again."
    ) from error
  if not isinstance(file.get(_FEATURES_KEY), h5py.Dataset):
    keys = ", ".join(sorted(file)) or "none"
    file.close()
    raise InputError(
        f"{path} must hold a dataset {_FEATURES_KEY!r}, got {keys}; rename it"
        " there, or check that this is the right file."
    )
  return file[_FEATURES_KEY]


def _mappable_offset(features: h5py.Dataset) -> int | None:
  """Returns where in the file the values lie in one piece, if they do."""
  is_plain = features.chunks is None and not features.external
  return features.id.get_offset() if is_plain else None


def _check_features(path: pathlib.Path, features: h5py.Dataset) -> None:
  is_float = features.dtype.kind == "f" and features.dtype.itemsize <= 8
  if not is_float or len(features.shape) not in (3, 4):
    raise InputError(
        f"{path}: {_FEATURES_KEY!r} must be float16 or float32 [n, frames, dim]"
        f" or [n, frames, variants, dim], got {features.dtype} of shape"
        f" {list(features.shape)}; write it again in that form."
    )
  if 0 in features.shape:
    raise InputError(
        f"{path}: {_FEATURES_KEY!r} must hold at least one video, frame and"
        f" dimension, got shape {list(features.shape)}; extract it again."
    )


def _read_ids(path: pathlib.Path, features: h5py.Dataset) -> np.ndarray:
  num_videos = features.shape[0]
  names = features.file.get(_IDS_KEY)
  if names is None:
    return np.array([f"{path.stem}-{row:06d}" for row in range(num_videos)])
  if getattr(names, "shape", None) != (num_videos,):
    raise InputError(
        f"{path}: {_IDS_KEY!r} must name each of the {num_videos} videos, got"
        f" shape {list(getattr(names, 'shape', []))}; write both again from one"
        " list."
    )
  try:
    ids = [v.decode() if isinstance(v, bytes) else str(v) for v in names[()]]
  except UnicodeDecodeError as error:
    raise InputError(
        f"{path}: {_IDS_KEY!r} must be UTF-8, got {error.object[:40]!r}; write"
        " the names again in UTF-8."
    ) from error
  first_rows: dict[str, int] = {}
  for row, video_id in enumerate(ids):
    first = first_rows.setdefault(video_id, row)
    if first != row:
      raise InputError(
          f"{path}: {_IDS_KEY!r} must differ from video to video, got"
          f" {video_id!r} in rows {first} and {row}; leave one of them out."
      )
  return np.array(ids)


def _block_plan(features: h5py.Dataset) -> tuple[int, int]:
  """Returns the rows to read at once, and the bytes of the chunks of a row."""
  row_bytes = int(np.prod(features.shape[1:])) * features.dtype.itemsize
  chunks = features.chunks or (1, *features.shape[1:])
  rows = max(1, _BLOCK_BYTES // row_bytes // chunks[0]) * chunks[0]
  num_chunks = np.prod(np.ceil(np.divide(features.shape[1:], chunks[1:])))
  chunk_bytes = int(np.prod(chunks)) * features.dtype.itemsize
  return rows, int(num_chunks) * chunk_bytes
