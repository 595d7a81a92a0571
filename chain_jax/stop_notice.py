"""A notice that this machine goes away: what it ends, and what it saves first.

A signal or the cloud asks to stop. Where nothing is lost by it the process
ends at once; inside `saving_first` the training loop gets to a safe point,
saves and raises `errors.Stopped`. A thread keeps the time, so that a main
thread that sits in a compiler, a collective or a file system stops as well.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

from chain_jax import errors

# Clouds kill 30 seconds after the notice: to the next safe point, and to have
# the save committed. What is being committed then may take longer: the cloud
# may be more patient, and nobody else waits.
GRACE_SECONDS = 20.0
COMMIT_SECONDS = 300.0
# A pipe's reader that has stopped reading is not waited for.
_SPEAK_SECONDS = 2.0


class _Notice:
  """The state of the one notice that a process has."""

  def __init__(self) -> None:
    self.lock = threading.Lock()
    self.reason: str | None = None
    self.arrived = threading.Event()
    # Set while the process can end at any moment and lose nothing.
    self.nothing_to_lose = threading.Event()
    self.nothing_to_lose.set()
    self.at_safe_point = threading.Event()
    self.what_counts: Callable[[], str] = lambda: ""
    self.relays: list[Callable[[str], None]] = []


_notice = _Notice()


def install() -> None:
  """Lets SIGTERM be a notice, and starts the thread that acts on notices.

  Call it once, in the main thread of a command, before other threads start.
  """
  # Python's own handler runs between two bytecodes of the main thread, which
  # may be minutes away; the number is written to this pipe at once.
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  signal.signal(signal.SIGTERM, lambda *_: None)
  signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  # A forked child that is told to end must not end its parent.
  os.register_at_fork(after_in_child=_forget_signals)
  for target in (lambda: _read_signals(reader), _end_when_asked):
    threading.Thread(target=target, daemon=True).start()


def request(reason: str) -> None:
  """Asks this process to stop; the first reason counts.

  Args:
    reason: Ends the sentence "stopped on ...", such as "SIGTERM".
  """
  with _notice.lock:
    if _notice.reason is None:
      _notice.reason = reason
      _notice.arrived.set()


def requested() -> str | None:
  """Returns why the process is to stop, or None."""
  return _notice.reason


def relay_to(tell: Callable[[str], None]) -> None:
  """Has other processes told of a notice before this one acts on it.

  Args:
    tell: Takes the reason; called once, in a thread of its own. It returns
      when the others know, after few seconds at the most.
  """
  _notice.relays.append(tell)


def stopped(details: str) -> errors.Stopped:
  """Returns what ends a run that was asked to stop.

  Args:
    details: What was done and saved.
  """
  return errors.Stopped(_sentence(_notice.reason or "request", details))


class Saving:
  """Told by the training loop how far it is."""

  def begin(self) -> None:
    """From now on there is something to lose: a notice waits for the loop."""
    _notice.nothing_to_lose.clear()

  def at_safe_point(self) -> None:
    """The loop knows of the notice and saves."""
    _notice.at_safe_point.set()


@contextlib.contextmanager
def saving_first(what_counts: Callable[[], str]) -> Iterator[Saving]:
  """Between `begin` and the end of the block the loop acts on notices.

  It asks `requested` after each step, saves and raises `errors.Stopped`.

  Args:
    what_counts: Says which checkpoint counts where the loop does not get to a
      safe point in time, as the end of a sentence; other threads call it.

  Raises:
    Stopped: Instead of an error that the end of other processes brought about.
  """
  _notice.what_counts = what_counts
  try:
    yield Saving()
  except (errors.Stopped, errors.InputError, errors.RunError):
    raise
  except Exception as error:
    # Workers and peers were told to stop too: what breaks then is no failure.
    if _notice.reason is None:
      raise
    raise stopped(what_counts()) from error
  _notice.nothing_to_lose.set()


def _read_signals(reader: int) -> None:
  while numbers := os.read(reader, 64):
    if signal.SIGTERM in numbers:
      request("SIGTERM")


def _forget_signals() -> None:
  signal.set_wakeup_fd(-1)
  signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end_when_asked() -> None:
  """Ends the process after a notice, unless the main thread does it before."""
  _notice.arrived.wait()
  for tell in _notice.relays:
    with contextlib.suppress(Exception):
      tell(_notice.reason)
  if _notice.nothing_to_lose.wait(GRACE_SECONDS):
    _end("")
  if _notice.at_safe_point.is_set():
    if _notice.nothing_to_lose.wait(COMMIT_SECONDS):
      _end("")
  _end(_notice.what_counts())


def end_process(line: str, exit_code: int) -> NoReturn:
  """Ends this process at once, from any thread, with a last line."""
  _try(lambda: sys.stdout.flush())
  _try(lambda: print(line, file=sys.stderr, flush=True))
  os._exit(exit_code)


def _try(act: Callable[[], None]) -> None:
  """Does what may fail or block, where its stream is closed or not read."""

  def quietly() -> None:
    with contextlib.suppress(Exception):
      act()

  with contextlib.suppress(RuntimeError):  # No more threads.
    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    thread.join(_SPEAK_SECONDS)


def _end(what_counts: str) -> NoReturn:
  line = _sentence(_notice.reason, what_counts)
  end_process(line, errors.EXIT_STOPPED)


def _sentence(reason: str, details: str) -> str:
  words = f"stopped on {reason} {details}".rstrip()
  return f"{words}; run the same command again to go on"
