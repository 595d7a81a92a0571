"""Metrics of a run: `metrics.jsonl` and TensorBoard events."""

import json
import math
import os
import pathlib
import socket
import time
from typing import Any

from tensorboardX import record_writer
from tensorboardX.proto import event_pb2

from chain_jax import errors, whole_files

_WAY_OUT = (
    "make room for it or mend the folder, then run the same command again"
)
# Each flush waits for the disk.
_FLUSH_SECONDS = 30.0


class MetricWriter:
  """Writes rows of numbers by step; one process of a run owns it.

  A resumed run takes back the rows beyond the step it resumes from, so that
  every step stands once.
  """

  def __init__(self, workdir: str, *, start_step: int) -> None:
    """Opens both files.

    Raises:
      RunError: If they cannot be written.
    """
    self._path = os.path.join(workdir, "metrics.jsonl")
    with errors.writing(self._path, way_out=_WAY_OUT):
      whole_files.remove_leftovers(pathlib.Path(workdir))
      _keep_rows_until(self._path, start_step)
      self._file = open(self._path, "a", encoding="utf-8")
    self._events = _EventFile(
        os.path.join(workdir, "tensorboard"), start_step=start_step
    )

  def write(self, step: int, row: dict[str, Any]) -> None:
    """Appends one row; what is a single number goes to TensorBoard too.

    Raises:
      RunError: If it cannot be written.
    """
    with errors.writing(self._path, way_out=_WAY_OUT):
      self._file.write(json.dumps({"step": step, **row}) + "\n")
      self._file.flush()
    self._events.write(
        step, {k: v for k, v in row.items() if isinstance(v, float)}
    )

  def close(self) -> None:
    """Flushes and closes both files."""
    with errors.writing(self._path, way_out=_WAY_OUT):
      self._file.close()
    self._events.close()


class _EventFile:
  """What TensorBoard reads.

  tensorboardX's own writer has a thread that dies unseen on a full disk; who
  hands it more then waits for ever. This one fails where it is called.
  """

  def __init__(self, folder: str, *, start_step: int) -> None:
    name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
    self._path = os.path.join(folder, name)
    with errors.writing(self._path, way_out=_WAY_OUT):
      os.makedirs(folder, exist_ok=True)
      self._records = record_writer.RecordWriter(self._path)
    self._flushed = time.monotonic()
    self._write(event_pb2.Event(file_version="brain.Event:2"))
    # TensorBoard drops what an earlier file has of this step and later ones.
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._write(event_pb2.Event(step=start_step + 1, session_log=start))

  def write(self, step: int, scalars: dict[str, float]) -> None:
    event = event_pb2.Event(step=step)
    for name, value in scalars.items():
      event.summary.value.add(tag=name, simple_value=value)
    self._write(event)

  def _write(self, event: event_pb2.Event) -> None:
    event.wall_time = time.time()
    with errors.writing(self._path, way_out=_WAY_OUT):
      self._records.write(event.SerializeToString())
      if time.monotonic() - self._flushed > _FLUSH_SECONDS:
        self._flushed = time.monotonic()
        self._records.flush()

  def close(self) -> None:
    with errors.writing(self._path, way_out=_WAY_OUT):
      self._records.close()


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
