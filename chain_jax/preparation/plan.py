"""What one preparation makes, and who owns its output folder."""

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from chain_jax import whole_files
from chain_jax.data.dataset_layout import VERSION, FrameForm, record_file
from chain_jax.errors import InputError, RunError
from chain_jax.preparation.split_rule import SplitRule

FORMAT_VERSION = 1
_LOCK = "lock"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """A preparation: tasks that are independent of each other.

  Attributes:
    output: The folder that the user named.
    name: Of the dataset, a key of `datasets.BUILDERS`.
    form: Of the frames.
    scale: Of the stored values, with `offset`: features = stored * scale +
      offset; a number, or one a dimension.
    offset: See `scale`.
    num_classes: Labels lie below; 0 where nothing is labelled.
    rule: Gives each video its split.
    parts: Per task, the part its videos belong to; see `assign_split`.
    inputs: Per task, [name, size in bytes] of what it reads; tells another
      input from this one, wherever it lies.
    settings: What else decides the content: JSON values.
    remembered: JSON values that decide nothing and are good to know later; the
      dataset's metadata has them among the settings.
    left_out: (name, reason) of inputs that no task reads.
  """

  output: pathlib.Path
  name: str
  form: FrameForm
  scale: float | list[float]
  offset: float | list[float]
  num_classes: int
  rule: SplitRule
  parts: list[str]
  inputs: list[list[list[Any]]]
  settings: dict[str, Any]
  remembered: dict[str, Any] = dataclasses.field(default_factory=dict)
  left_out: Sequence[tuple[str, str]] = dataclasses.field(default_factory=list)

  @property
  def folder(self) -> pathlib.Path:
    """Where the dataset's files lie."""
    return self.output / self.name / VERSION

  @property
  def num_tasks(self) -> int:
    """How many tasks there are; each makes one record file a split."""
    return len(self.parts)

  def journal(self, task: int) -> pathlib.Path:
    """Names the file that says what a finished task did."""
    return self.folder / "preparation" / f"task-{task:05d}.json"

  def locked(self) -> contextlib.AbstractContextManager[None]:
    """Keeps other jobs from doing the same at one time."""
    return whole_files.locked(self.folder / "preparation" / _LOCK)

  def record_file(self, split: str, task: int) -> pathlib.Path:
    """Names the record file of a split that a task writes."""
    return record_file(self.folder, self.name, split, task, self.num_tasks)

  def as_json(self) -> dict[str, Any]:
    """Returns what makes this plan another one than others."""
    return {
        "format_version": FORMAT_VERSION,
        "name": self.name,
        "form": self.form._asdict(),
        "scale": self.scale,
        "offset": self.offset,
        "num_classes": self.num_classes,
        "rule": self.rule._asdict(),
        "parts": self.parts,
        "inputs": self.inputs,
        "settings": self.settings,
    }


def claim_output(plan: Plan) -> None:
  """Makes the output folder this plan's, or finds that it is already.

  Raises:
    InputError: If the folder holds something else, or another preparation (the
      line names what differs).
    RunError: If it cannot be written.
  """
  output, path = plan.output, plan.folder / "preparation" / "plan.json"
  if output.exists() and not output.is_dir():
    raise InputError(f"--output must be a folder, got the file {output}.")
  # Jobs of an array begin at one time, and one may be killed right here.
  if not path.is_file() and _holds_files(output) and not path.is_file():
    raise InputError(
        "--output must be empty, new, or hold this same preparation, got"
        f" {output}, which holds something else; choose another folder."
    )
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with plan.locked():
      if not path.is_file():
        whole_files.write_json(path, plan.as_json())
  except OSError as error:
    raise RunError(
        f"{output}: must be a folder that can be written ({error.strerror});"
        " choose another --output."
    ) from error
  _check_same(path, plan.as_json())


def _holds_files(folder: pathlib.Path) -> bool:
  """Says whether there is any file that no job has just begun."""
  return any(
      not name.startswith(".") and name != _LOCK
      for _, _, names in os.walk(folder)
      for name in names
  )


def _check_same(path: pathlib.Path, wanted: dict[str, Any]) -> None:
  found = whole_files.read_json(
      path,
      must_be="the plan of what --output holds",
      way_out="choose another --output, or remove this one",
  )
  # JSON has neither tuples nor NumPy's numbers.
  wanted = json.loads(json.dumps(wanted))
  differing = [key for key in wanted if found.get(key) != wanted[key]]
  if differing:
    raise InputError(
        f"{path}: --output holds another preparation, which differs in"
        f" {', '.join(differing)}; give the flags and inputs of that one, or"
        " another --output."
    )
