"""Whole runs of several processes on this machine, for the tests."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time

import tiny

from chain_jax import config as config_lib

_ROOT = pathlib.Path(__file__).resolve().parent.parent
LAUNCHER = str(_ROOT / "launch" / "local_processes.py")


def run_command(path, **changes):
  """The command of a tiny run of three steps, in any number of processes."""
  config = tiny.tiny_config(
      **{"train__num_epochs": 1, "evaluation__baseline_videos": 0} | changes
  )
  return [
      *(sys.executable, "-m", "chain_jax.main", f"--workdir={path}"),
      "--config=configs/quickstart.py",
      *(
          f"--config.{name}={config_lib.field_value(config, name)}"
          for name in config_lib.field_names(config)
      ),
  ]


@contextlib.contextmanager
def started(command, **environment):
  """Starts a program of this checkout; ends it at the end of the block."""
  process = subprocess.Popen(
      command,
      cwd=_ROOT,
      env=os.environ | {"PYTHONPATH": str(_ROOT)} | environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
  )
  try:
    yield process
  finally:
    process.kill()
    process.communicate()


def launch(path, num_processes, *, devices=2, **changes):
  """Starts `local_processes.py` with a tiny run."""
  return launch_command(run_command(path, **changes), num_processes, devices)


def launch_command(command, num_processes, devices=2):
  """Starts `local_processes.py` with a command."""
  flags = [
      f"--num_processes={num_processes}",
      f"--devices_per_process={devices}",
  ]
  return started([sys.executable, LAUNCHER, *flags, "--", *command])


def rows(path):
  """Returns the rows of `metrics.jsonl` that are whole."""
  file = path / "metrics.jsonl"
  lines = file.read_text().splitlines(True) if file.exists() else []
  return [json.loads(line) for line in lines if line.endswith("\n")]


def training_rows(path):
  return [row for row in rows(path) if "batch_checksums" in row]


def wait_until(holds, process, *, within=120):
  """Waits until something holds, or the process has ended."""
  deadline = time.monotonic() + within
  while not holds() and process.poll() is None:
    assert time.monotonic() < deadline
    time.sleep(0.02)
  assert process.poll() is None, process.stderr.read()


def children(process):
  """Returns the ids of the processes that a process has started."""
  file = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
  return [int(number) for number in file.read_text().split()]
