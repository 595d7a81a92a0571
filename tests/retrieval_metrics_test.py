import itertools

import numpy as np
import pytest
import reference_retrieval

from chain_jax import codes, ranking, retrieval_metrics
from chain_jax.errors import InputError
from chain_jax.labels import Labels

# Sums of fewer than 1e4 float64 terms of at most 1: rounding stays far below.
_TOLERANCE = 1e-9


def _labels(sets, num_classes):
  matrix = np.zeros((len(sets), num_classes), np.uint8)
  for video, classes in enumerate(sets):
    matrix[video, sorted(classes)] = 1
  return Labels.from_matrix(matrix)


def _code_set(packed, ids, sets, num_classes):
  return codes.CodeSet(
      np.asarray(packed, np.uint8),
      np.asarray(ids),
      _labels(sets, num_classes),
      {},
  )


def _random_set(rng, num_videos, num_bits, *, prefix, max_labels, flips):
  """Few distinct codes, so that most items tie."""
  signs = -np.ones((num_videos, num_bits), np.int8)
  for row in signs:
    row[rng.integers(0, num_bits, rng.integers(0, flips + 1))] = 1
  return {
      "packed": codes.pack_bits(signs),
      "ids": [f"{prefix}{i}" for i in range(num_videos)],
      "labels": [
          set(rng.integers(0, 4, rng.integers(0, max_labels + 1)).tolist())
          for _ in range(num_videos)
      ],
  }


def _as_code_set(plain):
  return _code_set(plain["packed"], plain["ids"], plain["labels"], 4)


def _assert_agree(actual, expected):
  for name, value in expected.items():
    if name in ("precision", "recall"):
      found = actual["pr_curve"][name]
      assert [x is None for x in found] == [x is None for x in value]
      pairs = [
          (a, b) for a, b in zip(found, value, strict=True) if b is not None
      ]
    elif isinstance(value, dict):
      assert list(actual[name]) == list(value)
      pairs = [(actual[name][key], value[key]) for key in value]
    else:
      pairs = [(actual[name], value)]
    for a, b in pairs:
      np.testing.assert_allclose(
          a, b, rtol=0, atol=_TOLERANCE, err_msg=name, strict=True
      )


@pytest.mark.parametrize("self_match", ["removed", "kept"])
@pytest.mark.parametrize(
    ("num_bits", "num_gallery", "max_labels", "flips"),
    [
        (16, 40, 3, 2),
        (16, 7, 1, 3),
        (24, 30, 2, 1),
        (72, 25, 2, 4),
        (264, 12, 2, 260),
    ],
)
def test_every_metric_equals_the_loops(
    num_bits, num_gallery, max_labels, flips, self_match
):
  rng = np.random.default_rng(num_bits + num_gallery)
  gallery = _random_set(
      rng, num_gallery, num_bits, prefix="v", max_labels=max_labels, flips=flips
  )
  query = _random_set(
      rng, 9, num_bits, prefix="v", max_labels=max_labels, flips=flips
  )
  query["ids"][4:] = [f"w{i}" for i in range(5)]  # The rest is not in there.
  gallery["ids"][-1] = "v1"  # A video that stands in the gallery twice.
  top_ks = (1, 3, 5, 20)  # 20 is beyond the small galleries.
  actual = retrieval_metrics.evaluate_codes(
      _as_code_set(query),
      _as_code_set(gallery),
      self_match=self_match,
      top_ks=top_ks,
  )
  expected = reference_retrieval.evaluate(
      query, gallery, self_match=self_match, top_ks=top_ks
  )
  _assert_agree(actual, expected)
  assert actual["num_queries_without_labels"] == sum(
      not labels for labels in query["labels"]
  )
  for choice in ("removed", "kept"):
    other = reference_retrieval.evaluate(
        query, gallery, self_match=choice, top_ks=top_ks
    )
    name = f"map_at_k_self_match_{choice}"
    _assert_agree({name: actual[name]}, {name: other["map_at_k"]})


def test_blocks_of_queries_add_up(monkeypatch):
  monkeypatch.setattr(ranking, "QUERIES_PER_BLOCK", 4)
  rng = np.random.default_rng(0)
  make = {"num_bits": 16, "max_labels": 2, "flips": 2}
  gallery = _random_set(rng, 30, prefix="v", **make)
  query = _random_set(rng, 11, prefix="w", **make)
  query["ids"][6] = "v3"  # Only the middle block has a self-match.
  actual = retrieval_metrics.evaluate_codes(
      _as_code_set(query), _as_code_set(gallery), top_ks=(5, 10)
  )
  expected = reference_retrieval.evaluate(
      query, gallery, self_match="removed", top_ks=(5, 10)
  )
  _assert_agree(actual, expected)


def test_best_and_worst_ties_are_the_extremes_over_all_orders():
  rng = np.random.default_rng(3)
  for k in (1, 3, 5):
    make = {"num_bits": 8, "max_labels": 1, "flips": 1}
    gallery = _random_set(rng, 6, prefix="v", **make)
    query = _random_set(rng, 4, prefix="w", **make)
    actual = retrieval_metrics.evaluate_codes(
        _as_code_set(query), _as_code_set(gallery), top_ks=(k,)
    )
    scores = []
    for packed, labels in zip(query["packed"], query["labels"], strict=True):
      rows = reference_retrieval.ranked(packed, gallery)
      hits = reference_retrieval.hits_of(rows, labels, gallery)
      scores.append(reference_retrieval.enumerate_ties(rows, hits, k))
    worst, best = np.mean(scores, axis=0)
    found = [
        actual[f"map_at_k_{name}_ties"][str(k)] for name in ("worst", "best")
    ]
    np.testing.assert_allclose(
        np.array(found),
        np.array([worst, best]),
        rtol=0,
        atol=_TOLERANCE,
        strict=True,
    )


def test_hand_made_ranking_scores_as_by_hand():
  # Distances 0, 1, 1, 2, 8; hits at ranks 1, 3 and 5; AP@5 with divisor 5.
  gallery = _code_set(
      [[255], [3], [0], [1], [2]], list("edabc"), [{0}, {1}, {0}, {1}, {0}], 2
  )
  query = _code_set([[0]], ["q"], [{0}], 2)
  result = retrieval_metrics.evaluate_codes(query, gallery, top_ks=(1, 5))
  assert result["map_at_k"] == pytest.approx(
      {"1": 1.0, "5": (1 + 2 / 3 + 3 / 5) / 5}
  )
  assert result["map_at_k_standard"] == pytest.approx(
      {"1": 1.0, "5": (1 + 2 / 3 + 3 / 5) / 3}
  )
  # The two items at distance 1 can swap: the hit comes at rank 2 instead.
  assert result["map_at_k_best_ties"]["5"] == pytest.approx(
      (1 + 2 / 2 + 3 / 5) / 5
  )
  assert result["precision_at_k"] == {"1": 1.0, "5": 0.6}
  assert result["recall_at_k"] == pytest.approx({"1": 1 / 3, "5": 1.0})
  assert result["precision_at_radius_2"] == 0.5
  assert result["pr_curve"]["precision"][:3] == pytest.approx([1, 2 / 3, 1 / 2])
  assert result["pr_curve"]["recall"][-2:] == pytest.approx([2 / 3, 1.0])


def test_ties_rank_by_gallery_position():
  sets = [{1}, {1}, {0}, {1}]
  query = _code_set([[0]], ["q"], [{0}], 2)
  for order in itertools.permutations(range(4)):
    gallery = _code_set([[0]] * 4, list("abcd"), [sets[i] for i in order], 2)
    result = retrieval_metrics.evaluate_codes(query, gallery, top_ks=(4,))
    rank = order.index(2) + 1
    assert result["map_at_k"]["4"] == pytest.approx(1 / rank / 4)
    assert result["map_at_k_best_ties"]["4"] == pytest.approx(1 / 1 / 4)
    assert result["map_at_k_worst_ties"]["4"] == pytest.approx(1 / 4 / 4)


def test_removing_the_self_match_takes_its_free_hit():
  gallery = _code_set([[0], [15]], ["a", "b"], [{0}, {1}], 2)
  query = _code_set([[0]], ["a"], [{0}], 2)
  for self_match, expected in (("kept", 0.2), ("removed", 0.0)):
    result = retrieval_metrics.evaluate_codes(
        query, gallery, self_match=self_match
    )
    assert result["map_at_k"]["5"] == pytest.approx(expected)
    assert result["map_at_k_self_match_kept"]["5"] == pytest.approx(0.2)
    assert result["map_at_k_self_match_removed"]["5"] == 0.0
    assert result["num_self_matches"] == 1


def test_sets_that_share_no_id_have_one_map():
  gallery = _code_set([[0]], ["a"], [{0}], 2)
  query = _code_set([[0]], ["b"], [{0}], 2)
  result = retrieval_metrics.evaluate_codes(query, gallery)
  assert not [key for key in result if "self_match_" in key]
  assert list(result["map_at_k"]) == ["5", "10", "20", "40", "60", "80", "100"]


def test_query_without_labels_counts_as_zero_and_is_counted():
  gallery = _code_set([[0]], ["a"], [{0}], 2)
  query = _code_set([[0], [0], [0]], ["x", "y", "z"], [{0}, set(), {1}], 2)
  result = retrieval_metrics.evaluate_codes(query, gallery, top_ks=(1,))
  assert result["map_at_k"]["1"] == pytest.approx(1 / 3)
  assert result["num_queries_without_labels"] == 1
  assert result["num_queries_without_relevant"] == 2


def test_radius_with_nothing_in_it_has_no_precision():
  gallery = _code_set([[7]], ["a"], [{0}], 1)
  query = _code_set([[0]], ["x"], [{0}], 1)
  result = retrieval_metrics.evaluate_codes(query, gallery)
  assert result["pr_curve"]["precision"][:4] == [None, None, None, 1.0]
  assert result["pr_curve"]["recall"][:4] == [0.0, 0.0, 0.0, 1.0]
  assert result["precision_at_radius_2"] == 0.0
  assert result["empty_ball_share_radius_2"] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"packed": np.zeros((1, 2), np.uint8)}, "`num_bits`.*got 16 and 8"),
        ({"labels": None}, "`query` must have labels"),
        ({"labels": _labels([{0}], 9)}, "`num_classes`.*got 9 and 2"),
        ({"packed": np.zeros((0, 1), np.uint8)}, "at least one code"),
    ],
)
def test_sets_that_do_not_belong_together_are_refused(change, message):
  gallery = _code_set([[0]], ["a"], [{0}], 2)
  query = gallery._replace(**change)
  with pytest.raises(InputError, match=message):
    retrieval_metrics.evaluate_codes(query, gallery)


def test_top_k_below_one_is_refused():
  gallery = _code_set([[0]], ["a"], [{0}], 2)
  with pytest.raises(InputError, match="`top_ks` must be 1 or more"):
    retrieval_metrics.evaluate_codes(gallery, gallery, top_ks=(0, 5))
