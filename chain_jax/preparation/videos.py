"""A folder of video files -> a dataset folder of frame features."""

import argparse
import dataclasses
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from chain_jax import command_line, frame_features, progress
from chain_jax.data import video_decoding, video_folder
from chain_jax.data.dataset_layout import FrameForm
from chain_jax.data.examples import Video
from chain_jax.data.video_folder import VideoList
from chain_jax.data.video_names import shown
from chain_jax.data.video_views import VideoFile, ViewLoader
from chain_jax.errors import InputError
from chain_jax.models.backbones.loading import BACKBONES
from chain_jax.preparation import engine, flags
from chain_jax.preparation.plan import Plan
from chain_jax.preparation.split_rule import SplitRule
from chain_jax.preparation.tasks import Item, Skipped

_DEFAULT_SHARES = SplitRule(query_share=0.1)


def run(arguments: Sequence[str]) -> None:
  """Runs `prepare videos`."""
  parsed = make_parser().parse_args(arguments)
  plan, reader = make_plan(parsed)
  engine.prepare(plan, reader, flags.how(parsed), read_many=reader.read_many)


def make_parser() -> argparse.ArgumentParser:
  """Makes the parser of `prepare videos`."""
  parser = flags.make_parser(
      "videos",
      description=(
          "Turns a folder of video files into a dataset of frame features:"
          " decodes, draws spatial variants, runs a backbone."
      ),
      example=(
          "--input=clips --output=data/clips --backbone=squeezenet"
          " --weights=squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"
      ),
      shares=_DEFAULT_SHARES,
  )
  _add_flags(parser)
  return parser


def _add_flags(parser: command_line.CommandParser) -> None:
  parser.add_argument(
      "--input",
      required=True,
      type=flags.path,
      metavar="DIR",
      help="videos in class folders, or all in one folder without labels",
  )
  parser.add_argument(
      "--labels",
      metavar="folders|none|FILE.csv",
      help="folders: the first folder's name is the class; none: no classes,"
      " folders of any depth; a file: lines of path,label that name the videos"
      " (default: folders, or none where all videos lie directly in --input)",
  )
  parser.add_argument(
      "--csv", metavar="FILE", help="an older name of --labels=FILE.csv"
  )
  parser.add_argument(
      "--backbone", choices=BACKBONES, required=True, help="the network"
  )
  parser.add_argument("--weights", metavar="FILE", help="of the network")
  for name, default, what in (
      ("num_frames", 25, "frames a video, evenly over its time"),
      ("num_variants", 4, "of each frame; 1 = the plain centre alone"),
      ("videos_per_shard", 64, "videos a task; what a kill can lose"),
      ("timeout_seconds", 60, "a video may take so long to decode"),
      ("seed", 0, "of the variants"),
  ):
    parser.add_number(name, default, what)


@dataclasses.dataclass(frozen=True)
class VideoReader:
  """Reads the videos of a task as features.

  Attributes:
    files: By task.
    labels: By id; none where nothing is labelled.
    load: Decodes a file.
    backbone: Name of the network.
    weights: Its file.
    num_workers: Processes that decode.
    timeout_seconds: For one file.
  """

  files: list[list[VideoFile]]
  labels: dict[str, tuple[int, ...]]
  load: ViewLoader
  backbone: str
  weights: str | None
  num_workers: int
  timeout_seconds: float

  def __call__(self, task: int) -> Iterator[Item]:
    """Reads the videos of one task."""
    yield from next(self.read_many([task]))

  def read_many(self, tasks: list[int]) -> Iterator[Iterator[Item]]:
    """Reads tasks in turn; decoding runs ahead over their borders."""
    files = [file for task in tasks for file in self.files[task]]
    decoded = progress.track(
        video_decoding.decode_videos(
            self.load,
            files,
            num_workers=self.num_workers,
            timeout_seconds=self.timeout_seconds,
        ),
        total=len(files),
        what="prepare",
    )
    for task in tasks:
      yield self._items(itertools.islice(decoded, len(self.files[task])))

  def _items(self, decoded: Iterator) -> Iterator[Item]:
    backbone = frame_features.cached_backbone(self.backbone, self.weights)
    for file, views in decoded:
      if isinstance(views, video_decoding.DecodeFailure):
        yield Skipped(file.id, None, views.reason)
        continue
      try:
        frames = frame_features.extract_features(backbone, views)
      except InputError as error:
        yield Skipped(file.id, None, str(error))
        continue
      if self.load.num_variants == 1:
        frames = frames[:, 0]
      labels = np.array(self.labels.get(file.id, ()), np.int64)
      yield Video(file.id, labels, frames)


def make_plan(parsed: argparse.Namespace) -> tuple[Plan, VideoReader]:
  """Lists the videos and plans the work.

  Raises:
    InputError: If there are no videos, or the backbone or its weights are
      not what they must be.
  """
  _check_numbers(parsed)
  videos = _list_videos(parsed)
  backbone = frame_features.cached_backbone(parsed.backbone, parsed.weights)
  load = ViewLoader(
      parsed.num_frames, parsed.num_variants, backbone.image_size, parsed.seed
  )
  files = _shards(videos, parsed.videos_per_shard)
  labels = dict(zip(videos.ids, videos.labels or (), strict=False))
  plan = Plan(
      output=parsed.output,
      name="video_features",
      form=FrameForm(backbone.feature_dim, "float16", parsed.num_variants),
      scale=1.0,
      offset=0.0,
      num_classes=len(videos.classes),
      rule=flags.split_rule(parsed),
      parts=["all"] * len(files),
      inputs=[
          [[file.id, _num_bytes(file.path)] for file in shard]
          for shard in files
      ],
      settings={
          "backbone": backbone.name,
          "weights_checksum": backbone.weights_checksum,
          **load._asdict(),
          "classes": videos.classes,
          "labels_checksum": _checksum(labels),
      },
      remembered=frame_features.remembered_weights(parsed.weights),
      left_out=videos.left_out,
  )
  return plan, VideoReader(
      files,
      labels,
      load,
      parsed.backbone,
      parsed.weights,
      num_workers=parsed.num_workers,
      timeout_seconds=float(parsed.timeout_seconds),
  )


def _list_videos(parsed: argparse.Namespace) -> VideoList:
  """Lists the videos and prints what was understood."""
  if parsed.csv and parsed.labels:
    raise InputError(
        "--csv is an older name of --labels=FILE.csv, got both; give --labels."
    )
  labels, file = parsed.labels, parsed.csv
  if labels is None:
    labels = video_folder.AUTOMATIC
  elif labels not in (video_folder.BY_FOLDER, video_folder.NO_LABELS):
    labels, file = video_folder.AUTOMATIC, labels
    if not os.path.exists(os.path.expanduser(file)):
      raise InputError(
          "--labels must be folders, none or a CSV file that exists, got"
          f" {file!r}; see --help."
      )
  videos = video_folder.list_videos(
      parsed.input, labels=labels, csv=flags.path(file) if file else None
  )
  for line in videos.remarks:
    print(f"note: {line}", file=sys.stderr)
  num_videos, num_classes = len(videos.ids), len(videos.classes)
  classes = "no classes"
  if num_classes:
    classes = f"{num_classes:,} class{'es' if num_classes > 1 else ''}"
    classes += f" by {shown(file) if file else 'folder'}"
  print(f"{num_videos:,} video{'s' if num_videos > 1 else ''}, {classes}")
  return videos


def _num_bytes(path: str) -> int | None:
  try:
    return os.stat(path).st_size
  except OSError:  # A dead link, say: decoding it will say so.
    return None


def _checksum(labels: dict[str, tuple[int, ...]]) -> str:
  """Tells the labels of another CSV file from these."""
  return hashlib.sha256(json.dumps(labels).encode()).hexdigest()


def _check_numbers(parsed: argparse.Namespace) -> None:
  for name in (
      "num_frames",
      "num_variants",
      "videos_per_shard",
      "timeout_seconds",
  ):
    if getattr(parsed, name) < 1:
      raise InputError(
          f"--{name} must be >= 1, got {getattr(parsed, name)}; see --help."
      )
  if parsed.timeout_seconds > 10**6:  # What no clock holds is no limit.
    raise InputError(
        f"--timeout_seconds must be <= {10**6}, got {parsed.timeout_seconds}."
    )
  if parsed.seed < 0:
    raise InputError(f"--seed must be >= 0, got {parsed.seed}.")


def _shards(videos: VideoList, size: int) -> list[list[VideoFile]]:
  files = [
      VideoFile(str(path), video_id)
      for path, video_id in zip(videos.paths, videos.ids, strict=True)
  ]
  return [files[start : start + size] for start in range(0, len(files), size)]
