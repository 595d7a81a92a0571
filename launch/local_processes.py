"""Starts the processes of one run on this machine, as several hosts would.

  python launch/local_processes.py --num_processes=2 --devices_per_process=2 -- \\
      python -m chain_jax.main --config=configs/quickstart.py

Every line that process 1 prints comes out behind "[1] ". SIGTERM and SIGINT go
to all processes. When one ends with an error the others get a minute to end by
themselves. No process outlives this one.

Exit code: 0 if all end with 0; else 2, 1 or 76 if a process ends with it, in
this order; else the largest. A process that signal n kills counts as 128 + n.
"""

import argparse
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import IO

_GRACE_SECONDS = 60.0
_POLL_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1
# What to mend, what failed; then what running the command again mends.
_FIRST_CODES = (2, 1, 76)
_DEVICES_FLAG = "--xla_force_host_platform_device_count"


def main(arguments: list[str]) -> int:
  """Runs the command in all processes; returns the exit code."""
  flags = _parse(arguments)
  port = _free_port()
  asked: list[int] = []
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: asked.append(number))
  children = [
      _start(flags, process_id, port)
      for process_id in range(flags.num_processes)
  ]
  readers = [
      threading.Thread(target=_forward, args=(process_id, source, target))
      for process_id, child in enumerate(children)
      for source, target in (
          (child.stdout, sys.stdout),
          (child.stderr, sys.stderr),
      )
  ]
  for reader in readers:
    reader.start()
  try:
    _wait(children, asked)
  finally:
    for child in children:
      child.kill()
      child.wait()
  for reader in readers:
    reader.join()
  return _exit_code([child.returncode for child in children])


def _parse(arguments: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--num_processes", type=int, default=2, metavar="N")
  parser.add_argument(
      "--devices_per_process",
      type=int,
      metavar="N",
      help="CPU devices of each process (default: the devices there are)",
  )
  parser.add_argument("command", nargs="+", help="after --")
  flags = parser.parse_args(arguments)
  if flags.num_processes < 1 or (flags.devices_per_process or 1) < 1:
    parser.error("--num_processes and --devices_per_process must be at least 1")
  return flags


def _free_port() -> int:
  with socket.socket() as free:
    free.bind(("localhost", 0))
    return free.getsockname()[1]


def _start(
    flags: argparse.Namespace, process_id: int, port: int
) -> subprocess.Popen[str]:
  environment = dict(os.environ)
  if flags.devices_per_process:
    others = re.sub(
        rf"{_DEVICES_FLAG}=\S*", "", os.environ.get("XLA_FLAGS", "")
    )
    devices = f"{others} {_DEVICES_FLAG}={flags.devices_per_process}"
    environment |= {"XLA_FLAGS": devices.strip(), "JAX_PLATFORMS": "cpu"}
  command = [
      *flags.command,
      f"--coordinator=localhost:{port}",
      f"--num_processes={flags.num_processes}",
      f"--process_id={process_id}",
  ]
  return subprocess.Popen(
      command,
      env=environment,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      errors="replace",
      # A terminal's Ctrl-C reaches the children through us, once.
      start_new_session=True,
      preexec_fn=_die_with_parent,
  )


def _die_with_parent() -> None:
  """Lets the kernel end a child whose parent was killed (Linux)."""
  if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _forward(process_id: int, source: IO[str], target: IO[str]) -> None:
  for line in source:
    target.write(f"[{process_id}] {line.rstrip()}\n")
    target.flush()


def _wait(children: list[subprocess.Popen[str]], asked: list[int]) -> None:
  """Waits for all; for those that go on without another, a minute."""
  deadline = None
  while any(child.poll() is None for child in children):
    for number in [asked.pop() for _ in list(asked)]:
      for child in children:
        child.send_signal(number)
    if deadline is None and any(child.returncode for child in children):
      deadline = time.monotonic() + _GRACE_SECONDS
    if deadline and time.monotonic() > deadline:
      return
    time.sleep(_POLL_SECONDS)


def _exit_code(codes: list[int]) -> int:
  codes = [code if code >= 0 else 128 - code for code in codes]
  return next((code for code in _FIRST_CODES if code in codes), max(codes))


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
