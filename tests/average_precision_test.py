"""AP of single queries: by hand, and their mean is the report's mAP."""

import numpy as np
import pytest

from chain_jax import average_precision, codes, retrieval_metrics
from chain_jax.errors import InputError
from chain_jax.labels import Labels


def _code_set(packed, ids, classes):
  labels = Labels.from_matrix(np.eye(3, dtype=np.uint8)[classes])
  return codes.CodeSet(
      np.array(packed, np.uint8)[:, None], np.array(ids), labels, {}
  )


def _pair():
  """Query q is also in its gallery; x and y tie for both queries."""
  query = _code_set([0b0, 0b1], ["q", "r"], [0, 1])
  gallery = _code_set(
      [0b10, 0b10, 0b0, 0b111], ["x", "y", "q", "z"], [1, 0, 0, 0]
  )
  return query, gallery


@pytest.mark.parametrize(
    ("self_match", "expected"),
    [
        # q finds x, y, z: miss, hit, hit. r finds q, then x, y and z, which
        # all lie at distance 2: miss, hit, miss, miss.
        ("removed", [[0, (1 / 2 + 2 / 3) / 3], [0, (1 / 2) / 3]]),
        # q finds itself first, then x and y: hit, miss, hit.
        ("kept", [[1, (1 + 2 / 3) / 3], [0, (1 / 2) / 3]]),
    ],
)
def test_ap_is_what_paper_and_pencil_give(self_match, expected):
  found = average_precision.average_precisions(
      *_pair(), self_match=self_match, top_ks=[1, 3]
  )
  np.testing.assert_allclose(
      found, np.array(expected, np.float64), rtol=1e-12, strict=True
  )


@pytest.mark.parametrize("self_match", ["removed", "kept"])
def test_the_mean_over_queries_is_the_map_of_a_report(self_match):
  rng = np.random.default_rng(0)
  # More queries than a block has, of which 50 are in the gallery.
  query, gallery = (
      _code_set(
          rng.integers(0, 256, size),
          [f"video {i + first:03d}" for i in range(size)],
          rng.integers(0, 3, size),
      )
      for first, size in ((0, 300), (250, 80))
  )
  report = retrieval_metrics.evaluate_codes(
      query, gallery, self_match=self_match
  )
  found = average_precision.average_precisions(
      query, gallery, self_match=self_match
  )
  assert found.shape == (300, len(retrieval_metrics.TOP_KS))
  np.testing.assert_allclose(
      found.mean(axis=0), list(report["map_at_k"].values()), rtol=1e-12
  )


def test_codes_without_labels_are_refused():
  query, gallery = _pair()
  with pytest.raises(InputError, match="`query` must have labels"):
    average_precision.average_precisions(query._replace(labels=None), gallery)
