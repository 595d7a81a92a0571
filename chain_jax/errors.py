"""Two kinds of failure, and how a command ends on each.

An error's text is one line: the field or file, the rule, the value, the way
out. No command shows a traceback for a user's mistake.

A command's exit code is 0 (done), 1 (failed), 2 (bad usage or input), 75
(told to stop by SIGTERM or by the cloud; the same command goes on from there)
or 76 (another process of the run failed, died or hangs).
"""

import os
import sys
from collections.abc import Callable

# EX_TEMPFAIL of sysexits.h: try again later.
EXIT_STOPPED = 75
# EX_PROTOCOL of sysexits.h: the other side did not do its part.
EXIT_PEER_LOST = 76

_speaker = ""


class InputError(ValueError):
  """What the user gave is at fault: a flag, a config field, an input file."""


class RunError(RuntimeError):
  """The input was fine and the run failed: full disk, non-finite loss."""


class Stopped(Exception):
  """No failure: the run was told to stop, and the same command goes on."""


def speak_as(name: str) -> None:
  """Names this process in its errors, where a run has several."""
  global _speaker
  _speaker = f"{name}: "


def run_command(command: Callable[[], None]) -> int:
  """Runs a command and turns its failure into one line on standard error.

  Args:
    command: Does the work; raises `InputError`, `RunError` or `OSError`.

  Returns:
    The exit code: 0, or 2 for bad usage or input, or 1 for a failed run, or
    `EXIT_STOPPED`.

  >>> run_command(lambda: None)
  0
  """
  try:
    command()
  except InputError as error:
    return _report(error, exit_code=2)
  except BrokenPipeError:  # The reader, such as `head`, has had enough.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
  except (RunError, OSError) as error:
    return _report(error, exit_code=1)
  except Stopped as stopped:
    print(stopped, file=sys.stderr, flush=True)
    return EXIT_STOPPED
  except KeyboardInterrupt:
    return _report("interrupted; what was written stays valid", exit_code=1)
  return 0


def _report(error: Exception | str, *, exit_code: int) -> int:
  line = " ".join(str(error).split())
  print(f"error: {_speaker}{line}", file=sys.stderr, flush=True)
  return exit_code
