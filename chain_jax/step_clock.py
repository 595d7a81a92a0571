"""Where the time of training goes: parts that add up to the wall clock."""

import contextlib
import time
from collections.abc import Callable, Iterator

# What can be measured where it happens, on the host.
MEASURED = ("input_wait", "checkpoint", "validation", "logging")


class StepClock:
  """Splits time into measured parts and the rest, which is computation.

  Devices work while the host goes on, so nobody can time a step without
  stopping them after it. But the host never runs more than a few steps ahead:
  over an interval that ends when the devices are done, what the host spent
  neither waiting for input nor in the other parts, it spent starting steps or
  waiting for them.
  """

  def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
    """Starts the first interval.

    Args:
      now: Tells the time in seconds.
    """
    self._now = now
    self._seconds = dict.fromkeys(MEASURED, 0.0)
    self._totals = dict.fromkeys((*MEASURED, "compute"), 0.0)
    self._start = now()

  def restart(self) -> None:
    """Starts the interval anew: what came before is no part of training."""
    self._seconds = dict.fromkeys(MEASURED, 0.0)
    self._start = self._now()

  @contextlib.contextmanager
  def measure(self, part: str) -> Iterator[None]:
    """Counts the time inside the block as that part, one of `MEASURED`.

    Blocks do not nest.
    """
    start = self._now()
    try:
      yield
    finally:
      self._seconds[part] += self._now() - start

  def split(self) -> dict[str, float]:
    """Ends the interval and starts the next; outside of any block.

    Returns:
      Seconds by part, with "compute"; together the whole interval.
    """
    end = self._now()
    parts = self._seconds
    parts["compute"] = end - self._start - sum(parts.values())
    for part, seconds in parts.items():
      self._totals[part] += seconds
    self._seconds, self._start = dict.fromkeys(MEASURED, 0.0), end
    return parts

  def totals(self) -> dict[str, float]:
    """Returns the seconds by part over all intervals that have ended."""
    return dict(self._totals)
