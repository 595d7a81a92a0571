"""Traces of a few steps by `jax.profiler`, planned or asked for on the way."""

import os
import time
from collections.abc import Callable
from typing import Any

import jax

from chain_jax.step_clock import StepClock
from chain_jax.workdir import Workdir

# A look at the folder may cross a network.
_LOOK_SECONDS = 1.0


class Tracer:
  """Wraps the training step; a trace that fails never ends the run.

  One process of a run has one, and traces its own host and devices: the others
  do the same work.
  """

  def __init__(
      self,
      workdir: Workdir,
      clock: StepClock,
      *,
      start_step: int,
      num_steps: int,
      now: Callable[[], float] = time.monotonic,
  ) -> None:
    """Prepares and traces nothing yet.

    Args:
      workdir: Where traces go, and where a file asks for one.
      clock: Counts what starting and ending a trace take as logging.
      start_step: The first step that is traced unasked; 0 for none.
      num_steps: Steps a trace; 0 for no traces at all.
      now: Tells the time in seconds.
    """
    self._workdir = workdir
    self._clock = clock
    self._start_step = start_step
    self._num_steps = num_steps
    self._now = now
    self._next_look = now()
    self._folder: str | None = None  # Of the trace under way.
    self._last_step = 0

  def traced(
      self, train_step_fn: Callable[..., Any], *, steps_done: int
  ) -> Callable[..., Any]:
    """Returns the same step, which counts its calls and is traced when due.

    Args:
      train_step_fn: (state, batch) -> (state, metrics).
      steps_done: Before its first call.
    """
    step = steps_done

    def step_fn(state: Any, batch: Any) -> Any:
      nonlocal step
      step += 1
      if self._is_due(step):
        self._start(step, after=state)
      # Costs nothing where nobody traces.
      with jax.profiler.StepTraceAnnotation("train", step_num=step):
        done = train_step_fn(state, batch)
      if self._folder and step >= self._last_step:
        # The trace shall hold the work, not only how it was handed over.
        jax.block_until_ready(done)
        self.close()
      return done

    return step_fn

  def close(self) -> None:
    """Ends the trace under way, if there is one, and keeps it."""
    if not self._folder:
      return
    folder, self._folder = self._folder, None
    with self._clock.measure("logging"):
      try:
        jax.profiler.stop_trace()
      except Exception as error:
        self._num_steps = 0  # jax starts no other until this one has ended.
        _warn(folder, error)
        return
    print(f"trace: written to {folder}, see docs/observing.md", flush=True)

  def _is_due(self, step: int) -> bool:
    if self._folder or not self._num_steps:
      return False
    return step == self._start_step or self._is_asked_for()

  def _is_asked_for(self) -> bool:
    """Looks for the file that asks, and takes it away."""
    if self._now() < self._next_look:
      return False
    self._next_look = self._now() + _LOOK_SECONDS
    request = self._workdir.profile_request
    if not os.path.isfile(request):
      return False
    try:
      os.remove(request)
    except OSError as error:  # It would ask for ever.
      self._num_steps = 0
      _warn(request, error)
      return False
    return True

  def _start(self, step: int, *, after: Any) -> None:
    jax.block_until_ready(after)
    folder = self._workdir.profile(step)
    with self._clock.measure("logging"):
      try:
        os.makedirs(folder, exist_ok=True)
        # For the viewer in a browser too; a few steps are quickly written.
        jax.profiler.start_trace(folder, create_perfetto_trace=True)
      except Exception as error:
        _warn(folder, error)
        return
    self._folder, self._last_step = folder, step + self._num_steps - 1


# `Exception` where jax is called: a full disk, a profiler that is not there and
# one that another has started all come in classes of their own.
def _warn(path: str, error: Exception) -> None:
  reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
  print(f"trace: {path}: failed ({reason[:160]}), going on", flush=True)
