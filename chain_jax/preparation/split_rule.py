"""Which split a video belongs to: a function of its id, and of nothing else."""

import hashlib
import re
from typing import NamedTuple

from chain_jax.errors import InputError

SPLITS = ("train", "validation", "gallery", "query")


class SplitRule(NamedTuple):
  """Shares of the splits, and what keeps videos together.

  Attributes:
    query_share: Share of the videos to search with.
    gallery_share: Share to search in, of videos that belong to no part.
    validation_share: Share held out of training.
    group_pattern: Regular expression, searched in each id; videos with the
      same first group land in the same split. "", or no match: each by itself.
    query_pattern: Ids in which it is found are queries, whatever the shares.
  """

  query_share: float = 0.0
  gallery_share: float = 0.0
  validation_share: float = 0.0
  group_pattern: str = ""
  query_pattern: str = ""

  def check(self) -> None:
    """Raises `InputError` on a share or a pattern outside its rule."""
    shares = self[:3]
    for name, share in zip(self._fields, shares, strict=False):
      if not 0 <= share < 1:
        raise InputError(f"--{name} must be >= 0 and < 1, got {share}.")
    if sum(shares) >= 1:
      raise InputError(
          "--query_share, --gallery_share and --validation_share must add up to"
          f" less than 1, got {sum(shares)}; the rest is what is trained on."
      )
    for name, pattern in zip(self._fields[3:], self[3:], strict=True):
      try:
        groups = re.compile(pattern).groups
      except re.error as error:
        raise InputError(
            f"--{name} must be a regular expression, got {pattern!r} ({error})."
        ) from error
      if name == "group_pattern" and pattern and not groups:
        raise InputError(
            "--group_pattern must have a group in parentheses, got"
            f" {pattern!r}; try {'(' + pattern + ')'!r}."
        )


def assign_split(rule: SplitRule, video_id: str, *, part: str) -> str:
  """Names the split of a video.

  Args:
    rule: The shares.
    video_id: The video.
    part: "train": train or validation; "evaluation": query or gallery; "all":
      any of the four; or one of `SPLITS`: that one.

  Returns:
    One of `SPLITS`. A larger share keeps what a smaller one took.

  >>> assign_split(SplitRule(query_pattern="_g0"), "a_g08_c1", part="all")
  'query'
  """
  if part in SPLITS and part != "train":
    return part
  if part != "train" and rule.query_pattern:
    if re.search(rule.query_pattern, video_id):
      return "query"
  place = _place(_group(rule.group_pattern, video_id))
  shares = {"validation": rule.validation_share}
  if part == "evaluation":
    shares = {"query": rule.query_share}
  elif part == "all":
    shares = {
        "query": rule.query_share,
        "gallery": rule.gallery_share,
        "validation": rule.validation_share,
    }
  for split, share in shares.items():
    if place < share:
      return split
    place -= share
  return "gallery" if part == "evaluation" else "train"


def _group(pattern: str, video_id: str) -> str:
  found = re.search(pattern, video_id) if pattern else None
  group = found.group(1) if found else None
  return f"video {video_id}" if group is None else f"group {group}"


def _place(name: str) -> float:
  """Spreads names evenly over [0, 1); Python's own hash is not stable."""
  digest = hashlib.sha256(f"chain_jax split {name}".encode()).digest()
  return int.from_bytes(digest[:8], "big") / 2**64
