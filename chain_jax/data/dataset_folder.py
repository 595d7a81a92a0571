"""A dataset that `chain_jax.prepare` wrote, read by row without TFDS."""

import bisect
import functools
import os
import pathlib
import threading
from typing import Any, NamedTuple

import numpy as np
from array_record.python import array_record_module
from jaxtyping import Num

from chain_jax import errors, whole_files
from chain_jax.data import dataset_layout as layout
from chain_jax.data import examples
from chain_jax.data.records import Scaling, check_finite
from chain_jax.errors import InputError

_MOST_RECORD_BYTES = 2**31  # Of protobuf.
_OPEN_FILES = 256  # Of one process; each keeps its index of positions.


class DatasetFolder(NamedTuple):
  """An opened dataset: what holds for all its splits."""

  path: pathlib.Path
  name: str
  metadata: dict[str, Any]

  @property
  def splits(self) -> list[str]:
    """Names the splits that hold videos."""
    found = self.path.glob("index-*.npz")
    return sorted(file.stem.removeprefix("index-") for file in found)

  def split(self, name: str) -> "ArrayRecordSource":
    """Opens one split.

    Raises:
      InputError: If there is none of that name, or its files are damaged.
    """
    if name not in self.splits:
      raise InputError(
          f"{self.path}: must have a split {name!r}, got"
          f" {', '.join(self.splits) or 'none'}; choose one of these, or"
          " prepare the dataset with other shares."
      )
    return ArrayRecordSource(self, name)


def open_dataset(
    root: str | os.PathLike, *, way_out: str = ""
) -> DatasetFolder:
  """Opens a prepared dataset.

  Args:
    root: `--output` of the command that prepared it, or the folder inside it
      that holds `metadata.json`.
    way_out: What to do where there is none; "" = the general advice.

  Raises:
    InputError: If there is none, more than one, or an unfinished one.
  """
  root = pathlib.Path(root).expanduser()
  if (root / "metadata.json").is_file():
    found = [root]
  else:
    found = sorted(file.parent for file in root.glob("*/*/metadata.json"))
  if len(found) != 1:
    unfinished = any(root.glob("*/*/preparation/plan.json"))
    got = "several" if found else "an unfinished one" if unfinished else "none"
    general = (
        "make one with `python -m chain_jax.prepare` (the same command goes on"
        " with an unfinished one)."
    )
    raise InputError(
        f"`data.root` must be the folder of a prepared dataset, got {got} in"
        f" {str(root)!r}; {way_out or general}"
    )
  path = found[0]
  words = {
      "must_be": "that of a prepared dataset",
      "way_out": "run `python -m chain_jax.prepare` again",
  }
  metadata = whole_files.read_json(path / "metadata.json", **words)
  with errors.reading(path / "metadata.json", **words):
    _check_metadata(metadata)
  return DatasetFolder(path.resolve(), path.resolve().parent.name, metadata)


def _check_metadata(metadata: dict[str, Any]) -> None:
  """Raises an error of any kind where it is not what `prepare` writes."""
  if not {"dim", "dtype", "scale", "offset"} <= metadata.keys():
    raise ValueError("keys are missing")
  if metadata["dtype"] not in ("uint8", "float16"):
    raise ValueError(f"`dtype` is {metadata['dtype']!r}")
  frame_bytes = np.dtype(metadata["dtype"]).itemsize
  for name in ("dim", "num_variants"):
    number = metadata.setdefault(name, 1)
    if type(number) is not int or number < 1:
      raise ValueError(f"`{name}` is {number!r}, no number of 1 or more")
    frame_bytes *= number
  if frame_bytes > _MOST_RECORD_BYTES:
    raise ValueError(f"a frame of {frame_bytes} bytes fits in no record")
  for name in ("scale", "offset"):
    with np.errstate(over="ignore"):
      values = np.asarray(metadata[name], np.float32)
    if values.shape not in ((), (metadata["dim"],)):
      raise ValueError(f"`{name}` is not one number, nor one a dimension")
    if not np.isfinite(values).all():
      raise ValueError(f"`{name}` is not finite")
  if not isinstance(metadata.get("settings", {}), dict):
    raise ValueError("`settings` is no object")


class ArrayRecordSource:
  """One split, read by row from ArrayRecord files.

  `origin` says how its frames were made; the rest is as in `VideoSource`.

  Safe between threads, and after pickling or forking: each process opens the
  files for itself, when it first reads from them.
  """

  def __init__(self, folder: DatasetFolder, split: str):
    """Opens a split; see `DatasetFolder.split`."""
    metadata = folder.metadata
    index = layout.read_index(layout.index_file(folder.path, split))
    self.path, self.name, self.split = folder.path, folder.name, split
    self.origin = metadata.get("settings")
    self.ids = index.ids
    self.labels = index.labels if index.labels.num_classes else None
    self.num_frames = index.num_frames.astype(np.int32)
    self.feature_dim = metadata["dim"]
    self.num_variants = metadata["num_variants"]
    self.dtype = np.dtype(metadata["dtype"])
    self._form = layout.FrameForm(
        self.feature_dim, str(self.dtype), self.num_variants
    )
    self.scaling = Scaling(
        np.asarray(metadata["scale"], np.float32),
        np.asarray(metadata["offset"], np.float32),
    )
    self.shard_starts = np.concatenate([[0], np.cumsum(index.shard_lengths)])
    self._shard_starts = self.shard_starts.tolist()
    self._open_readers()
    self._check_files()

  def __len__(self) -> int:
    return len(self.ids)

  def __getstate__(self) -> dict:
    state = dict(self.__dict__)
    for name in ("_lock", "_reader", "_process"):
      del state[name]
    return state

  def __setstate__(self, state: dict):
    self.__dict__.update(state)
    self._open_readers()

  def read_frames(
      self, video: int
  ) -> Num[np.ndarray, "num_frames *variants dim"]:
    """Reads one video, as stored; a read-only array.

    Raises:
      InputError: If its record is damaged.
    """
    # Not NumPy's search: on one number it takes as long as a small record.
    shard = bisect.bisect_right(self._shard_starts, video) - 1
    row = int(video) - self._shard_starts[shard]
    shape = self._form.shape(int(self.num_frames[video]))
    try:
      record = self._reader_of(shard).read([row])[0]
      frames = examples.decode_frames(record, shape=shape, dtype=self.dtype)
    except Exception:
      with errors.reading(
          self._file(shard),
          must_be=f"whole in record {row} ({str(self.ids[video])!r})",
          way_out="delete the file and run `python -m chain_jax.prepare`"
          " again, it makes only that one anew",
      ):
        raise
    if self.dtype != np.uint8:
      check_finite(frames, video=f"{self._file(shard)}, record {row}")
    return frames

  def _file(self, shard: int) -> pathlib.Path:
    num_shards = len(self.shard_starts) - 1
    return layout.record_file(
        self.path, self.name, self.split, shard, num_shards
    )

  def _check_files(self) -> None:
    missing = [
        self._file(shard).name
        for shard in np.flatnonzero(np.diff(self.shard_starts)).tolist()
        if not self._file(shard).is_file()
    ]
    if missing:
      raise InputError(
          f"{self.path}: must hold all record files of split {self.split!r}, but"
          f" {missing[0]} is missing ({len(missing)} in all); copy them there,"
          " or run `python -m chain_jax.prepare` again."
      )

  def _open_readers(self) -> None:
    self._process = os.getpid()
    self._lock = threading.Lock()
    self._reader = functools.lru_cache(_OPEN_FILES)(self._open)

  def _open(self, shard: int) -> array_record_module.ArrayRecordReader:
    return array_record_module.ArrayRecordReader(
        str(self._file(shard)), "readahead_buffer_size:0"
    )

  def _reader_of(self, shard: int) -> array_record_module.ArrayRecordReader:
    if self._process != os.getpid():
      self._open_readers()
    with self._lock:
      return self._reader(shard)
