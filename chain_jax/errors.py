"""Two kinds of failure, and how a command ends on each.

An error's text is one line: the field or file, the rule, the value, the way
out. No command shows a traceback for a user's mistake.

Whatever reads a file that this run did not write does so inside `reading`, and
whatever writes one inside `writing`: there any failure, of any library, becomes
that line. `--traceback` shows where it came from.

A command's exit code is 0 (done), 1 (failed), 2 (bad usage or input), 75
(told to stop by SIGTERM or by the cloud; the same command goes on from there)
or 76 (another process of the run failed, died or hangs).

Where the reader of standard output leaves, as in `... | head -1`, a command
whose answer is what it prints (search, evaluate, every --help) ends, with 0; one
that works for files (main, prepare) goes on in silence to its own exit code.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator

from chain_jax import standard_streams

# EX_TEMPFAIL of sysexits.h: try again later.
EXIT_STOPPED = 75
# EX_PROTOCOL of sysexits.h: the other side did not do its part.
EXIT_PEER_LOST = 76

_speaker = ""
_shows_tracebacks = False


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


def show_tracebacks() -> None:
  """Makes each failure print where it came from, before its line."""
  global _shows_tracebacks
  _shows_tracebacks = True


def one_line(error: BaseException, *, length: int = 200) -> str:
  """Returns what an error says, on one line; its type where it says nothing.

  >>> one_line(KeyError())
  'KeyError'
  >>> one_line(OSError(28, "No space left on device", "a.npy"))
  'No space left on device'
  """
  text = error.strerror if isinstance(error, OSError) else None
  text = " ".join(str(text or error).split()) or type(error).__name__
  return text.encode("utf-8", "backslashreplace").decode()[:length]


@contextlib.contextmanager
def reading(
    path: str | os.PathLike[str], *, must_be: str, way_out: str
) -> Iterator[None]:
  """Turns any failure to read a file into one line that names it.

  Whoever made the file may have made it wrong in any way, and each library
  fails on that in ways of its own; so all of them count as the file's fault.

  Args:
    path: The file or folder.
    must_be: What it must be, such as "an HDF5 file".
    way_out: What to do, such as "copy it again".

  Raises:
    InputError: In the place of whatever is raised inside, but for the errors
      of this module, which are that line already.
  """
  try:
    yield
  except (InputError, RunError, Stopped):
    raise
  except Exception as error:
    reason = one_line(error)
    if isinstance(error, MemoryError):
      reason = "it needs more memory than there is"
    raise InputError(
        f"{path}: must be {must_be}, could not be read ({reason}); {way_out}."
    ) from error


@contextlib.contextmanager
def writing(
    path: str | os.PathLike[str], *, way_out: str = "make room for it"
) -> Iterator[None]:
  """Turns a failure to write a file into one line that names it.

  Raises:
    RunError: In the place of an `OSError`.
  """
  try:
    yield
  except OSError as error:
    raise RunError(
        f"{path}: could not be written ({one_line(error)}); {way_out}."
    ) from error


def run_command(
    command: Callable[[], None], *, goes_on_unread: bool = False
) -> int:
  """Runs a command and turns its failure into one line on standard error.

  Args:
    command: Does the work; raises `InputError`, `RunError` or `OSError`.
    goes_on_unread: Whether it works on when nobody reads what it prints.

  Returns:
    The exit code: 0, or 2 for bad usage or input, or 1 for a failed run, or
    `EXIT_STOPPED`.

  >>> run_command(lambda: None)
  0
  """
  with standard_streams.made_safe(goes_on_unread=goes_on_unread):
    try:
      command()
      sys.stdout.flush()
    except InputError as error:
      return _report(error, exit_code=2)
    except standard_streams.ReaderLeft:
      return 0
    except (RunError, OSError) as error:
      return _report(error, exit_code=1)
    except Stopped as stopped:
      print(stopped, file=sys.stderr, flush=True)
      return EXIT_STOPPED
    except KeyboardInterrupt:
      return _report("interrupted; what was written stays valid", exit_code=1)
    except Exception as error:
      if not _lacks_memory(error):
        raise
      return _report(
          RunError(
              "this needs more memory than there is"
              f" ({one_line(error)}); ask for less, such as smaller batches,"
              " fewer frames or a narrower model, or use a larger machine."
          ),
          exit_code=1,
      )
    return 0


def _lacks_memory(error: Exception) -> bool:
  # JAX's class by its name: offline commands do without JAX.
  is_jax = type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError")
  is_full = is_jax and "RESOURCE_EXHAUSTED" in str(error)
  return is_full or isinstance(error, MemoryError)


def _report(error: Exception | str, *, exit_code: int) -> int:
  if _shows_tracebacks and isinstance(error, Exception):
    traceback.print_exception(error)
  line = " ".join(str(error).split())
  print(f"error: {_speaker}{line}", file=sys.stderr, flush=True)
  return exit_code
