"""Retrieval metrics over Hamming rankings: mAP at K and its neighbours.

What every number means:

- *Relevant*: shares at least one label with the query.
- *Tie rule*: items at the same distance rank by gallery position, first
  first. `best_ties` and `worst_ties` put the relevant items of every group of
  ties first or last: the range that another tie rule could reach.
- *Divisor*: AP at K is the sum, over hits at rank r <= K, of (hits up to r)/r,
  divided by K. That is the custom of self-supervised video hashing, and the
  field's `map_at_k`. `map_at_k_standard` divides by min(K, number of relevant
  items in the query's gallery) instead.
- *Every query counts.* One without labels, or without a relevant item, scores
  0 in each mean; how many there are is reported, so either mean can be had.
- *Short galleries*: ranks beyond the end are non-hits; divisors stay.

All sums are float64. Loops over queries live in `ranking.py`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from chain_jax import progress, ranking
from chain_jax.code_health import code_health
from chain_jax.codes import CodeSet
from chain_jax.errors import InputError
from chain_jax.ranking import Ranking

TOP_KS = (5, 10, 20, 40, 60, 80, 100)
_BALL_RADIUS = 2


def evaluate_codes(
    query: CodeSet,
    gallery: CodeSet,
    *,
    self_match: Literal["removed", "kept"] = "removed",
    top_ks: Sequence[int] = TOP_KS,
) -> dict[str, Any]:
  """Ranks the gallery for every query and scores the rankings.

  The module's docstring says what every number means. When ids of queries occur
  in the gallery, the result also carries `map_at_k_self_match_kept` and
  `map_at_k_self_match_removed`, whichever `self_match` asks for.

  Args:
    query: Codes with labels.
    gallery: Codes with labels, of the same `num_bits` and classes.
    self_match: "removed" drops from a query's gallery the items whose id
      equals the query's; "kept" leaves them, a free hit.
    top_ks: The K of mAP, precision and recall; each at least 1.

  Returns:
    One entry of a report's "results", without its "method".

  Raises:
    InputError: If a set is empty, labels are missing, or the two differ in
      `num_bits` or `num_classes`.
  """
  check_pair(query, gallery)
  top_ks = sorted(set(top_ks))
  if not top_ks or top_ks[0] < 1 or self_match not in ("removed", "kept"):
    raise InputError(
        "`top_ks` must be 1 or more and `self_match` 'removed' or 'kept', got"
        f" {top_ks} and {self_match!r}."
    )
  matches = ranking.SelfMatches(query.ids, gallery.ids)
  metrics = _score(query, gallery, matches, top_ks)
  result = {
      "num_bits": query.num_bits,
      "num_queries": len(query.packed),
      "num_gallery": len(gallery.packed),
      "num_queries_without_labels": int(
          np.count_nonzero(np.diff(query.labels.indptr) == 0)
      ),
      "num_self_matches": matches.num_queries,
      "self_match": self_match,
  }
  result |= metrics[self_match]
  if matches.num_queries:
    for choice, chosen in metrics.items():
      result[f"map_at_k_self_match_{choice}"] = chosen["map_at_k"]
  return result | {"code_health": code_health(gallery.packed)}


def _score(
    query: CodeSet,
    gallery: CodeSet,
    matches: ranking.SelfMatches,
    top_ks: list[int],
) -> dict[str, dict[str, Any]]:
  """Scores with self-matches kept and removed, in one pass."""
  ranker = ranking.GalleryRanker(
      gallery.packed, gallery.labels, num_ranks=top_ks[-1]
  )
  totals: dict[str, dict[str, np.ndarray]] = {"kept": {}, "removed": {}}
  for kept, removed in progress.track(
      ranker.rank(query.packed, query.labels, matches=matches),
      total=len(query.packed),
      what="evaluate",
      unit="queries",
      size=ranking.QUERIES_PER_BLOCK,
  ):
    sums = sum_over_queries(kept, top_ks=top_ks)
    _add(totals["kept"], sums)
    if removed is not kept:
      sums = sum_over_queries(removed, top_ks=top_ks)
    _add(totals["removed"], sums)
  return {
      choice: summarise(sums, num_queries=len(query.packed), top_ks=top_ks)
      for choice, sums in totals.items()
  }


def _add(totals: dict[str, np.ndarray], sums: dict[str, np.ndarray]) -> None:
  for name, values in sums.items():
    totals[name] = totals[name] + values if name in totals else values


def check_pair(query: CodeSet, gallery: CodeSet) -> None:
  """Raises `InputError` where the two cannot be scored together."""
  for name, code_set in (("query", query), ("gallery", gallery)):
    if not len(code_set.packed):
      raise InputError(f"`{name}` must hold at least one code, got none.")
    if code_set.labels is None:
      raise InputError(
          f"`{name}` must have labels to be scored, but has no labels.npz;"
          " export it with labels."
      )
  for field, q, g in (
      ("num_bits", query.num_bits, gallery.num_bits),
      ("num_classes", query.labels.num_classes, gallery.labels.num_classes),
  ):
    if q != g:
      raise InputError(
          f"`{field}` must be the same in query and gallery, got {q} and {g};"
          " export both from one run."
      )


def summed_precisions(
    hits: Bool[np.ndarray, "queries num_ranks"], *, top_ks: Sequence[int]
) -> Float64[np.ndarray, "queries num_top_ks"]:
  """Sums the precision at every hit up to each K: AP before its divisor.

  Args:
    hits: Is the item at rank r relevant?
    top_ks: Each from 1 to `num_ranks`.

  Returns:
    From 0 to K each.

  >>> summed_precisions(np.array([[True, False, True]]), top_ks=[1, 3])
  array([[1.        , 1.66666667]])
  """
  ranks = np.arange(1, hits.shape[1] + 1)
  precisions = np.where(hits, np.cumsum(hits, axis=1) / ranks, 0.0)
  return np.cumsum(precisions, axis=1)[:, np.asarray(top_ks) - 1]


def hits_with_ties(
    distance_counts: Int64[np.ndarray, "queries num_radii"],
    relevant_counts: Int64[np.ndarray, "queries num_radii"],
    *,
    num_ranks: int,
    best: bool,
) -> Bool[np.ndarray, "queries num_ranks"]:
  """Places the hits as the luckiest or unluckiest order of ties would.

  Within a group of equal distance the relevant items come first (`best`) or
  last. Swapping a neighbouring hit and non-hit moves AP at every K one way
  only, so these orders are the extremes over all tie orders.

  Args:
    distance_counts: Items at each distance.
    relevant_counts: Relevant items at each distance.
    num_ranks: How many ranks to fill.
    best: Relevant items first instead of last.

  Returns:
    Hits by rank; False beyond the end of the gallery.
  """
  num_queries, num_radii = distance_counts.shape
  within = np.cumsum(distance_counts, axis=1)
  ranks = np.arange(1, num_ranks + 1)
  # One search for all queries: shift every row beyond the row before.
  shift = np.arange(num_queries)[:, None] * (within.max() + num_ranks + 1)
  group = np.searchsorted((within + shift).ravel(), (ranks + shift).ravel())
  group = group.reshape(num_queries, num_ranks)
  beyond = group >= (np.arange(num_queries)[:, None] + 1) * num_radii
  group = np.where(beyond, 0, group)
  size = distance_counts.ravel()[group]
  relevant = relevant_counts.ravel()[group]
  rank_in_group = ranks - (within.ravel()[group] - size)
  if best:
    hits = rank_in_group <= relevant
  else:
    hits = rank_in_group > size - relevant
  return hits & ~beyond


def sum_over_queries(
    block: Ranking, *, top_ks: Sequence[int]
) -> dict[str, np.ndarray]:
  """Sums every metric over a block of queries; blocks add up.

  Args:
    block: The ranking of some queries.
    top_ks: Each from 1 to its `num_ranks`.

  Returns:
    Arrays `[num_top_ks]` for metrics at K, `[num_radii]` for those by
    radius, `[1]` for the rest. `summarise` turns them into means.
  """
  ks = np.asarray(top_ks)
  hits, distance_counts, relevant_counts = block
  num_relevant = relevant_counts.sum(axis=1, keepdims=True)
  summed = summed_precisions(hits, top_ks=top_ks)
  hits_at_k = np.cumsum(hits, axis=1)[:, ks - 1]
  sums = {
      "map_at_k": summed / ks,
      "map_at_k_standard": summed / np.clip(num_relevant, 1, ks),
      "precision_at_k": hits_at_k / ks,
      "recall_at_k": hits_at_k / np.maximum(num_relevant, 1),
      "retrieved": distance_counts.cumsum(axis=1),
      "found": relevant_counts.cumsum(axis=1),
      "without_relevant": num_relevant == 0,
  }
  for name in ("best", "worst"):
    extreme = hits_with_ties(
        distance_counts,
        relevant_counts,
        num_ranks=hits.shape[1],
        best=name == "best",
    )
    sums[f"map_at_k_{name}_ties"] = (
        summed_precisions(extreme, top_ks=top_ks) / ks
    )
  ball = sums["retrieved"][:, _BALL_RADIUS : _BALL_RADIUS + 1]
  sums["ball_precision"] = sums["found"][
      :, _BALL_RADIUS : _BALL_RADIUS + 1
  ] / np.maximum(ball, 1)
  sums["empty_ball"] = ball == 0
  return {name: values.sum(axis=0) for name, values in sums.items()}


def summarise(
    sums: dict[str, np.ndarray], *, num_queries: int, top_ks: Sequence[int]
) -> dict[str, Any]:
  """Turns sums over all queries into the metrics of a report.

  Args:
    sums: From `sum_over_queries`, added over blocks.
    num_queries: How many queries the sums hold; at least 1.
    top_ks: As given to `sum_over_queries`.

  Returns:
    Plain numbers, JSON ready. Keys of `*_at_k` are strings such as "5".
    `precision_at_radius_2` is the mean over queries of the share of relevant
    items within Hamming radius 2, where an empty ball counts as 0.
    `pr_curve` is micro-averaged: the counts of all queries within radius 0,
    1, .. num_bits are added before dividing; null where nothing is divided.
  """
  means = {
      name: dict(
          zip(map(str, top_ks), (values / num_queries).tolist(), strict=True)
      )
      for name, values in sums.items()
      if "_at_k" in name
  }
  retrieved, found = sums["retrieved"], sums["found"]
  return means | {
      "precision_at_radius_2": float(sums["ball_precision"][0]) / num_queries,
      "empty_ball_share_radius_2": float(sums["empty_ball"][0]) / num_queries,
      "pr_curve": {
          "average": "micro",
          "radius": list(range(len(retrieved))),
          "precision": _ratios(found, retrieved),
          "recall": _ratios(found, np.full_like(found, found[-1])),
      },
      "num_queries_without_relevant": int(sums["without_relevant"][0]),
  }


def _ratios(above: np.ndarray, below: np.ndarray) -> list[float | None]:
  return [
      float(a) / float(b) if b else None
      for a, b in zip(above, below, strict=True)
  ]
