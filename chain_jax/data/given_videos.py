"""The videos that a command line names, as files or as folders."""

import collections
import os
from collections.abc import Sequence
from typing import NamedTuple

from chain_jax import errors
from chain_jax.data import video_walk
from chain_jax.data.video_names import check_name, shown
from chain_jax.data.video_views import VideoFile
from chain_jax.data.video_walk import LeftOut


class GivenVideos(NamedTuple):
  """What was given.

  Attributes:
    files: The videos.
    left_out: What is none of them though it was given, and why.
    remarks: Lines about files in folders that were passed over.
  """

  files: list[VideoFile]
  left_out: list[LeftOut]
  remarks: list[str]


def list_given(paths: Sequence[str]) -> GivenVideos:
  """Lists files and the videos in folders, at any depth.

  Args:
    paths: A file's path is its id, whatever it holds. A video of a folder has
      its path there as its id, or its whole path where another has that id.
  """
  given = GivenVideos([], [], [])
  found: list[tuple[VideoFile, str]] = []  # And its path as given.
  for path in paths:
    place = os.path.expanduser(path)
    if not os.path.isdir(place):
      found.append((VideoFile(place, path), path))
      continue
    walk = video_walk.walk(place, by_class=False)
    given.left_out.extend(walk.left_out)
    given.remarks.extend(f"{shown(path)}: {line}" for line in walk.remarks())
    if not walk.ids:
      given.left_out.append(LeftOut(shown(path), "no video in this folder"))
    for name in walk.ids:
      whole = os.path.join(path, name)
      found.append((VideoFile(os.path.join(place, name), name), whole))
  # The same one given twice is no clash.
  clashes = collections.Counter(file.id for file, _ in set(found))
  for file, whole in found:
    named = file._replace(id=whole) if clashes[file.id] > 1 else file
    try:
      check_name(named.id)
      given.files.append(named)
    except errors.InputError as error:
      given.left_out.append(LeftOut(shown(named.id), str(error)))
  return given
