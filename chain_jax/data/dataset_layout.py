"""Where the parts of a prepared dataset lie, and its index.

Beside what TFDS reads there lie, in `OUTPUT/<name>/<version>/`,

    index-<split>.npz   ids, labels, frames a video, videos a record file
    metadata.json       form of the frames; scale and offset to float32
    manifest.json       where it is from, what was skipped, checksums
    preparation/        the plan and what each finished task did

so that a split of millions of videos opens without reading their frames.
"""

import pathlib
from typing import NamedTuple

import numpy as np

from chain_jax import array_files, errors, whole_files
from chain_jax.labels import Labels

VERSION = "1.0.0"
# Of an index, beside the labels.
_LISTS = ("ids", "num_frames", "shard_lengths")


class FrameForm(NamedTuple):
  """What the frames of all videos of a dataset have in common."""

  dim: int  # Width of a frame's feature.
  dtype: str  # As stored: "uint8" or "float16".
  num_variants: int = 1  # Stored spatial variants; 1 = no axis for them.

  @property
  def numpy_dtype(self) -> np.dtype:
    """The dtype as NumPy knows it."""
    return np.dtype(self.dtype)

  def shape(self, num_frames: int) -> tuple[int, ...]:
    """Returns the shape of a video's frames.

    >>> FrameForm(8, "uint8", num_variants=3).shape(5)
    (5, 3, 8)
    """
    if self.num_variants > 1:
      return num_frames, self.num_variants, self.dim
    return num_frames, self.dim


def record_file(
    folder: pathlib.Path, name: str, split: str, shard: int, num_shards: int
) -> pathlib.Path:
  """Names a record file as TFDS does.

  >>> record_file(pathlib.Path("d"), "yt8m_frames", "train", 3, 20).name
  'yt8m_frames-train.array_record-00003-of-00020'
  """
  return folder / (
      f"{name}-{split}.array_record-{shard:05d}-of-{num_shards:05d}"
  )


class SplitIndex(NamedTuple):
  """All of a split but its frames.

  Attributes:
    ids: Unicode `[n]`, all different.
    labels: Of the videos.
    num_frames: int32 `[n]`.
    shard_lengths: Videos a record file.
  """

  ids: np.ndarray
  labels: Labels
  num_frames: np.ndarray
  shard_lengths: np.ndarray


def index_file(folder: pathlib.Path, split: str) -> pathlib.Path:
  """Names the file of a split's index."""
  return folder / f"index-{split}.npz"


def write_index(path: pathlib.Path, index: SplitIndex) -> None:
  """Writes an index whole or not at all."""
  with whole_files.written_whole(path) as partial, open(partial, "wb") as file:
    arrays = index._asdict()
    labels = arrays.pop("labels")
    array_files.write_npz(file, arrays | labels._asdict())


def read_index(path: pathlib.Path) -> SplitIndex:
  """Reads what `write_index` wrote.

  Raises:
    InputError: If it is damaged.
  """
  words = {
      "must_be": "the index of a split",
      "way_out": (
          "run `python -m chain_jax.prepare` again, it keeps what is whole"
      ),
  }
  arrays = array_files.read_npz(path, _LISTS + Labels._fields, **words)
  with errors.reading(path, **words):
    labels = Labels.from_file(*(arrays.pop(name) for name in Labels._fields))
    index = SplitIndex(labels=labels, **arrays)
    _check(index)
  return index


def _check(index: SplitIndex) -> None:
  """Raises a `ValueError` unless all parts tell of the same videos."""
  counts = {
      len(index.ids),
      len(index.num_frames),
      index.labels.num_videos,
      int(index.shard_lengths.sum()),
  }
  if len(counts) > 1:
    raise ValueError(f"it tells of {' and '.join(map(str, counts))} videos")
  for name, kinds, low, high in (
      ("ids", "U", None, None),
      ("num_frames", "iu", 1, 2**31 - 1),
      ("shard_lengths", "iu", 0, len(index.ids)),
  ):
    values = getattr(index, name)
    if values.ndim != 1 or values.dtype.kind not in kinds:
      raise ValueError(f"`{name}` is {values.dtype} {list(values.shape)}")
    if low is not None and ((values < low) | (values > high)).any():
      raise ValueError(f"`{name}` must be in {low} to {high}")
