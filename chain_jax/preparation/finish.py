"""When all tasks are done: indexes, metadata, and one manifest."""

import collections
import math
from collections.abc import Iterator
from typing import Any

import crc32c
import numpy as np

from chain_jax import provenance, whole_files
from chain_jax.data import dataset_layout as layout
from chain_jax.errors import InputError, RunError
from chain_jax.labels import Labels
from chain_jax.preparation import tasks
from chain_jax.preparation.plan import (
    FORMAT_VERSION,
    Plan,
)
from chain_jax.preparation.split_rule import SPLITS

# The line of a skipped video names this many; the manifest names all.
_NUM_LISTED = 20


def finish(plan: Plan) -> dict[str, Any]:
  """Turns the record files of all tasks into a dataset.

  May be done twice, also by two machines that end at one time: one waits for
  the other, and the content is the same.

  Args:
    plan: A preparation whose tasks are all done.

  Returns:
    The manifest, as `manifest.json` holds it.

  Raises:
    InputError: If no video could be read.
    RunError: If a file cannot be written, or another job does a task anew.
  """
  try:
    with plan.locked():
      return _finish(plan)
  except OSError as error:
    raise RunError(
        f"{plan.folder}: index and manifest could not be written ({error}); make"
        " room and run the same command again, finished record files stay."
    ) from error


def _finish(plan: Plan) -> dict[str, Any]:
  _drop_repeated(plan)
  journals = [_journal(plan, task) for task in range(plan.num_tasks)]
  splits = {
      split: [journal["splits"].get(split) for journal in journals]
      for split in SPLITS
      if any(split in journal["splits"] for journal in journals)
  }
  manifest = _manifest(plan, journals, splits)
  whole_files.write_json(plan.folder / "manifest.json", manifest)
  if not splits:
    raise InputError(
        f"{plan.output}: the input must hold at least one video, got none and"
        f" {len(manifest['skipped'])} skipped (see"
        f" {plan.folder / 'manifest.json'}); mend it and prepare into a new"
        " --output."
    )
  for split in SPLITS:
    path = layout.index_file(plan.folder, split)
    if split in splits:
      index = _make_index(splits[split], num_classes=plan.num_classes)
      layout.write_index(path, index)
    else:
      path.unlink(missing_ok=True)
  # The last files: a folder that has them is a whole dataset.
  _write_tfds_files(plan, splits)
  whole_files.remove_leftovers(plan.folder)
  whole_files.remove_leftovers(plan.folder / "preparation")
  return manifest


def _journal(plan: Plan, task: int) -> dict[str, Any]:
  journal = tasks.read_journal(plan, task)
  if journal is None:
    raise RunError(
        f"{plan.journal(task)}: must say what task {task} did, is missing or"
        " damaged; run the same command again."
    )
  return journal


def _drop_repeated(plan: Plan) -> None:
  """Keeps the first of videos of one id that lie in several tasks' files."""
  first_seen: set[str] = set()
  for task in range(plan.num_tasks):
    for split, shard in _journal(plan, task)["splits"].items():
      repeated = first_seen.intersection(shard["ids"])
      first_seen.update(shard["ids"])
      if repeated:
        tasks.drop_videos(plan, task, split, repeated)


def _make_index(
    shards: list[dict[str, Any] | None], *, num_classes: int
) -> layout.SplitIndex:
  ids, counts, indices, num_frames = [], [], [], []
  for shard in shards:
    if shard is not None:
      ids += shard["ids"]
      num_frames += shard["num_frames"]
      counts += map(len, shard["labels"])
      indices += [label for labels in shard["labels"] for label in labels]
  indptr = np.concatenate([[0], np.cumsum(np.asarray(counts, np.int64))])
  return layout.SplitIndex(
      ids=np.array(ids, np.str_),
      labels=Labels(
          indptr.astype(np.int64), np.array(indices, np.int64), num_classes
      ),
      num_frames=np.array(num_frames, np.int32),
      shard_lengths=np.array(
          [len(shard["ids"]) if shard else 0 for shard in shards], np.int64
      ),
  )


def _manifest(
    plan: Plan,
    journals: list[dict[str, Any]],
    splits: dict[str, list[dict[str, Any] | None]],
) -> dict[str, Any]:
  notes: collections.Counter[str] = collections.Counter()
  for journal in journals:
    notes.update(journal["notes"])
  if tasks.SQUARES in notes:
    error, squares = notes.pop(tasks.SQUARED_ERROR), notes.pop(tasks.SQUARES)
    # Where all is 0, it is so exactly.
    error = math.sqrt(error / squares) if squares else 0.0
    notes["relative_rms_error_of_rounding"] = error
  return {
      "format_version": FORMAT_VERSION,
      "plan": plan.as_json(),
      "splits": {
          split: {
              "num_videos": sum(len(s["ids"]) for s in shards if s),
              "num_frames": sum(sum(s["num_frames"]) for s in shards if s),
              "num_labels": sum(
                  sum(map(len, s["labels"])) for s in shards if s
              ),
              "num_bytes": sum(s["num_bytes"] for s in shards if s),
              "crc32c": _checksum(shards),
          }
          for split, shards in splits.items()
      },
      # Of the records of a file, one after another.
      "crc32c": {
          plan.record_file(split, task).name: shard["crc32c"]
          for split, shards in splits.items()
          for task, shard in enumerate(shards)
          if shard
      },
      "notes": dict(sorted(notes.items())),
      "skipped": [skipped._asdict() for skipped in _skipped(plan, journals)],
      "package_versions": provenance.package_versions(),
  }


def _skipped(
    plan: Plan, journals: list[dict[str, Any]]
) -> Iterator[tasks.Skipped]:
  for name, reason in plan.left_out:
    yield tasks.Skipped(name, None, reason)
  for journal in journals:
    yield from (tasks.Skipped(*skipped) for skipped in journal["skipped"])


def _checksum(shards: list[dict[str, Any] | None]) -> str:
  """Sums the checksums of a split's record files up, in order."""
  checksums = "".join(shard["crc32c"] for shard in shards if shard)
  return f"{crc32c.crc32c(checksums.encode()):08x}"


def _write_tfds_files(
    plan: Plan, splits: dict[str, list[dict[str, Any] | None]]
) -> None:
  # Deferred: it takes a second, and the processes that work need none of it.
  from chain_jax.data import datasets

  datasets.write_metadata(
      plan.folder,
      plan.name,
      plan.form,
      {
          split: datasets.SplitFiles(
              shard_lengths=[len(s["ids"]) if s else 0 for s in shards],
              num_bytes=sum(s["num_bytes"] for s in shards if s),
          )
          for split, shards in splits.items()
      },
      plan.form._asdict()
      | {
          "scale": plan.scale,
          "offset": plan.offset,
          "num_classes": plan.num_classes,
          "settings": plan.settings | plan.remembered,
      },
  )


def format_summary(manifest: dict[str, Any]) -> str:
  """Says what was written and what was not, a line each."""
  lines = [
      f"{split:<10}  {one['num_videos']:>9,} videos  {one['num_frames']:>12,}"
      f" frames  {one['num_labels']:>10,} labels"
      f"  {one['num_bytes'] / 2**20:>10,.1f} MiB  crc32c {one['crc32c']}"
      for split, one in manifest["splits"].items()
  ]
  for name, count in manifest["notes"].items():
    lines.append(f"{name.replace('_', ' ')}: {count:,.6g}")
  skipped = manifest["skipped"]
  for one in skipped[:_NUM_LISTED]:
    where = "" if one["where"] is None else f", at {one['where']}"
    lines.append(f"skipped: {one['source']}{where}: {one['reason']}")
  if len(skipped) > _NUM_LISTED:
    lines.append(f"... and {len(skipped) - _NUM_LISTED} more")
  lines.append(f"{len(skipped)} skipped; all are listed in manifest.json")
  return "\n".join(lines)
