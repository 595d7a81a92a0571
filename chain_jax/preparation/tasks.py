"""One task of a preparation: videos in, one record file a split out."""

import collections
import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import crc32c
from array_record.python import array_record_module

from chain_jax import errors, whole_files
from chain_jax.data import examples
from chain_jax.errors import InputError, RunError
from chain_jax.preparation.plan import Plan
from chain_jax.preparation.split_rule import assign_split
from chain_jax.whole_files import write_json

# A record a group: any video is read without its neighbours. Quantised
# features hardly compress, and packing them takes six times as long.
WRITER_OPTIONS = "group_size:1,uncompressed"
# Notes from which the manifest gives the error of storing features rounded.
SQUARED_ERROR, SQUARES = "squared_error", "squares"


class Skipped(NamedTuple):
  """A video that could not be read.

  Attributes:
    source: Name of its file.
    where: Its place there, such as a byte offset; None for the whole file.
    reason: What is wrong with it.
  """

  source: str
  where: int | None
  reason: str


class Note(NamedTuple):
  """Something worth counting that loses no video."""

  name: str
  count: float


Item = examples.Video | Skipped | Note


class _SplitWriter:
  """One record file, under another name until it is whole."""

  def __init__(self, plan: Plan, split: str, task: int):
    self._path = plan.record_file(split, task)
    self._partial = whole_files.partial_name(self._path)
    self._writer = array_record_module.ArrayRecordWriter(
        str(self._partial), WRITER_OPTIONS
    )
    self._ids, self._labels, self._num_frames = [], [], []
    self._num_bytes, self._checksum = 0, 0

  def add(self, video: examples.Video) -> None:
    """Writes one video."""
    record = examples.encode_video(video)
    self._writer.write(record)
    self._ids.append(video.id)
    self._labels.append([int(label) for label in video.labels])
    self._num_frames.append(len(video.frames))
    self._num_bytes += len(record)
    self._checksum = crc32c.crc32c(record, self._checksum)

  def close(self) -> dict[str, Any]:
    """Ends the file, puts it in its place; returns its part of the journal."""
    self._writer.close()
    file_bytes = self._partial.stat().st_size
    whole_files.put_in_place(self._partial, self._path)
    return {
        "ids": self._ids,
        "labels": self._labels,
        "num_frames": self._num_frames,
        "num_bytes": self._num_bytes,
        "file_bytes": file_bytes,
        "crc32c": f"{self._checksum:08x}",
    }

  def discard(self) -> None:
    """Leaves nothing behind."""
    with contextlib.suppress(Exception):
      self._writer.close()
    self._partial.unlink(missing_ok=True)


def read_journal(plan: Plan, task: int) -> dict[str, Any] | None:
  """Returns what a finished task noted; None where that is not known."""
  try:
    journal = whole_files.read_json(
        plan.journal(task), must_be="a journal", way_out="do the task again"
    )
  except InputError:
    return None
  checksum = journal.pop("crc32c", None)
  return journal if checksum == _checksum(journal) else None


def _write_journal(plan: Plan, task: int, journal: dict[str, Any]) -> None:
  write_json(plan.journal(task), {"crc32c": _checksum(journal), **journal})


def _checksum(journal: dict[str, Any]) -> str:
  return f"{crc32c.crc32c(json.dumps(journal).encode()):08x}"


def is_done(plan: Plan, task: int) -> bool:
  """Says whether a task was finished and its files are still whole."""
  journal = read_journal(plan, task)
  if journal is None:
    return False
  for split, shard in journal["splits"].items():
    path = plan.record_file(split, task)
    if not path.is_file() or path.stat().st_size != shard["file_bytes"]:
      return False
  return True


def write_task(plan: Plan, task: int, items: Iterable[Item]) -> None:
  """Writes the record files of a task, and then its journal.

  A killed task leaves no journal, and is done again from its start; files
  that lack a journal are replaced.

  Args:
    plan: The preparation.
    task: Its number.
    items: What reading the task's input gives, in order. A video whose id was
      there before is skipped, so the first one counts.

  Raises:
    RunError: If the input cannot be read to its end, or a file cannot be
      written; what other tasks wrote stays valid.
  """
  writers: dict[str, _SplitWriter] = {}
  skipped: list[Skipped] = []
  notes: collections.Counter[str] = collections.Counter()
  first_seen: set[str] = set()
  with _writing(plan, task), contextlib.ExitStack() as at_end:
    for item in _reading(plan, task, items):
      if isinstance(item, Note):
        notes[item.name] += item.count
      elif isinstance(item, Skipped):
        skipped.append(item)
      elif item.id in first_seen:
        source = plan.inputs[task][0][0]
        reason = f"two videos with one id, {item.id!r}: the first is kept"
        skipped.append(Skipped(source, None, reason))
      else:
        first_seen.add(item.id)
        split = assign_split(plan.rule, item.id, part=plan.parts[task])
        if split not in writers:
          writers[split] = _SplitWriter(plan, split, task)
          at_end.callback(writers[split].discard)
        writers[split].add(item)
    splits = {split: writers[split].close() for split in sorted(writers)}
    _write_journal(
        plan, task, {"splits": splits, "notes": notes, "skipped": skipped}
    )


def _reading(plan: Plan, task: int, items: Iterable[Item]) -> Iterator[Item]:
  """Passes items on; says which input it was that could not be read."""
  try:
    yield from items
  except (OSError, RuntimeError) as error:
    if isinstance(error, RunError):
      raise
    raise RunError(
        f"{plan.inputs[task][0][0]}: must be readable, got an error"
        f" ({_one_line(error)}); run the same command again, finished record"
        " files stay."
    ) from error


@contextlib.contextmanager
def _writing(plan: Plan, task: int) -> Iterator[None]:
  try:
    yield
  # ArrayRecord reports a full disk as a RuntimeError.
  except (OSError, RuntimeError) as error:
    if isinstance(error, RunError):
      raise
    raise RunError(
        f"{plan.folder}: task {task} could not be written ({_one_line(error)});"
        " make room and run the same command again, finished record files stay."
    ) from error


def _one_line(error: Exception) -> str:
  return " ".join(str(error).split())[:200]


def drop_videos(plan: Plan, task: int, split: str, ids: set[str]) -> None:
  """Writes one record file of a finished task again without some videos.

  Raises:
    RunError: If it cannot be written.
  """
  journal = read_journal(plan, task)
  shard = journal["splits"].pop(split)
  with _writing(plan, task), contextlib.ExitStack() as at_end:
    writer = None
    if not ids.issuperset(shard["ids"]):
      writer = _SplitWriter(plan, split, task)
      at_end.callback(writer.discard)
      for video in _kept(plan, shard, task, split, without=ids):
        writer.add(video)
    # Without its journal the task is done anew, should this be the end here.
    plan.journal(task).unlink()
    if writer:
      journal["splits"][split] = writer.close()
    else:
      plan.record_file(split, task).unlink()
    reason = "two videos with one id, {!r}: the first, of another file, is kept"
    journal["skipped"] += [
        Skipped(plan.inputs[task][0][0], None, reason.format(video_id))
        for video_id in sorted(ids)
    ]
    _write_journal(plan, task, journal)


def _kept(
    plan: Plan,
    shard: dict[str, Any],
    task: int,
    split: str,
    *,
    without: set[str],
) -> Iterator[examples.Video]:
  path = plan.record_file(split, task)
  kept = [row for row, name in enumerate(shard["ids"]) if name not in without]
  with errors.reading(
      path,
      must_be="whole",
      way_out="delete it and run the same command again",
  ):
    reader = array_record_module.ArrayRecordReader(
        str(path), "readahead_buffer_size:0"
    )
    for row in kept:
      frames = examples.decode_frames(
          reader.read([row])[0],
          shape=plan.form.shape(shard["num_frames"][row]),
          dtype=plan.form.numpy_dtype,
      )
      yield examples.Video(shard["ids"][row], shard["labels"][row], frames)
