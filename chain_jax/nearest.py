"""The nearest codes, exactly: FAISS inside, ties by gallery position."""

import faiss
import numpy as np
from jaxtyping import Int32, Int64, UInt8

from chain_jax import hamming
from chain_jax.errors import InputError

# A sample of the gallery this thin tells each query's radius.
_SAMPLE_STEP = 8
# Fewer distances are measured in less time than radii are guessed in.
_SMALLEST_SAMPLED_WORK = 30_000_000
# Items in the balls gathered at a time, about: bounds memory.
_ITEMS_PER_BLOCK = 4_000_000
# A ball expected to hold this many times `top_k` is not worth gathering.
_CROWDED = 8


def search_codes(
    query_packed: UInt8[np.ndarray, "queries num_bytes"],
    gallery_packed: UInt8[np.ndarray, "n gallery_bytes"],
    *,
    top_k: int,
) -> tuple[Int64[np.ndarray, "queries k"], Int32[np.ndarray, "queries k"]]:
  """Returns the nearest gallery items of every query, exactly.

  The same answer on every machine and with any number of threads: items at
  one distance come in order of gallery position, also where `top_k` cuts.

  Args:
    query_packed: uint8, packed.
    gallery_packed: uint8, packed, of the same `num_bits`.
    top_k: How many to return; all `n` where the gallery has fewer.

  Returns:
    Gallery positions, nearest first, and their Hamming distances in bits.

  Raises:
    InputError: If `num_bits` differ, the gallery is empty, or `top_k` < 1.

  >>> gallery = np.array([[0], [3], [1], [2]], np.uint8)
  >>> positions, distances = search_codes(gallery[:1], gallery, top_k=3)
  >>> positions.tolist(), distances.tolist()
  ([[0, 2, 3]], [[0, 1, 1]])
  """
  _check(query_packed, gallery_packed, top_k)
  top_k = min(top_k, len(gallery_packed))
  positions = np.empty((len(query_packed), top_k), np.int64)
  distances = np.empty((len(query_packed), top_k), np.int32)
  query_packed = np.ascontiguousarray(query_packed)
  index = _make_index(gallery_packed)
  radii = _guess_radii(query_packed, gallery_packed, top_k)
  unsolved = radii < 0
  block_size = max(1, _ITEMS_PER_BLOCK // (_CROWDED * top_k))
  for radius in np.unique(radii[~unsolved]):
    of_radius = np.flatnonzero(radii == radius)
    for start in range(0, len(of_radius), block_size):
      block = of_radius[start : start + block_size]
      full, near, far = _search_ball(
          index, query_packed[block], int(radius), top_k
      )
      positions[block[full]], distances[block[full]] = near, far
      unsolved[block[~full]] = True
  rest = np.flatnonzero(unsolved)
  if len(rest):
    positions[rest], distances[rest] = _search_all(
        index, query_packed[rest], gallery_packed, top_k
    )
  return positions, distances


def _check(query_packed: np.ndarray, gallery_packed: np.ndarray, top_k: int):
  query_bits, gallery_bits = (
      8 * packed.shape[1] for packed in (query_packed, gallery_packed)
  )
  if query_bits != gallery_bits:
    raise InputError(
        "`num_bits` must be the same in query and gallery, got"
        f" {query_bits} and {gallery_bits}; export both from one run."
    )
  if not len(gallery_packed):
    raise InputError("`gallery` must hold at least one code, got none.")
  if top_k < 1:
    raise InputError(f"`top_k` must be at least 1, got {top_k}.")


def _make_index(packed: np.ndarray) -> faiss.IndexBinaryFlat:
  index = faiss.IndexBinaryFlat(8 * packed.shape[1])
  # Counting by distance instead of a heap: distances are small integers.
  index.use_heap = False
  index.add(np.ascontiguousarray(packed))
  return index


def _guess_radii(
    query_packed: np.ndarray, gallery_packed: np.ndarray, top_k: int
) -> Int64[np.ndarray, "queries"]:
  """Guesses per query a radius whose ball holds a little over `top_k` items.

  Returns:
    Radii in bits; -1 where gathering a ball does not pay: the search is
    small, or so many items tie that the ball would be crowded. A guess costs
    time when wrong, never exactness.
  """
  if len(query_packed) * len(gallery_packed) < _SMALLEST_SAMPLED_WORK:
    return np.full(len(query_packed), -1)
  sample = gallery_packed[::_SAMPLE_STEP]
  expected = top_k / _SAMPLE_STEP
  # Three standard deviations more, so that few balls turn out too small.
  enough = int(np.ceil(expected + 3 * np.sqrt(expected) + 1))
  crowded = _CROWDED * enough
  if crowded > len(sample):
    return np.full(len(query_packed), -1)
  distances, _ = _make_index(sample).search(query_packed, crowded)
  radii = distances[:, enough - 1].astype(np.int64)
  return np.where(distances[:, crowded - 1] > radii, radii, -1)


def _search_ball(
    index: faiss.IndexBinaryFlat, queries: np.ndarray, radius: int, top_k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Gathers all items within a radius and orders them.

  Returns:
    bool `[queries]`, whether the ball holds `top_k` items; positions and
    distances `[full, top_k]` of those queries whose ball does.
  """
  # FAISS returns what is nearer than, not as near as, the radius.
  limits, ball_distances, ball_positions = index.range_search(
      queries, radius + 1
  )
  limits = limits.astype(np.int64)
  sizes = np.diff(limits)
  # One integer per item sorts by query, then distance, then position.
  query = np.repeat(np.arange(len(queries)), sizes)
  by_distance = query * (radius + 1) + ball_distances.astype(np.int64)
  keys = np.sort(by_distance * index.ntotal + ball_positions)
  full = sizes >= top_k
  first = limits[:-1][full]
  chosen = keys[first[:, None] + np.arange(top_k)]
  return full, chosen % index.ntotal, chosen // index.ntotal % (radius + 1)


def _search_all(
    index: faiss.IndexBinaryFlat,
    queries: np.ndarray,
    gallery_packed: np.ndarray,
    top_k: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Takes FAISS's answer and settles which of the items at the cut are in.

  FAISS finds the right distances, but promises no order among ties, nor which
  of the items that tie at the last distance it returns.
  """
  distances, positions = index.search(queries, top_k)
  order = np.lexsort((positions, distances))
  positions = np.take_along_axis(positions, order, axis=1)
  distances = np.take_along_axis(distances, order, axis=1)
  words = hamming.pack_words(gallery_packed)
  query_words = hamming.pack_words(queries)
  for row, last in enumerate(distances[:, -1]):
    at_cut = distances[row] == last
    # All first items at this distance lie no further than the last one found.
    end = int(positions[row, at_cut].max()) + 1
    near = hamming.distances_between(words[:, :end], query_words[:, row])
    ties = np.flatnonzero(near == last)
    positions[row, at_cut] = ties[: np.count_nonzero(at_cut)]
  return positions, distances
