"""What one preparation makes, and who owns its output folder."""

import dataclasses
import json
import os
import pathlib
from typing import Any

from chain_jax.data.dataset_layout import VERSION, FrameForm, record_file
from chain_jax.errors import InputError, RunError
from chain_jax.preparation.split_rule import SplitRule

FORMAT_VERSION = 1


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
  path = plan.folder / "preparation" / "plan.json"
  if path.is_file():
    _check_same(path, plan.as_json())
    return
  output = plan.output
  if output.exists() and not output.is_dir():
    raise InputError(f"--output must be a folder, got the file {output}.")
  if output.is_dir() and any(output.iterdir()):
    raise InputError(
        f"--output must be empty, new, or hold this same preparation, got"
        f" {output}, which holds something else; choose another folder."
    )
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, plan.as_json())
  except OSError as error:
    raise RunError(
        f"{output}: must be a folder that can be written ({error.strerror});"
        " choose another --output."
    ) from error


def _check_same(path: pathlib.Path, wanted: dict[str, Any]) -> None:
  found = read_json(path)
  # JSON has neither tuples nor NumPy's numbers.
  wanted = json.loads(json.dumps(wanted))
  differing = [key for key in wanted if found.get(key) != wanted[key]]
  if differing:
    raise InputError(
        f"{path}: --output holds another preparation, which differs in"
        f" {', '.join(differing)}; give the flags and inputs of that one, or"
        " another --output."
    )


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
  """Writes a file whole or not at all, and down to the disk."""
  # Two machines of a job array may write the same file with the same content.
  temporary = path.with_suffix(f".{os.getpid()}.tmp")
  with open(temporary, "w", encoding="utf-8") as file:
    json.dump(content, file, ensure_ascii=False)
    file.write("\n")
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Reads a file that `write_json` wrote.

  Raises:
    InputError: If it is damaged.
  """
  try:
    return json.loads(path.read_text("utf-8"))
  except (OSError, ValueError) as error:
    raise InputError(
        f"{path} must be a JSON file of a preparation, could not be read"
        f" ({error}); delete it and run the same command again."
    ) from error
