"""Metrics of a run: `metrics.jsonl` and TensorBoard events."""

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import tensorboardX

from chain_jax import errors, whole_files


class MetricWriter:
  """Writes rows of numbers by step; one process of a run owns it.

  A resumed run takes back the rows beyond the step it resumes from, so that
  every step stands once.
  """

  def __init__(self, workdir: str, *, start_step: int) -> None:
    self._path = os.path.join(workdir, "metrics.jsonl")
    whole_files.remove_leftovers(pathlib.Path(workdir))
    _keep_rows_until(self._path, start_step)
    self._file = open(self._path, "a", encoding="utf-8")
    self._events = tensorboardX.SummaryWriter(
        os.path.join(workdir, "tensorboard"), purge_step=start_step + 1
    )

  def write(self, step: int, row: dict[str, Any]) -> None:
    """Appends one row; what is a single number goes to TensorBoard too."""
    with _said_plainly(self._path):
      self._file.write(json.dumps({"step": step, **row}) + "\n")
      self._file.flush()
      for name, value in row.items():
        if isinstance(value, float):
          self._events.add_scalar(name, value, step)

  def close(self) -> None:
    """Flushes and closes both files."""
    with _said_plainly(self._path):
      self._file.close()
      self._events.close()


@contextlib.contextmanager
def _said_plainly(path: str) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise errors.RunError(
        f"{path}: metrics could not be written ({error.strerror}); free some"
        " space or mend the folder, then run the same command again."
    ) from error


def _keep_rows_until(path: str, step: int) -> None:
  if not os.path.exists(path):
    return
  with open(path, "rb") as file:
    kept = [line for line in file if _step_of(line) <= step]
  with whole_files.written_whole(pathlib.Path(path)) as partial:
    partial.write_bytes(b"".join(kept))


def _step_of(line: bytes) -> float:
  """Returns the step of a row; of what a kill or a bad disk left, infinity."""
  try:
    row = json.loads(line.decode("utf-8"))
    return float(row["step"]) if line.endswith(b"\n") else math.inf
  except Exception:  # Bytes of any kind fail in any way.
    return math.inf
