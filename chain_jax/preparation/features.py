"""Feature files -> a dataset folder."""

import argparse
import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from chain_jax import command_line
from chain_jax.data.dataset_layout import FrameForm
from chain_jax.data.examples import Video
from chain_jax.data.feature_files import FeatureFile, open_feature_file
from chain_jax.errors import InputError
from chain_jax.preparation import engine, flags, tasks
from chain_jax.preparation.plan import Plan
from chain_jax.preparation.rounding import as_float32, measure_scale, quantise
from chain_jax.preparation.split_rule import SplitRule
from chain_jax.preparation.tasks import Item, Note, Skipped

_PARTS = ("train", "validation", "gallery", "query")
_LARGEST_FLOAT16 = 65504.0
_NUM_SAMPLES, _SAMPLE_BYTES = 64, 2**14


def run(arguments: Sequence[str]) -> None:
  """Runs `prepare features`."""
  parser = flags.make_parser(
      "features",
      description="Turns files of frame features into a dataset folder.",
      example=(
          "--train=ucf_train_feats.h5 --train_labels=ucf_train_labels.mat"
          " --query=ucf_test_feats.h5 --query_labels=ucf_test_labels.mat"
          " --output=data/ucf101"
      ),
      shares=SplitRule(),
  )
  _add_file_flags(parser)
  parsed = parser.parse_args(arguments)
  plan, read = make_plan(parsed)
  engine.prepare(plan, read, flags.how(parsed))


def _add_file_flags(parser: command_line.CommandParser) -> None:
  for part in ("input", *_PARTS):
    which = "all splits, dealt out by the shares" if part == "input" else part
    parser.add_argument(
        f"--{part}",
        metavar="FILE",
        help=f".h5, .npz or .npy with `feats` [n, frames, dim]: {which}",
    )
    parser.add_argument(
        f"--{part}_labels",
        metavar="FILE",
        help="its labels: .mat or .npy; default: `labels` in the same file",
    )
  parser.add_argument(
      "--labels_key",
      default="labels",
      metavar="KEY",
      help="of the matrix in .mat files (default: %(default)s)",
  )
  parser.add_argument(
      "--dtype",
      choices=("float16", "uint8"),
      default="float16",
      help="as stored; uint8 has a scale and offset a dimension and the error"
      " is measured (default: %(default)s)",
  )
  parser.add_number("videos_per_shard", 1024, "videos a task")


@dataclasses.dataclass(frozen=True)
class _Rows:
  """What one task reads: rows of one file."""

  path: str
  labels_path: str | None
  labels_key: str
  start: int
  stop: int

  def open(self) -> FeatureFile:
    """Opens the file, once a process."""
    return _open(self.path, self.labels_path, self.labels_key)


@functools.lru_cache(maxsize=16)
def _open(path: str, labels_path: str | None, labels_key: str) -> FeatureFile:
  return open_feature_file(path, labels_path=labels_path, labels_key=labels_key)


@dataclasses.dataclass(frozen=True)
class _Reader:
  """Reads the videos of a task in the form of the dataset."""

  rows: list[_Rows]
  dtype: str
  scale: np.ndarray
  offset: np.ndarray

  def __call__(self, task: int) -> Iterator[Item]:
    """Reads the input of a task."""
    rows = self.rows[task]
    file = rows.open()
    for row in range(rows.start, rows.stop):
      video_id = str(file.ids[row])
      try:
        frames = file.read_frames(row)
        stored, notes = self._store(frames)
      except InputError as error:
        yield Skipped(pathlib.Path(rows.path).name, row, str(error))
        continue
      labels = np.zeros(0, np.int64)
      if file.labels is not None:
        labels = file.labels.of(row)
      yield Video(video_id, labels, stored)
      yield from notes

  def _store(self, frames: np.ndarray) -> tuple[np.ndarray, list[Note]]:
    values = as_float32(frames)
    if self.dtype == "float16":
      if np.abs(values).max() > _LARGEST_FLOAT16:
        raise InputError(
            f"features must be at most {_LARGEST_FLOAT16:.0f} to be stored as"
            f" float16, got {np.abs(values).max()}; use --dtype=uint8."
        )
      return frames.astype(np.float16), []
    stored = quantise(values, self.scale, self.offset)
    error = stored * self.scale + self.offset - values
    return stored, [
        Note(
            tasks.SQUARED_ERROR, float(np.square(error, dtype=np.float64).sum())
        ),
        Note(tasks.SQUARES, float(np.square(values, dtype=np.float64).sum())),
    ]


def make_plan(parsed: argparse.Namespace) -> tuple[Plan, engine.Read]:
  """Opens the files and plans the work.

  Raises:
    InputError: If a file is missing, damaged, or unlike the others.
  """
  rows, parts = [], []
  for part in _given_parts(parsed):
    part_rows = _rows_of(parsed, part)
    rows += part_rows
    parts += ["all" if part == "input" else part] * len(part_rows)
  files = list({row.path: row.open() for row in rows}.values())
  _check_alike(files)
  scale, offset = 1.0, 0.0
  if parsed.dtype == "uint8":
    scale, offset = measure_scale(files[0])
  plan = Plan(
      output=parsed.output,
      name="video_features",
      form=FrameForm(files[0].feature_dim, parsed.dtype, files[0].num_variants),
      scale=np.asarray(scale, np.float64).tolist(),
      offset=np.asarray(offset, np.float64).tolist(),
      num_classes=max(f.labels.num_classes if f.labels else 0 for f in files),
      rule=flags.split_rule(parsed),
      parts=parts,
      inputs=[
          [[pathlib.Path(r.path).name, pathlib.Path(r.path).stat().st_size]]
          for r in rows
      ],
      settings={
          "rows": [[r.start, r.stop] for r in rows],
          "checksums": [_checksum(file) for file in files],
      },
  )
  return plan, _Reader(
      rows,
      parsed.dtype,
      np.asarray(scale, np.float32),
      np.asarray(offset, np.float32),
  )


def _checksum(file: FeatureFile) -> str:
  """Tells a file from another of its name and size; reads little of it."""
  digest = hashlib.sha256("\n".join(file.ids.tolist()).encode())
  if file.labels is not None:
    digest.update(file.labels.indptr.data)
    digest.update(file.labels.indices.data)
  with open(file.path, "rb") as opened:
    num_bytes = file.path.stat().st_size
    for place in range(_NUM_SAMPLES):
      opened.seek(num_bytes * place // _NUM_SAMPLES)
      digest.update(opened.read(_SAMPLE_BYTES))
  return digest.hexdigest()


def _given_parts(parsed: argparse.Namespace) -> list[str]:
  given = [part for part in ("input", *_PARTS) if getattr(parsed, part)]
  if not given or ("input" in given and len(given) > 1):
    raise InputError(
        "give either --input, whose videos are dealt out to all splits, or"
        " --train with --gallery and --query; see --help."
    )
  for part in ("input", *_PARTS):
    if getattr(parsed, f"{part}_labels") and part not in given:
      raise InputError(
          f"--{part}_labels must come with --{part}, got --{given[0]} instead;"
          f" give --{given[0]}_labels, or --{part} too."
      )
  if parsed.videos_per_shard < 1:
    raise InputError(
        f"--videos_per_shard must be >= 1, got {parsed.videos_per_shard}."
    )
  paths = [flags.path(getattr(parsed, part)).resolve() for part in given]
  if len(set(paths)) < len(paths):
    raise InputError(
        "--train, --validation, --gallery and --query must be different files,"
        f" got {', '.join(map(str, paths))}; a gallery that is the train set"
        " is chosen in the config (`data.prepared.gallery_split`)."
    )
  return given


def _rows_of(parsed: argparse.Namespace, part: str) -> list[_Rows]:
  path = os.path.expanduser(getattr(parsed, part))
  labels = getattr(parsed, f"{part}_labels")
  num_videos = len(_open(path, labels, parsed.labels_key))
  size = parsed.videos_per_shard
  return [
      _Rows(
          path, labels, parsed.labels_key, start, min(start + size, num_videos)
      )
      for start in range(0, num_videos, size)
  ]


def _check_alike(files: list[FeatureFile]) -> None:
  first = files[0]
  seen: dict[str, FeatureFile] = {}
  for file in files:
    for what in ("feature_dim", "num_variants"):
      if getattr(file, what) != getattr(first, what):
        raise InputError(
            f"{file.path} must have the {what} of {first.path},"
            f" {getattr(first, what)}, got {getattr(file, what)}; extract both"
            " with one network."
        )
    counts = {f.labels.num_classes for f in (first, file) if f.has_label_matrix}
    if len(counts) > 1:
      raise InputError(
          f"{file.path} must be labelled with the classes of {first.path}, got"
          f" {' and '.join(map(str, sorted(counts)))} classes; take both from"
          " one release."
      )
    for video_id in file.ids.tolist():
      other = seen.setdefault(video_id, file)
      if other is not file:
        raise InputError(
            f"{file.path} must hold other videos than {other.path}, got"
            f" {video_id!r} in both; leave one out. (Files without `ids` are"
            " told apart by their names.)"
        )
