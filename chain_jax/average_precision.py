"""Average precision query by query: what comparisons of two methods pair."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float64

from chain_jax import ranking, retrieval_metrics
from chain_jax.codes import CodeSet


def average_precisions(
    query: CodeSet,
    gallery: CodeSet,
    *,
    self_match: Literal["removed", "kept"] = "removed",
    top_ks: Sequence[int] = retrieval_metrics.TOP_KS,
) -> Float64[np.ndarray, "queries num_top_ks"]:
  """Scores every query alone; the mean over queries is the field's mAP at K.

  Args:
    query: Codes with labels.
    gallery: Codes with labels, of the same `num_bits` and classes.
    self_match: As `retrieval_metrics.evaluate_codes` takes it.
    top_ks: The K, ascending, each at least 1.

  Returns:
    AP at every K, divided by K; ties rank by gallery position.

  Raises:
    InputError: As `retrieval_metrics.evaluate_codes` does.
  """
  retrieval_metrics.check_pair(query, gallery)
  ranker = ranking.GalleryRanker(
      gallery.packed, gallery.labels, num_ranks=max(top_ks)
  )
  blocks = ranker.rank(
      query.packed,
      query.labels,
      matches=ranking.SelfMatches(query.ids, gallery.ids),
  )
  return np.concatenate(
      [
          retrieval_metrics.summed_precisions(
              (kept if self_match == "kept" else removed).hits, top_ks=top_ks
          )
          for kept, removed in blocks
      ]
  ) / np.asarray(top_ks)
