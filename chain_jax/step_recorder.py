"""Metrics of the steps since the last row: checked, averaged, written."""

import math
import time
from typing import Any

import jax
import numpy as np

from chain_jax import errors, metric_writer, peers, progress

# Steps that may wait on the device: each holds its batch there until it runs.
_STEPS_AHEAD = 2


class StepRecorder:
  """Keeps metrics on the device until a row is due, so that few steps wait.

  Every process checks; only the one with a `writer` writes and prints.
  """

  def __init__(
      self,
      writer: metric_writer.MetricWriter | None,
      *,
      batch_size: int,
      start_step: int,
      num_steps: int,
  ) -> None:
    self._writer = writer
    self._batch_size = batch_size
    self._progress = progress.Progress(
        start_step=start_step, num_steps=num_steps
    )
    self._pending: list[dict[str, jax.Array]] = []
    self._row_start = time.monotonic()

  def add(self, metrics: dict[str, jax.Array]) -> None:
    """Takes the metrics of one step, unread; waits for those long before it."""
    self._pending.append(metrics)
    if len(self._pending) > _STEPS_AHEAD:
      jax.block_until_ready(self._pending[-1 - _STEPS_AHEAD])
    peers.progress()

  def flush(self, step: int, *, learning_rate: float) -> None:
    """Checks all metrics since the last row and writes one row of means.

    Args:
      step: Steps done.
      learning_rate: Of the last step.

    Raises:
      RunError: If a loss or gradient is not finite; nothing is written.
    """
    if not self._pending:
      return
    rows = jax.device_get(self._pending)
    first_step = step - len(rows) + 1
    for offset, row in enumerate(rows):
      _check_finite(row, step=first_step + offset)
    checksums = [int(row.pop("batch_checksum")) for row in rows]
    means = {
        name: float(np.mean([row[name] for row in rows])) for name in rows[0]
    }
    seconds = time.monotonic() - self._row_start
    speed = self._batch_size * len(rows) / seconds
    if self._writer:
      self._writer.write(
          step,
          means
          | {"learning_rate": learning_rate, "videos_per_second": speed}
          | {"batch_checksums": checksums},
      )
      print(
          self._progress.line(
              step, loss=means["total"], videos_per_second=speed
          ),
          flush=True,
      )
    self._pending.clear()
    self._row_start = time.monotonic()

  def write(self, step: int, row: dict[str, Any]) -> None:
    """Writes and prints a row of its own, such as a validation's."""
    if self._writer:
      self._writer.write(step, row)
      scores = "  ".join(f"{name} {value:.4f}" for name, value in row.items())
      print(f"step {step}  {scores}", flush=True)


def _check_finite(row: dict[str, np.ndarray], *, step: int) -> None:
  bad = [name for name, value in row.items() if not math.isfinite(value)]
  if bad:
    raise errors.RunError(
        f"step {step}: {', '.join(sorted(bad))} must be finite, got"
        f" {row[sorted(bad)[0]]}; the checkpoints before it are kept. Lower"
        " `optimizer.learning_rate`, raise `loss.temperature`, or set"
        " `optimizer.gradient_clip`, with a new --workdir."
    )
