"""Labels of many videos: any number of classes each, in compressed rows."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int64


class Labels(NamedTuple):
  """Classes of `n` videos as compressed sparse rows.

  Video `i` has the classes `indices[indptr[i]:indptr[i + 1]]`, sorted, each
  in `0 .. num_classes - 1`; it may have none.
  """

  indptr: Int64[np.ndarray, "n_plus_1"]
  indices: Int64[np.ndarray, "num_pairs"]
  num_classes: int

  @property
  def num_videos(self) -> int:
    """How many videos there are."""
    return len(self.indptr) - 1

  @classmethod
  def from_matrix(cls, matrix: np.ndarray) -> "Labels":
    """Reads a 0/1 matrix `[n, num_classes]`; any value but 0 is a label.

    >>> Labels.from_matrix(np.array([[0, 1], [1, 1]])).indices.tolist()
    [1, 0, 1]
    """
    rows, columns = np.nonzero(matrix)
    counts = np.bincount(rows, minlength=len(matrix))
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return cls(indptr, columns.astype(np.int64), int(matrix.shape[1]))

  @classmethod
  def from_classes(
      cls, classes: Int[np.ndarray, "n"], *, num_classes: int
  ) -> "Labels":
    """Reads one class per video."""
    indptr = np.arange(len(classes) + 1, dtype=np.int64)
    return cls(indptr, classes.astype(np.int64), num_classes)

  def of(self, video: int) -> Int64[np.ndarray, "num_labels"]:
    """Returns the sorted classes of one video."""
    return self.indices[self.indptr[video] : self.indptr[video + 1]]

  def take(self, videos: Int[np.ndarray, "m"]) -> "Labels":
    """Returns the labels of the chosen videos, in the order given."""
    rows = [self.of(int(video)) for video in videos]
    counts = np.array([len(row) for row in rows], np.int64)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    flat = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    return Labels(indptr, flat.astype(np.int64), self.num_classes)
