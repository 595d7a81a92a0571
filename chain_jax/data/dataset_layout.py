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

from chain_jax import whole_files
from chain_jax.errors import InputError
from chain_jax.labels import Labels

VERSION = "1.0.0"


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
    np.savez_compressed(
        file,
        ids=index.ids,
        indptr=index.labels.indptr,
        indices=index.labels.indices,
        num_classes=np.int64(index.labels.num_classes),
        num_frames=index.num_frames,
        shard_lengths=index.shard_lengths,
    )


def read_index(path: pathlib.Path) -> SplitIndex:
  """Reads what `write_index` wrote.

  Raises:
    InputError: If it is damaged.
  """
  try:
    with np.load(path, allow_pickle=False) as arrays:
      labels = Labels(
          arrays["indptr"], arrays["indices"], int(arrays["num_classes"])
      )
      index = SplitIndex(
          arrays["ids"], labels, arrays["num_frames"], arrays["shard_lengths"]
      )
    counts = {
        len(index.ids),
        len(index.num_frames),
        labels.num_videos,
        int(index.shard_lengths.sum()),
    }
    if len(counts) > 1:
      raise ValueError(f"it tells of {' and '.join(map(str, counts))} videos")
    return index
  except Exception as error:  # NumPy and zipfile fail in many ways.
    raise InputError(
        f"{path} must be the index of a split, got one that cannot be read"
        f" ({error}); run `python -m chain_jax.prepare` again, it keeps what is"
        " whole."
    ) from error
