"""A second evaluator, written from the definitions as plain loops.

It shares nothing with the package but NumPy: codes are lists of bits, labels
are sets, every ranking is sorted whole, and best and worst ties are found by
trying every order within each group of ties where `enumerate_ties` can.
"""

import itertools


def bits(packed_row):
  return [(int(byte) >> place) & 1 for byte in packed_row for place in range(8)]


def distance(a, b):
  return sum(x != y for x, y in zip(bits(a), bits(b), strict=True))


def ranked(query, gallery, *, drop_id=None):
  """(distance, position) of one query's gallery, nearest first."""
  rows = []
  for position, (packed, item_id) in enumerate(
      zip(gallery["packed"], gallery["ids"], strict=True)
  ):
    if drop_id is None or item_id != drop_id:
      rows.append((distance(query, packed), position))
  return sorted(rows)


def hits_of(rows, query_labels, gallery):
  return [
      bool(query_labels & gallery["labels"][position]) for _, position in rows
  ]


def average_precision(hits, k, *, divisor):
  total, found = 0.0, 0
  for rank in range(1, min(k, len(hits)) + 1):
    if hits[rank - 1]:
      found += 1
      total += found / rank
  return total / divisor


def tie_groups(rows, hits):
  groups = {}
  for (far, _), hit in zip(rows, hits, strict=True):
    groups.setdefault(far, []).append(hit)
  return [groups[far] for far in sorted(groups)]


def enumerate_ties(rows, hits, k):
  """Smallest and largest AP at K over every order of every group of ties."""
  orders = [
      set(itertools.permutations(group)) for group in tie_groups(rows, hits)
  ]
  scores = [
      average_precision(list(itertools.chain(*order)), k, divisor=k)
      for order in itertools.product(*orders)
  ]
  return min(scores), max(scores)


def sorted_ties(rows, hits, *, best):
  """The hits with every group's relevant items first (best) or last."""
  return [
      hit
      for group in tie_groups(rows, hits)
      for hit in sorted(group, reverse=best)
  ]


def evaluate(query, gallery, *, self_match, top_ks):
  """All metrics; `query` and `gallery` hold packed, ids, labels (sets)."""
  num_queries = len(query["packed"])
  num_radii = 8 * len(gallery["packed"][0]) + 1
  result = {
      name: {str(k): 0.0 for k in top_ks}
      for name in (
          "map_at_k",
          "map_at_k_standard",
          "map_at_k_best_ties",
          "map_at_k_worst_ties",
          "precision_at_k",
          "recall_at_k",
      )
  }
  retrieved, found, relevant_total = [0] * num_radii, [0] * num_radii, 0
  ball, empty, without = 0.0, 0, 0
  for packed, item_id, labels in zip(
      query["packed"], query["ids"], query["labels"], strict=True
  ):
    drop = item_id if self_match == "removed" else None
    rows = ranked(packed, gallery, drop_id=drop)
    hits = hits_of(rows, labels, gallery)
    relevant = sum(hits)
    relevant_total += relevant
    without += relevant == 0
    best, worst = (sorted_ties(rows, hits, best=b) for b in (True, False))
    for k in top_ks:
      key = str(k)
      standard = max(1, min(k, relevant))
      top = sum(hits[:k])
      for name, value in (
          ("map_at_k", average_precision(hits, k, divisor=k)),
          ("map_at_k_standard", average_precision(hits, k, divisor=standard)),
          ("map_at_k_best_ties", average_precision(best, k, divisor=k)),
          ("map_at_k_worst_ties", average_precision(worst, k, divisor=k)),
          ("precision_at_k", top / k),
          ("recall_at_k", top / relevant if relevant else 0.0),
      ):
        result[name][key] += value / num_queries
    near = [hit for (far, _), hit in zip(rows, hits, strict=True) if far <= 2]
    ball += sum(near) / len(near) if near else 0.0
    empty += not near
    for radius in range(num_radii):
      for (far, _), hit in zip(rows, hits, strict=True):
        retrieved[radius] += far <= radius
        found[radius] += far <= radius and hit
  result["precision_at_radius_2"] = ball / num_queries
  result["empty_ball_share_radius_2"] = empty / num_queries
  result["num_queries_without_relevant"] = without
  result["precision"] = [
      f / r if r else None for f, r in zip(found, retrieved, strict=True)
  ]
  result["recall"] = [
      f / relevant_total if relevant_total else None for f in found
  ]
  return result
