"""How far long work is and when it will end."""

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import tqdm

from chain_jax import peers

_Item = TypeVar("_Item")
# Work that is over sooner shows nothing.
_DELAY_SECONDS = 5.0
# A log file keeps every update, a terminal only the last.
_LOG_SECONDS, _TERMINAL_SECONDS = 30.0, 0.5

# A full disk or a reader that is gone costs the bar and not the work.
_for_the_bar_alone = contextlib.suppress(OSError, ValueError)

_hidden = False


def hide() -> None:
  """Lets another process of the run show what is common to all."""
  global _hidden
  _hidden = True


def track(
    items: Iterable[_Item],
    *,
    total: int,
    what: str,
    unit: str = "videos",
    size: int = 1,
    shown: bool = True,
) -> Iterator[_Item]:
  """Passes items on and shows on standard error how far they are.

  Args:
    items: The work, a piece at a time.
    total: How many units there are in all.
    what: Names the work.
    unit: What is counted.
    size: Units a piece; the last piece may have fewer.
    shown: False in all processes of a run but one.

  Yields:
    The items.

  >>> list(track("ab", total=2, what="export"))
  ['a', 'b']
  """
  is_closed = sys.stderr is None or sys.stderr.closed
  is_terminal = not is_closed and sys.stderr.isatty()
  bar = tqdm.tqdm(
      total=total,
      desc=what,
      unit=f" {unit}",
      delay=_DELAY_SECONDS,
      mininterval=_TERMINAL_SECONDS if is_terminal else _LOG_SECONDS,
      miniters=1,
      leave=False,
      disable=_hidden or not shown or is_closed,
  )
  try:
    for item in items:
      yield item
      peers.progress()
      with _for_the_bar_alone:
        bar.update(min(size, total - bar.n))
  finally:
    with _for_the_bar_alone:
      bar.close()


class Progress:
  """Tells how far a run is and when it will end."""

  def __init__(self, *, start_step: int, num_steps: int) -> None:
    self._start_step = start_step
    self._num_steps = num_steps
    self._start_time = time.monotonic()

  def line(
      self,
      step: int,
      *,
      loss: float,
      videos_per_second: float,
      input_wait_share: float,
      utilisation: float | None,
  ) -> str:
    """Returns one line: step, loss, speed, what limits it, time left.

    Args:
      step: Steps done.
      loss: Mean over the last steps.
      videos_per_second: Over all devices.
      input_wait_share: Of the time, in [0, 1].
      utilisation: Model FLOP utilisation, in [0, 1]; None where not known.
    """
    elapsed = time.monotonic() - self._start_time
    done = max(step - self._start_step, 1)
    left = elapsed / done * (self._num_steps - step)
    used = "" if utilisation is None else f"  MFU {utilisation:.0%}"
    return (
        f"step {step}/{self._num_steps}  loss {loss:.4f} "
        f" {videos_per_second:.0f} videos/s{used} "
        f" input {input_wait_share:.0%}  ETA {format_seconds(left)}"
    )


def time_line(seconds: dict[str, float]) -> str:
  """Says where time went, the largest part first.

  >>> time_line({"input_wait": 1.0, "compute": 62.0, "checkpoint": 37.0})
  'time 1:40: compute 62%, checkpoint 37%, input wait 1%'
  """
  total = sum(seconds.values())
  parts = sorted(seconds.items(), key=lambda part: -part[1])
  shares = ", ".join(
      f"{name.replace('_', ' ')} {part / total:.0%}" for name, part in parts
  )
  return f"time {format_seconds(total)}: {shares}"


def format_seconds(seconds: float) -> str:
  """Formats a duration.

  >>> format_seconds(75.0), format_seconds(3700.0)
  ('1:15', '1:01:40')
  """
  minutes, second = divmod(round(seconds), 60)
  hours, minute = divmod(minutes, 60)
  if hours:
    return f"{hours}:{minute:02d}:{second:02d}"
  return f"{minute}:{second:02d}"
