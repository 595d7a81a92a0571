"""Metrics of the steps since the last row: checked, averaged, written."""

import contextlib
import math
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from chain_jax import (
    errors,
    memory_use,
    metric_writer,
    peers,
    progress,
    step_rates,
)
from chain_jax.step_clock import StepClock

# Steps that may wait on the device: each holds its batch there until it runs.
_STEPS_AHEAD = 2

_Batch = TypeVar("_Batch")


class StepRecorder:
  """Keeps metrics on the device until a row is due, so that few steps wait.

  Every process checks and times itself; only the one with a `writer` writes
  and prints.
  """

  def __init__(
      self,
      writer: metric_writer.MetricWriter | None,
      clock: StepClock,
      work: step_rates.StepWork,
      *,
      start_step: int,
      num_steps: int,
  ) -> None:
    self._writer = writer
    self._clock = clock
    self._work = work
    self._progress = progress.Progress(
        start_step=start_step, num_steps=num_steps
    )
    self._pending: list[dict[str, jax.Array]] = []
    self._num_starved = 0

  def timed(self, batches: Iterable[_Batch]) -> Iterator[_Batch]:
    """Passes batches on, and counts the wait for each as input wait."""
    self._clock.restart()
    iterator = iter(batches)
    while True:
      was_busy = self._is_busy()
      with self._clock.measure("input_wait"):
        batch = next(iterator, None)
      if batch is None:
        return
      self._num_starved += was_busy and not self._is_busy()
      yield batch

  @contextlib.contextmanager
  def measure(self, part: str) -> Iterator[None]:
    """Counts the time inside the block as a part of `StepClock`.

    The steps under way are waited for first: they are computation.
    """
    jax.block_until_ready(self._pending)
    with self._clock.measure(part):
      yield

  def add(self, metrics: dict[str, jax.Array]) -> None:
    """Takes the metrics of one step, unread; waits for those long before it."""
    self._pending.append(metrics)
    if len(self._pending) > _STEPS_AHEAD:
      jax.block_until_ready(self._pending[-1 - _STEPS_AHEAD])
    peers.progress()

  def flush(self, step: int, *, learning_rate: float) -> None:
    """Checks all metrics since the last row and writes one row of means.

    Every process calls it at the same steps.

    Args:
      step: Steps done.
      learning_rate: Of the last step.

    Raises:
      RunError: If a loss or gradient is not finite; nothing is written.
    """
    if not self._pending:
      return
    rows = jax.device_get(self._pending)
    seconds = self._clock.split()
    with self._clock.measure("logging"):
      for offset, row in enumerate(rows):
        _check_finite(row, step=step - len(rows) + 1 + offset)
      times = self._times(seconds, num_steps=len(rows))
      if self._writer:
        self._write_row(step, rows, {"learning_rate": learning_rate} | times)
      self._pending.clear()
      self._num_starved = 0

  def write(self, step: int, row: dict[str, Any]) -> None:
    """Writes and prints a row of its own, such as a validation's."""
    if self._writer:
      with self._clock.measure("logging"):
        self._writer.write(step, row)
        scores = "  ".join(f"{name} {value:.4f}" for name, value in row.items())
        print(f"step {step}  {scores}", flush=True)

  def finish(self) -> None:
    """Prints where the time went since this process began to train."""
    self._clock.split()
    if self._writer:
      print(progress.time_line(self._clock.totals()), flush=True)

  def _is_busy(self) -> bool:
    """Tells whether the devices have a step left; never waits for it."""
    if not self._pending:
      return False
    return not jax.tree.leaves(self._pending[-1])[0].is_ready()

  def _times(
      self, seconds: dict[str, float], *, num_steps: int
  ) -> dict[str, Any]:
    wall = sum(seconds.values())
    longest_wait, process = _longest_wait(seconds["input_wait"])
    times = step_rates.step_rates(self._work, num_steps=num_steps, seconds=wall)
    times |= {f"{part}_seconds": value for part, value in seconds.items()}
    times["input_wait_share"] = longest_wait / wall
    times["input_starved_share"] = self._num_starved / num_steps
    if jax.process_count() > 1:
      times["input_wait_max_seconds"] = longest_wait
      times["input_wait_max_process"] = process
    return times

  def _write_row(
      self,
      step: int,
      rows: list[dict[str, np.ndarray]],
      times: dict[str, Any],
  ) -> None:
    checksums = [int(row.pop("batch_checksum")) for row in rows]
    means = {
        name: float(np.mean([row[name] for row in rows])) for name in rows[0]
    }
    memory = memory_use.memory_use(jax.local_devices())
    self._writer.write(
        step, means | times | memory | {"batch_checksums": checksums}
    )
    line = self._progress.line(
        step,
        loss=means["total"],
        videos_per_second=times["videos_per_second"],
        input_wait_share=times["input_wait_share"],
        utilisation=times.get("model_flop_utilisation"),
    )
    print(line, flush=True)


def _longest_wait(seconds: float) -> tuple[float, int]:
  """Returns the longest wait of all processes, and whose it was."""
  if jax.process_count() == 1:
    return seconds, 0
  ours = np.array([jax.process_index(), seconds], np.float32)
  everyones = multihost_utils.process_allgather(ours)  # [processes, 2]
  process, longest = everyones[np.argmax(everyones[:, 1])]
  return float(longest), int(process)


def _check_finite(row: dict[str, np.ndarray], *, step: int) -> None:
  bad = [name for name, value in row.items() if not math.isfinite(value)]
  if bad:
    raise errors.RunError(
        f"step {step}: {', '.join(sorted(bad))} must be finite, got"
        f" {row[sorted(bad)[0]]}; the checkpoints before it are kept. Lower"
        " `optimizer.learning_rate`, raise `loss.temperature`, or set"
        " `optimizer.gradient_clip`, with a new --workdir."
    )
