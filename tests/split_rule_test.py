"""The split of a video follows from its id."""

import collections
import hashlib

import pytest

from chain_jax.errors import InputError
from chain_jax.preparation.split_rule import SplitRule, assign_split

_IDS = [f"video-{number}" for number in range(4000)]
_RULE = SplitRule(query_share=0.2, gallery_share=0.3, validation_share=0.1)


def _splits(rule, part, ids=_IDS):
  return [assign_split(rule, video_id, part=part) for video_id in ids]


@pytest.mark.parametrize(
    ("part", "shares"),
    [
        (
            "all",
            {"query": 0.2, "gallery": 0.3, "validation": 0.1, "train": 0.4},
        ),
        ("train", {"validation": 0.1, "train": 0.9}),
        ("evaluation", {"query": 0.2, "gallery": 0.8}),
        ("gallery", {"gallery": 1.0}),
    ],
)
def test_shares_are_met(part, shares):
  counts = collections.Counter(_splits(_RULE, part))
  assert counts.keys() == shares.keys()
  for split, share in shares.items():
    # Five standard deviations of a binomial count: under .04.
    assert counts[split] / len(_IDS) == pytest.approx(share, abs=0.04)


def test_the_split_of_an_id_never_changes():
  for video_id in _IDS[:50]:
    digest = hashlib.sha256(b"chain_jax split video " + video_id.encode())
    place = int(digest.hexdigest()[:16], 16) / 2.0**64
    expected = "validation" if place < 0.1 else "train"
    assert assign_split(_RULE, video_id, part="train") == expected


def test_a_larger_share_keeps_what_a_smaller_one_took():
  small = _splits(SplitRule(query_share=0.1), "all")
  large = _splits(SplitRule(query_share=0.3), "all")
  assert {b for a, b in zip(small, large, strict=True) if a == "query"} == {
      "query"
  }


def test_groups_stay_together():
  ids = [f"clip_g{group}_c{clip}" for group in range(50) for clip in range(4)]
  rule = _RULE._replace(group_pattern=r"_(g\d+)_")
  splits = _splits(rule, "all", ids)
  by_group = [set(splits[i : i + 4]) for i in range(0, len(ids), 4)]
  assert {len(group) for group in by_group} == {1}
  assert len(set(splits)) == 4


def test_a_pattern_names_the_queries():
  rule = SplitRule(query_pattern=r"_g(08|09)_")
  assert _splits(rule, "all", ["a_g08_c1", "a_g10_c1"]) == ["query", "train"]
  # What is given to train on is not searched with.
  assert _splits(rule, "train", ["a_g08_c1"]) == ["train"]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (SplitRule(query_share=1.0), "--query_share must be >= 0 and < 1"),
        (SplitRule(query_share=0.6, gallery_share=0.5), "must add up to less"),
        (SplitRule(group_pattern="g("), "--group_pattern must be a regular"),
        (SplitRule(group_pattern="g1"), "must have a group in parentheses"),
        (SplitRule(query_pattern="["), "--query_pattern must be a regular"),
    ],
)
def test_a_wrong_rule_is_refused(rule, words):
  with pytest.raises(InputError, match=words):
    rule.check()
