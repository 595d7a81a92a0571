"""Ranks a gallery for each query and notes where the relevant items fall.

Relevant means: shares at least one label. Nothing here is as large as queries
times gallery: a block of queries keeps its first ranks and two histograms.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from chain_jax import hamming
from chain_jax.labels import Labels

QUERIES_PER_BLOCK = 256


class Ranking(NamedTuple):
  """What the metrics need to know of a block of queries."""

  # Is the item at rank r relevant? Ties stand in order of gallery position;
  # False beyond the end of a gallery shorter than `num_ranks`.
  hits: Bool[np.ndarray, "queries num_ranks"]
  # Items, and relevant items, at each distance 0 .. num_bits.
  distance_counts: Int64[np.ndarray, "queries num_radii"]
  relevant_counts: Int64[np.ndarray, "queries num_radii"]


class Relevance:
  """Finds the gallery items that share a label with a query."""

  def __init__(self, gallery: Labels):
    classes = gallery.indices
    videos = np.repeat(np.arange(gallery.num_videos), np.diff(gallery.indptr))
    self._videos = videos[np.argsort(classes, kind="stable")]
    sizes = np.bincount(classes, minlength=gallery.num_classes)
    self._indptr = np.concatenate([[0], np.cumsum(sizes)])
    self._mask = np.zeros(gallery.num_videos, bool)

  def positions(
      self, labels: Int64[np.ndarray, "num_labels"]
  ) -> Int64[np.ndarray, "num_relevant"]:
    """Returns the positions of the relevant items, each once, in order."""
    lists = [
        self._videos[self._indptr[label] : self._indptr[label + 1]]
        for label in labels
    ]
    if len(lists) == 1:
      return lists[0]
    for videos in lists:
      self._mask[videos] = True
    relevant = np.flatnonzero(self._mask)
    self._mask[relevant] = False
    return relevant


class SelfMatches:
  """Finds a query's own entries in the gallery: those with the same id."""

  def __init__(self, query_ids: np.ndarray, gallery_ids: np.ndarray):
    self._order = np.argsort(gallery_ids, kind="stable")
    in_order = gallery_ids[self._order]
    self._first = np.searchsorted(in_order, query_ids, side="left")
    self._last = np.searchsorted(in_order, query_ids, side="right")

  @property
  def num_queries(self) -> int:
    """How many queries have themselves in the gallery."""
    return int(np.count_nonzero(self._last > self._first))

  def positions(self, query: int) -> Int64[np.ndarray, "num_matches"]:
    """Returns the gallery positions of one query's own entries."""
    return self._order[self._first[query] : self._last[query]]


class _Row(NamedTuple):
  """One query: the positions at its first ranks, and its histograms."""

  positions: np.ndarray
  distance_counts: np.ndarray
  relevant_counts: np.ndarray


class GalleryRanker:
  """Ranks one gallery for any number of queries."""

  def __init__(
      self,
      packed: UInt8[np.ndarray, "n num_bytes"],
      labels: Labels,
      *,
      num_ranks: int,
  ):
    """Keeps the first `num_ranks` ranks of each query."""
    self._scan = hamming.DistanceScan(packed)
    self._relevance = Relevance(labels)
    self._is_relevant = np.zeros(len(packed), bool)
    self._num_ranks = num_ranks

  def rank(
      self,
      packed: UInt8[np.ndarray, "queries num_bytes"],
      labels: Labels,
      *,
      matches: SelfMatches,
  ) -> Iterator[tuple[Ranking, Ranking]]:
    """Ranks the gallery for every query, a block of queries at a time.

    Args:
      packed: The queries, of the gallery's `num_bits`.
      labels: Of the queries.
      matches: Where each query itself stands in the gallery.

    Yields:
      Per block, the ranking with self-matches kept and with them removed; one
      and the same object where the block has none.
    """
    words = hamming.pack_words(packed)
    for start in range(0, len(packed), QUERIES_PER_BLOCK):
      block = range(start, min(start + QUERIES_PER_BLOCK, len(packed)))
      kept = _empty_ranking(len(block), self._num_ranks, self._scan.num_bits)
      removed = kept
      for index, query in enumerate(block):
        own = matches.positions(query)
        if len(own) and removed is kept:
          removed = Ranking(*(array.copy() for array in kept))
        rankings = (kept,) if removed is kept else (kept, removed)
        self._rank_one(words[:, query], labels.of(query), own, rankings, index)
      yield kept, removed

  def _rank_one(
      self,
      query_words: np.ndarray,
      labels: np.ndarray,
      own: np.ndarray,
      rankings: tuple[Ranking, ...],
      index: int,
  ) -> None:
    """Fills row `index` of the ranking(s): kept, then removed."""
    distances = self._scan.distances_from(query_words)
    relevant = self._relevance.positions(labels)
    self._is_relevant[relevant] = True
    num_radii = self._scan.num_bits + 1
    distance_counts = np.bincount(distances, minlength=num_radii)
    row = _Row(
        hamming.nearest_positions(
            distances, distance_counts, count=self._num_ranks + len(own)
        ),
        distance_counts,
        np.bincount(distances[relevant], minlength=num_radii),
    )
    _store(rankings[0], index, row, self._is_relevant)
    if len(rankings) > 1:
      row = _without(row, own, distances, self._is_relevant)
      _store(rankings[1], index, row, self._is_relevant)
    self._is_relevant[relevant] = False


def _without(
    row: _Row, own: np.ndarray, distances: np.ndarray, is_relevant: np.ndarray
) -> _Row:
  """Takes a query's own entries out of its row."""
  if not len(own):
    return row
  num_radii = len(row.distance_counts)
  own_relevant = own[is_relevant[own]]
  return _Row(
      row.positions[~np.isin(row.positions, own)],
      row.distance_counts - np.bincount(distances[own], minlength=num_radii),
      row.relevant_counts
      - np.bincount(distances[own_relevant], minlength=num_radii),
  )


def _empty_ranking(num_queries: int, num_ranks: int, num_bits: int) -> Ranking:
  return Ranking(
      np.zeros((num_queries, num_ranks), bool),
      np.zeros((num_queries, num_bits + 1), np.int64),
      np.zeros((num_queries, num_bits + 1), np.int64),
  )


def _store(
    ranking: Ranking, index: int, row: _Row, is_relevant: np.ndarray
) -> None:
  positions = row.positions[: ranking.hits.shape[1]]
  ranking.hits[index, : len(positions)] = is_relevant[positions]
  ranking.distance_counts[index] = row.distance_counts
  ranking.relevant_counts[index] = row.relevant_counts
