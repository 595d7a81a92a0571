"""Reads a file in a process of its own, which the file may crash or hang.

Readers in C, such as those of HDF5 and MATLAB files, die, loop without end or
fill the memory on bytes that nobody foresaw. Here that costs the process that
reads, and becomes the error's line in the one that asked. It takes the time to
start Python and to import the reader, about half a second.

The process starts from nothing, so that it is safe beside threads, and imports
nothing of the program's main module. Its answer is JSON and plain arrays, never
a pickle.
"""

import contextlib
import importlib
import json
import math
import os
import pathlib
import resource
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from chain_jax import errors

# As the parent's `sys.path` has it, wherever the package is found.
_START = (
    "import json, sys; job = json.loads(sys.stdin.readline());"
    " sys.path[:] = job['sys_path'];"
    " from chain_jax import guarded; guarded.serve(job)"
)
# What zlib packs at most, 1032 : 1, is never reached by data of any use.
MOST_EXPANSION = 900
_LEAST_MEMORY_BYTES = 2**26
# Processor time, so that a busy machine refuses nothing.
_LEAST_SECONDS = 4.0
_SECONDS_PER_MIB = 2.0
_LONGEST_LINE = 2**20


def call_guarded(
    function: Callable[..., dict[str, Any]],
    path: pathlib.Path,
    *arguments: Any,
    must_be: str,
    way_out: str,
) -> dict[str, Any]:
  """Calls `function(str(path), *arguments)` in a process of its own.

  It may take memory and processor time in proportion to the file's size: 64
  MiB and 900 times the size; 4 seconds and 2 a MiB.

  Args:
    function: Of a module, not of `__main__`; returns arrays of numbers or
      text, and what JSON has. Its module should import little.
    path: The file that it reads.
    *arguments: More of them, as JSON has them.
    must_be: For the error, as in `errors.reading`.
    way_out: The same.

  Raises:
    InputError: What the function raises, whatever it is, or that the process
      crashed, took too long, or needed too much memory.
  """
  with errors.reading(path, must_be=must_be, way_out=way_out):
    num_bytes = path.stat().st_size
    job = {
        "sys_path": sys.path,
        "module": function.__module__,
        "function": function.__qualname__,
        "arguments": [str(path), *arguments],
        "seconds": _LEAST_SECONDS + _SECONDS_PER_MIB * num_bytes / 2**20,
        "memory_bytes": _LEAST_MEMORY_BYTES + MOST_EXPANSION * num_bytes,
    }
    head, values = _ask(job)
    if "refused" in head:
      raise errors.InputError(head["refused"])
    if "failed" in head:
      error = RuntimeError(head["failed"])
      error.add_note(head["traceback"])
      raise error
    return values


def _ask(job: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
  process = subprocess.Popen(
      [sys.executable, "-P", "-c", _START],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      # Its threads would take their time to start, and memory.
      env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
  )
  # A disk that never answers takes no processor time.
  timer = threading.Timer(_wall_seconds(job), process.kill)
  timer.start()
  try:
    with contextlib.suppress(BrokenPipeError):  # It died; its status says why.
      process.stdin.write(json.dumps(job).encode() + b"\n")
      process.stdin.close()
    try:
      return _receive(process.stdout, job["memory_bytes"])
    except (EOFError, ValueError) as error:
      is_late = not timer.is_alive()
      raise RuntimeError(_ending(process.wait(), is_late, job)) from error
  finally:
    timer.cancel()
    process.kill()
    with contextlib.suppress(BrokenPipeError):
      process.stdin.close()
    process.stdout.close()
    process.wait()


def _wall_seconds(job: dict[str, Any]) -> float:
  return 60 + 10 * job["seconds"]


def _ending(status: int, is_late: bool, job: dict[str, Any]) -> str:
  if is_late or status == -signal.SIGXCPU:
    return f"it took longer than {job['seconds']:.0f} s"
  if status < 0:
    return f"its reader crashed, {signal.Signals(-status).name}"
  return f"its reader ended with {status} and no answer"


def _receive(
    answer: BinaryIO, most_bytes: int
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads what `_send` wrote.

  Raises:
    EOFError: If it ends before that.
    ValueError: If it is something else.
  """
  line = answer.readline(_LONGEST_LINE)
  if not line.endswith(b"\n"):
    raise EOFError
  head = json.loads(line)
  values = head.get("values", {})
  for name, dtype_name, shape in head.get("arrays", []):
    dtype = np.dtype(dtype_name)
    num_bytes = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or not 0 <= num_bytes <= most_bytes:
      raise ValueError(f"{dtype} of shape {shape}")
    memory = np.empty(num_bytes, np.uint8)
    if answer.readinto(memory) != num_bytes:
      raise EOFError
    values[name] = memory.view(dtype).reshape(shape)
  return head, values


def serve(job: dict[str, Any]) -> None:
  """Does one job; what the process that was started runs."""
  # Whatever a library prints is no part of the answer.
  answer = os.fdopen(os.dup(1), "wb")
  os.dup2(2, 1)
  # The one who asked knows when to stop, and ends this process then.
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
  try:
    module = importlib.import_module(job["module"])
    function = getattr(module, job["function"])
    _limit(job)
    values = function(*job["arguments"])
  except errors.InputError as error:
    _send(answer, {"refused": str(error)})
  except MemoryError:
    limit = f"{job['memory_bytes'] / 2**20:.0f} MiB"
    _send_failure(answer, f"it needs more than {limit} of memory")
  except Exception as error:
    _send_failure(answer, errors.one_line(error))
  else:
    arrays = {k: v for k, v in values.items() if isinstance(v, np.ndarray)}
    head = {
        "values": {k: v for k, v in values.items() if k not in arrays},
        "arrays": [[k, v.dtype.str, v.shape] for k, v in arrays.items()],
    }
    _send(answer, head, *arrays.values())
  os._exit(0)  # A library could crash while it tidies up.


def _limit(job: dict[str, Any]) -> None:
  """Bounds what this process takes from now on."""
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  used = resource.getrusage(resource.RUSAGE_SELF)
  seconds = math.ceil(used.ru_utime + used.ru_stime + job["seconds"])
  # In case the one who asked is gone: nobody else would end it.
  signal.alarm(math.ceil(_wall_seconds(job)) + 5)
  with contextlib.suppress(ValueError, OSError):  # Bounded closer already.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
  statm = pathlib.Path("/proc/self/statm")
  if statm.exists():
    pages = int(statm.read_text().split()[0])
    most = pages * resource.getpagesize() + job["memory_bytes"]
    with contextlib.suppress(ValueError, OSError, OverflowError):
      resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _send_failure(answer: BinaryIO, reason: str) -> None:
  _send(answer, {"failed": reason, "traceback": traceback.format_exc(-9)})


def _send(answer: BinaryIO, head: dict[str, Any], *arrays: np.ndarray) -> None:
  answer.write(json.dumps(head).encode() + b"\n")
  for array in arrays:
    flat = np.ascontiguousarray(array).reshape(-1)
    answer.write(flat.view(np.uint8))
  answer.flush()
