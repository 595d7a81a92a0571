"""Training videos held out by group, where a dataset has none of its own."""

import hashlib
import re

import numpy as np
from jaxtyping import Int64, Shaped

from chain_jax.errors import InputError


def split_validation(
    ids: Shaped[np.ndarray, "n"],
    *,
    fraction: float,
    group_pattern: str,
    seed: int,
) -> tuple[Int64[np.ndarray, "train"], Int64[np.ndarray, "validation"]]:
  """Holds out part of the training videos, whole groups at a time.

  Which groups are held out depends on their names and the seed alone, not on
  the order of the videos, and a larger fraction holds out a smaller one's too.

  Args:
    ids: Names of the training videos.
    fraction: Share of the videos to hold out, 0 <= fraction < 1; met as
      nearly as whole groups allow, by at least one group. 0 holds out none.
    group_pattern: Regular expression, searched in each id; videos with the
      same first group stay on one side. "", or no match: each on its own.
    seed: Chooses the groups.

  Returns:
    Rows to train on and rows held out, each ascending.

  Raises:
    InputError: If the fraction or the pattern is wrong, or all videos are one
      group.

  >>> ids = np.array(["a_g1", "b_g1", "c_g2", "d_g2"])
  >>> split_validation(ids, fraction=0.5, group_pattern=r"_(g\\d)", seed=0)
  (array([2, 3]), array([0, 1]))
  """
  if not 0 <= fraction < 1:
    raise InputError(
        "`data.validation_fraction` must be >= 0 and < 1, got"
        f" {fraction}; try 0.1."
    )
  rows = np.arange(len(ids), dtype=np.int64)
  if fraction == 0:
    return rows, rows[:0]
  groups = _group_names(ids, group_pattern)
  members: dict[str, int] = {}
  for group in groups:
    members[group] = members.get(group, 0) + 1
  if len(members) < 2:
    raise InputError(
        "`data.validation_group_pattern` must leave at least 2 groups to"
        f" split, got {len(members)} from {group_pattern!r} over"
        f" {len(ids)} videos; set `data.validation_fraction` to 0 or change"
        " the pattern."
    )
  held_out, num_held_out = set(), 0
  ranked = sorted(members, key=lambda group: _group_rank(group, seed))
  for group in ranked[:-1]:  # One group stays to train on.
    missing = fraction * len(ids) - num_held_out
    # Stop where one more group would miss the share by more than it misses now.
    if held_out and members[group] - missing >= missing:
      break
    held_out.add(group)
    num_held_out += members[group]
  is_held_out = np.array([group in held_out for group in groups])
  return rows[~is_held_out], rows[is_held_out]


def _group_names(ids: np.ndarray, group_pattern: str) -> list[str]:
  try:
    pattern = re.compile(group_pattern)
  except re.error as error:
    raise InputError(
        "`data.validation_group_pattern` must be a regular expression, got"
        f" {group_pattern!r} ({error})."
    ) from error
  if group_pattern and not pattern.groups:
    raise InputError(
        "`data.validation_group_pattern` must have a group in parentheses,"
        f" got {group_pattern!r}; try {'(' + group_pattern + ')'!r}."
    )
  if not group_pattern:
    return [f"video {video_id}" for video_id in ids]
  names = []
  for video_id in ids:
    found = pattern.search(str(video_id))
    group = found.group(1) if found else None
    names.append(f"video {video_id}" if group is None else f"group {group}")
  if group_pattern and not any(name.startswith("group ") for name in names):
    raise InputError(
        f"`data.validation_group_pattern` must occur in the ids, got"
        f" {group_pattern!r} for ids such as {str(ids[0])!r}; set it to '' to"
        " hold out single videos."
    )
  return names


def _group_rank(group: str, seed: int) -> bytes:
  # Python's own hash changes from process to process.
  return hashlib.sha256(f"{seed} {group}".encode()).digest()
