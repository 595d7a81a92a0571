"""Labels of many videos: any number of classes each, in compressed rows."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int64, Shaped

MAX_CLASSES = 2**24


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

    One column alone tells two classes apart: each video is of class 0 or 1.

    >>> Labels.from_matrix(np.array([[0, 1], [1, 1]])).indices.tolist()
    [1, 0, 1]
    >>> Labels.from_matrix(np.array([[0], [1]])).indices.tolist()
    [0, 1]
    """
    if matrix.shape[1] == 1:
      is_second = (matrix[:, 0] != 0).astype(np.int64)
      return cls.from_classes(is_second, num_classes=2)
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

  @classmethod
  def from_file(
      cls,
      indptr: Shaped[np.ndarray, "..."],
      indices: Shaped[np.ndarray, "..."],
      num_classes: Shaped[np.ndarray, "..."],
  ) -> "Labels":
    """Takes the rows that a file holds, whoever wrote it, and checks them.

    Raises:
      ValueError: If they are not as this class says.
    """
    arrays = (indptr, indices, num_classes)
    is_whole = all(values.dtype.kind in "iu" for values in arrays)
    if not is_whole or [values.ndim for values in arrays] != [1, 1, 0]:
      raise ValueError(
          "`indptr`, `indices` and `num_classes` must be integers, [n + 1],"
          " [m] and one number"
      )
    if not 0 <= num_classes <= MAX_CLASSES:
      raise ValueError(
          f"`num_classes` must be in 0 to {MAX_CLASSES}, got {num_classes}"
      )
    # Of unsigned numbers the largest become negative: caught below.
    labels = cls(
        indptr.astype(np.int64), indices.astype(np.int64), int(num_classes)
    )
    labels._check_rows()
    return labels

  def _check_rows(self) -> None:
    indptr, indices = self.indptr, self.indices
    if (
        len(indptr) == 0
        or indptr[0] != 0
        or indptr[-1] != len(indices)
        or np.any(indptr[1:] < indptr[:-1])
    ):
      raise ValueError(
          f"`indptr` must rise from 0 to the {indices.size} labels"
      )
    is_first = np.zeros(len(indices), bool)
    is_first[indptr[:-1][np.diff(indptr) > 0]] = True
    if np.any((np.diff(indices, prepend=-1) <= 0) & ~is_first):
      raise ValueError("the labels of a video must rise and each stand once")
    wrong = indices[(indices < 0) | (indices >= self.num_classes)]
    if wrong.size:
      raise ValueError(
          f"labels must be in 0 to {self.num_classes - 1}, got {wrong[0]}"
      )

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
