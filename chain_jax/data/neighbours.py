"""Videos that lie near each other: found once, looked up in every batch.

Instance contrast pushes apart all videos but the two views of one, also those
of one kind. A table of each video's nearest ones tells which to spare. Its
size grows as `n * num_neighbours`; no n x n matrix is ever made.
"""

from collections.abc import Sequence
from typing import NamedTuple

import faiss
import numpy as np
import scipy.sparse
from jaxtyping import Float32, Int32, Int64

from chain_jax import principal
from chain_jax.data import kind_directions
from chain_jax.errors import InputError

# Beyond this many videos the search is approximate: it would grow as n**2.
_LARGEST_EXACT = 2**17
# Of the approximate search: FAISS's guidelines, 4 to 16 sqrt(n) lists.
_LISTS_PER_ROOT = 4
_LISTS_PROBED = 32
_TRAINING_PER_LIST = 64
# Videos that principal components are found from.
_COMPONENT_VIDEOS = 2**14
# Videos searched for, or whose lists are compared, at a time.
_ROWS_PER_BLOCK = 2048


class NeighbourTable(NamedTuple):
  """For each video the others whose lists of nearest ones are most like its.

  Attributes:
    videos: Their positions in the split, the largest overlap first; the own
      one fills up what is missing.
    overlaps: The Jaccard index of the two videos' lists, each with its own
      video added: shared entries over all entries, in [0, 1]; its mean, where
      each has two lists; 0 where the own video fills up.
  """

  videos: Int32[np.ndarray, "n width"]
  overlaps: Float32[np.ndarray, "n width"]


class BatchNeighbours(NamedTuple):
  """Which rows of a global batch show neighbours of each of its rows.

  Attributes:
    rows: Positions in the global batch; any one where the weight is 0.
    weights: Of each as a positive, beside 1 of the own second view; 0 where
      the neighbour is not in the batch.
  """

  rows: Int32[np.ndarray, "batch width"]
  weights: Float32[np.ndarray, "batch width"]


def table_width(num_neighbours: int) -> int:
  """Returns how many videos a table lists for each, of lists of that length."""
  return 2 * num_neighbours


def find_neighbours(
    pooled: Float32[np.ndarray, "n dim"],
    *,
    num_neighbours: int,
    num_components: int = 0,
    whitening: float = 0.0,
    num_directions: int = 0,
    min_overlap: float = 0.0,
) -> NeighbourTable:
  """Finds each video's nearest others, and how much their lists overlap.

  Nearest is by cosine of centred features: exact up to 131,072 videos; beyond
  by FAISS's inverted lists, of which each search visits 32. Videos that share
  an entry of their lists are compared by them, listed or not.

  With `num_directions`, neighbours teach what tells kinds apart: each video
  gets a second list, by the directions in which videos differ and neighbours
  do not, and an overlap is the mean of both lists' overlaps.

  Args:
    pooled: One row a video, as of `pooling`.
    num_neighbours: Length of a list, > 0.
    num_components: Compare videos by so many of the largest principal
      components; 0 = by all features.
    whitening: Each component is divided by its variance to the power of
      half of this; 0 = as it is, 1 = all have the same variance.
    num_directions: Of the second lists; 0 = none.
    min_overlap: Of first lists, for two videos to be neighbours when the
      directions are found.

  Returns:
    The table, `table_width` wide.

  Raises:
    InputError: If there are too few videos, or features.

  Source: neighbours as positives, arXiv:2104.14548 (NNCLR); the overlap of
  lists as a measure of trust, arXiv:1701.08398 (k-reciprocal encoding), Eq. 5.
  """
  num_videos = len(pooled)
  if num_videos <= num_neighbours:
    raise InputError(
        "`neighbours.num_neighbours` must be less than the"
        f" {num_videos} train videos, got {num_neighbours}; try"
        f" {min(20, num_videos // 2)}."
    )
  centred = pooled - pooled.mean(axis=0)
  compared = (
      _principal(centred, num_components, whitening)
      if num_components
      else centred
  )
  lists = [_nearest(compared, num_neighbours)]
  table = _overlapping(lists)
  if not num_directions:
    return table
  directions = kind_directions.fit_kind_directions(
      centred,
      table.videos,
      np.where(table.overlaps >= min_overlap, table.overlaps, 0),
      num_directions=num_directions,
  )
  lists.append(_nearest(centred @ directions, num_neighbours))
  return _overlapping(lists)


def in_batch(
    videos: Int64[np.ndarray, "batch"],
    rows: slice,
    neighbours: Int32[np.ndarray, "n width"],
    weights: Float32[np.ndarray, "n width"],
) -> BatchNeighbours:
  """Looks up which neighbours of some rows' videos are in the same batch.

  Args:
    videos: Of the whole global batch, each one once.
    rows: Which rows of it to look up for.
    neighbours: Of every video, as in `NeighbourTable`.
    weights: Of each as a positive.

  >>> found = in_batch(
  ...     np.array([4, 2]), slice(None), np.array([[1]] * 4 + [[2]], np.int32),
  ...     np.full((5, 1), 0.5, np.float32))
  >>> found.rows[0].tolist(), found.weights.tolist()
  ([1], [[0.5], [0.0]])
  """
  order = np.argsort(videos)
  ordered = videos[order]
  wanted = neighbours[videos[rows]]
  place = np.minimum(np.searchsorted(ordered, wanted), len(videos) - 1)
  is_there = ordered[place] == wanted
  found = np.where(is_there, weights[videos[rows]], 0)
  return BatchNeighbours(
      order[place].astype(np.int32), found.astype(np.float32)
  )


def _principal(
    centred: np.ndarray, num_components: int, whitening: float
) -> np.ndarray:
  largest = min(centred.shape) - 1
  if num_components > largest:
    raise InputError(
        f"`neighbours.num_components` must be at most {largest}, one less than"
        f" the videos and than the features, got {num_components}; try"
        f" {min(32, largest)}."
    )
  # Every so many-th: rows of one storage shard may be alike.
  sample = centred[:: max(1, len(centred) // _COMPONENT_VIDEOS)]
  squares, directions = principal.principal_directions(
      sample, np.zeros(sample.shape[1], np.float32), num_components
  )
  if whitening:
    scales = np.where(squares > 0, squares, 1) ** (-whitening / 2)
    directions = directions * scales
  return centred @ directions.astype(np.float32)


def _nearest(
    vectors: np.ndarray, num_neighbours: int
) -> Int32[np.ndarray, "n size"]:
  """Returns each video's list: its nearest ones, and itself."""
  vectors = np.array(vectors, np.float32, order="C")
  faiss.normalize_L2(vectors)
  index = _make_index(vectors)
  lists = np.empty((len(vectors), num_neighbours + 1), np.int32)
  for start in range(0, len(vectors), _ROWS_PER_BLOCK):
    block = vectors[start : start + _ROWS_PER_BLOCK]
    _, found = index.search(block, num_neighbours + 1)
    own = np.arange(start, start + len(block))
    lists[start : start + len(block)] = _with_own(found, own)
  return lists


def _make_index(vectors: np.ndarray) -> faiss.Index:
  num_videos, dim = vectors.shape
  if num_videos <= _LARGEST_EXACT:
    index = faiss.IndexFlatIP(dim)
  else:
    num_lists = int(_LISTS_PER_ROOT * num_videos**0.5)
    index = faiss.index_factory(
        dim, f"IVF{num_lists},Flat", faiss.METRIC_INNER_PRODUCT
    )
    # Every so many-th: rows of one storage shard may be alike.
    step = max(1, num_videos // (num_lists * _TRAINING_PER_LIST))
    index.train(np.ascontiguousarray(vectors[::step]))
    index.nprobe = _LISTS_PROBED
  index.add(vectors)
  return index


def _with_own(found: np.ndarray, own: np.ndarray) -> np.ndarray:
  """Makes sure that each video stands in its own list.

  Among equal videos it may be missing, and takes the last place. A search of
  inverted lists can find too few, which it calls -1: the own video instead.
  """
  own = own[:, None]
  lists = np.where(found < 0, own, found)
  is_missing = ~(lists == own).any(axis=1)
  lists[is_missing, -1] = own[is_missing, 0]
  return lists


def _overlapping(lists: Sequence[np.ndarray]) -> NeighbourTable:
  """Averages the overlaps over several lists of each video."""
  num_videos, size = lists[0].shape
  width = table_width(size - 1)
  entries = [_as_entries(each) for each in lists]
  by_entry = [each.T.tocsr() for each in entries]
  videos = np.tile(np.arange(num_videos, dtype=np.int32)[:, None], (1, width))
  overlaps = np.zeros((num_videos, width), np.float32)
  for start in range(0, num_videos, _ROWS_PER_BLOCK):
    rows = slice(start, start + _ROWS_PER_BLOCK)
    mean = sum(
        _jaccard(each, transposed, rows)
        for each, transposed in zip(entries, by_entry, strict=True)
    ) / len(lists)
    for row in range(mean.shape[0]):
      part = slice(*mean.indptr[row : row + 2])
      others, overlap = mean.indices[part], mean.data[part]
      overlap[others == start + row] = 0
      # Equal overlaps: by position.
      best = np.lexsort((others, -overlap))[:width]
      best = best[overlap[best] > 0]
      videos[start + row, : len(best)] = others[best]
      overlaps[start + row, : len(best)] = overlap[best]
  return NeighbourTable(videos, overlaps)


def _as_entries(lists: np.ndarray) -> scipy.sparse.csr_array:
  """Returns which video's list has which entry, as ones."""
  num_videos, size = lists.shape
  entries = scipy.sparse.csr_array(
      (
          np.ones(lists.size, np.int32),
          lists.ravel(),
          np.arange(0, lists.size + 1, size),
      ),
      shape=(num_videos, num_videos),
  )
  entries.sum_duplicates()
  entries.data[:] = 1  # An own video that fills up counts once.
  return entries


def _jaccard(
    entries: scipy.sparse.csr_array,
    by_entry: scipy.sparse.csr_array,
    rows: slice,
) -> scipy.sparse.csr_array:
  """Returns the overlap of some videos' lists with all, where there is one."""
  shared = entries[rows] @ by_entry
  lengths = np.diff(entries.indptr)
  own_lengths = np.repeat(lengths[rows], np.diff(shared.indptr))
  union = own_lengths + lengths[shared.indices] - shared.data
  return scipy.sparse.csr_array(
      (shared.data / union, shared.indices, shared.indptr), shape=shared.shape
  )
