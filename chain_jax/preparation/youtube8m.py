"""YouTube-8M shards -> a dataset folder, one record file a shard and split."""

import argparse
import collections
import dataclasses
import glob
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from chain_jax.data import youtube8m
from chain_jax.data.dataset_layout import FrameForm
from chain_jax.data.examples import Video
from chain_jax.data.tfrecord import BadRecord, read_records
from chain_jax.data.video_names import check_name
from chain_jax.errors import InputError
from chain_jax.preparation import engine, flags
from chain_jax.preparation.plan import Plan
from chain_jax.preparation.split_rule import SplitRule
from chain_jax.preparation.tasks import Item, Note, Skipped

_PARTS = {"train": "train", "evaluation": "evaluation", "input": "all"}
_DEFAULT_SHARES = SplitRule(query_share=0.01, validation_share=0.001)


def run(arguments: Sequence[str]) -> None:
  """Runs `prepare youtube8m`."""
  parser = flags.make_parser(
      "youtube8m",
      description="Turns YouTube-8M frame-level shards into a dataset folder.",
      example=(
          "--train='yt8m/train*.tfrecord' --evaluation='yt8m/validate*.tfrecord'"
          " --output=data/yt8m"
      ),
      shares=_DEFAULT_SHARES,
  )
  _add_input_flags(parser)
  parsed = parser.parse_args(arguments)
  plan, read = make_plan(parsed)
  engine.prepare(plan, read, flags.how(parsed))


def _add_input_flags(parser: argparse.ArgumentParser) -> None:
  for name, what in (
      ("train", "become train and validation"),
      ("evaluation", "become gallery and query"),
      ("input", "become all four splits"),
  ):
    parser.add_argument(
        f"--{name}",
        nargs="+",
        default=[],
        metavar="GLOB",
        help=f"shards, or patterns in quotes, whose videos {what}",
    )
  parser.add_argument(
      "--segments",
      action="store_true",
      help="make a dataset of the rated 5-frame segments (2019) instead",
  )


def make_plan(parsed: argparse.Namespace) -> tuple[Plan, engine.Read]:
  """Finds the shards and plans the work.

  Raises:
    InputError: If a pattern finds no shard, or two flags find the same.
  """
  paths, parts = [], []
  for name, part in _PARTS.items():
    found = find_shards(getattr(parsed, name), flag=f"--{name}")
    paths += found
    parts += [part] * len(found)
  if not paths:
    raise InputError(
        "give shards: --train with --evaluation, or --input for all splits;"
        " see --help."
    )
  path, count = collections.Counter(paths).most_common(1)[0]
  if count > 1:
    raise InputError(
        f"--train, --evaluation and --input must match different files, got"
        f" {path} from several; narrow the patterns."
    )
  rule = flags.split_rule(parsed)
  if parsed.segments and not rule.group_pattern:
    # Segments of one video stay together.
    rule = rule._replace(group_pattern=r"(.*):\d+$")
  plan = Plan(
      output=parsed.output,
      name="yt8m_segments" if parsed.segments else "yt8m_frames",
      form=FrameForm(youtube8m.FEATURE_DIM, "uint8"),
      scale=youtube8m.FEATURE_SCALE,
      offset=youtube8m.FEATURE_OFFSET,
      num_classes=youtube8m.NUM_CLASSES,
      rule=rule,
      parts=parts,
      inputs=[[[path.name, path.stat().st_size]] for path in paths],
      settings={"max_frames": youtube8m.MAX_FRAMES},
  )
  read = ShardReader(tuple(map(str, paths)), segments=parsed.segments)
  return plan, read


def find_shards(patterns: Sequence[str], *, flag: str) -> list[pathlib.Path]:
  """Lists the files that patterns match, by name, none twice.

  Raises:
    InputError: If a pattern matches nothing, or names a folder.
  """
  found: dict[pathlib.Path, None] = {}
  for pattern in patterns:
    found_names = sorted(glob.glob(os.path.expanduser(pattern)))
    paths = [pathlib.Path(name) for name in found_names]
    if not paths:
      raise InputError(
          f"{flag} must match at least one file, got {pattern!r}; check the"
          " folder, and put patterns in quotes."
      )
    for path in paths:
      if not path.is_file():
        raise InputError(
            f"{flag} must match files, got the folder {path}; try"
            f" '{path}/*.tfrecord'."
        )
      check_name(path.name)
      found[path.resolve()] = None
  return sorted(found, key=lambda path: (path.name, path))


@dataclasses.dataclass(frozen=True)
class ShardReader:
  """Reads the videos, or the rated segments, of one shard."""

  paths: tuple[str, ...]
  segments: bool

  def __call__(self, task: int) -> Iterator[Item]:
    """Reads the input of a task."""
    path = pathlib.Path(self.paths[task])
    for record in read_records(path):
      if isinstance(record, BadRecord):
        yield Skipped(path.name, record.offset, record.reason)
        continue
      try:
        video = youtube8m.parse_video(record.payload)
      except youtube8m.RecordError as error:
        yield Skipped(path.name, record.offset, str(error))
        continue
      if video.num_dropped_frames:
        yield Note("videos_of_unequal_rgb_and_audio_or_too_long", 1)
        yield Note("frames_dropped_at_their_ends", video.num_dropped_frames)
      if self.segments:
        yield from _segment_items(video)
      else:
        yield Video(video.id.decode(), video.labels, video.frames)


def _segment_items(video: youtube8m.Youtube8mVideo) -> Iterator[Item]:
  """Cuts out the segments that people found to show a class."""
  for segment in video.segments:
    stop = segment.start + youtube8m.SEGMENT_FRAMES
    if not segment.labels:
      yield Note("segments_without_a_positive_rating_left_out", 1)
    elif stop > len(video.frames):
      yield Note("segments_beyond_the_last_frame_left_out", 1)
    else:
      yield Video(
          f"{video.id.decode()}:{segment.start}",
          np.array(segment.labels, np.int64),
          video.frames[segment.start : stop],
      )
