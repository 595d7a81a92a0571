"""One task of a preparation: videos in, one record file a split out."""

import collections
import contextlib
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import crc32c
from array_record.python import array_record_module

from chain_jax.data import examples
from chain_jax.errors import RunError
from chain_jax.preparation.plan import Plan, read_json, write_json
from chain_jax.preparation.split_rule import assign_split

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
    self.path = plan.record_file(split, task)
    self.partial = self.path.with_name(f".{self.path.name}.partial")
    self.partial.unlink(missing_ok=True)
    self._writer = array_record_module.ArrayRecordWriter(
        str(self.partial), WRITER_OPTIONS
    )
    self.ids, self.labels, self.num_frames = [], [], []
    self.num_bytes, self.checksum = 0, 0

  def add(self, video: examples.Video) -> None:
    """Writes one video."""
    record = examples.encode_video(video)
    self._writer.write(record)
    self.ids.append(video.id)
    self.labels.append([int(label) for label in video.labels])
    self.num_frames.append(len(video.frames))
    self.num_bytes += len(record)
    self.checksum = crc32c.crc32c(record, self.checksum)

  def close(self) -> dict[str, Any]:
    """Puts the file in its place; returns its part of the journal."""
    self._writer.close()
    descriptor = os.open(self.partial, os.O_RDONLY)
    try:
      os.fsync(descriptor)
    finally:
      os.close(descriptor)
    file_bytes = self.partial.stat().st_size
    os.replace(self.partial, self.path)
    return {
        "ids": self.ids,
        "labels": self.labels,
        "num_frames": self.num_frames,
        "num_bytes": self.num_bytes,
        "file_bytes": file_bytes,
        "crc32c": f"{self.checksum:08x}",
    }

  def discard(self) -> None:
    """Leaves nothing behind."""
    with contextlib.suppress(Exception):
      self._writer.close()
    self.partial.unlink(missing_ok=True)


def is_done(plan: Plan, task: int) -> bool:
  """Says whether a task was finished and its files are still whole."""
  if not plan.journal(task).is_file():
    return False
  for split, shard in read_json(plan.journal(task))["splits"].items():
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
    RunError: If a file cannot be written; what other tasks wrote stays valid.
  """
  writers: dict[str, _SplitWriter] = {}
  skipped: list[Skipped] = []
  notes: collections.Counter[str] = collections.Counter()
  first_seen: set[str] = set()
  try:
    for item in items:
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
        writers[split].add(item)
    splits = {split: writers[split].close() for split in sorted(writers)}
    journal = {"splits": splits, "notes": notes, "skipped": skipped}
    write_json(plan.journal(task), journal)
  # ArrayRecord reports a full disk as a RuntimeError.
  except (OSError, RuntimeError) as error:
    if isinstance(error, RunError):
      raise
    reason = " ".join(str(error).split())[:200]
    raise RunError(
        f"{plan.folder}: task {task} could not be written ({reason}); make room"
        " and run the same command again, finished record files stay."
    ) from error
  finally:
    for writer in writers.values():
      writer.discard()


def drop_videos(plan: Plan, task: int, split: str, ids: set[str]) -> None:
  """Writes one record file of a finished task again without some videos."""
  journal = read_json(plan.journal(task))
  shard = journal["splits"][split]
  reader = array_record_module.ArrayRecordReader(
      str(plan.record_file(split, task)), "readahead_buffer_size:0"
  )
  writer = _SplitWriter(plan, split, task)
  try:
    for row, video_id in enumerate(shard["ids"]):
      if video_id in ids:
        continue
      shape = plan.form.shape(shard["num_frames"][row])
      frames = examples.decode_frames(
          reader.read([row])[0], shape=shape, dtype=plan.form.numpy_dtype
      )
      writer.add(examples.Video(video_id, shard["labels"][row], frames))
    # Without its journal the task is done anew, should this be the end here.
    plan.journal(task).unlink()
    journal["splits"][split] = writer.close()
  finally:
    writer.discard()
  reason = "two videos with one id, {!r}: the first, of another file, is kept"
  journal["skipped"] += [
      Skipped(plan.inputs[task][0][0], None, reason.format(video_id))
      for video_id in sorted(ids)
  ]
  write_json(plan.journal(task), journal)
