"""Metrics of a run: `metrics.jsonl` and TensorBoard events."""

import json
import os
from typing import Any

import tensorboardX


class MetricWriter:
  """Writes rows of numbers by step; one process of a run owns it.

  A resumed run takes back the rows beyond the step it resumes from, so that
  every step stands once.
  """

  def __init__(self, workdir: str, *, start_step: int) -> None:
    self._path = os.path.join(workdir, "metrics.jsonl")
    _keep_rows_until(self._path, start_step)
    self._file = open(self._path, "a", encoding="utf-8")
    self._events = tensorboardX.SummaryWriter(
        os.path.join(workdir, "tensorboard"), purge_step=start_step + 1
    )

  def write(self, step: int, row: dict[str, Any]) -> None:
    """Appends one row; what is a single number goes to TensorBoard too."""
    self._file.write(json.dumps({"step": step, **row}) + "\n")
    self._file.flush()
    for name, value in row.items():
      if isinstance(value, float):
        self._events.add_scalar(name, value, step)

  def close(self) -> None:
    """Flushes and closes both files."""
    self._file.close()
    self._events.close()


def _keep_rows_until(path: str, step: int) -> None:
  if not os.path.exists(path):
    return
  with open(path, encoding="utf-8") as file:
    # A kill can cut the last line short: it has no newline then.
    rows = [line for line in file if line.endswith("\n")]
  kept = [line for line in rows if json.loads(line)["step"] <= step]
  temporary = f"{path}.tmp"
  with open(temporary, "w", encoding="utf-8") as file:
    file.writelines(kept)
  os.replace(temporary, path)
