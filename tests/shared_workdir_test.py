"""A workdir is one run's alone, for as long as that run lives."""

import os
import signal
import subprocess

import local_runs
import pytest


def _refused(command):
  done = subprocess.run(command, capture_output=True, text=True, timeout=600)
  line = done.stderr.splitlines()[-1]
  assert done.returncode == 1 and "Traceback" not in done.stderr
  return line


@pytest.mark.slow
def test_a_second_run_is_refused_and_its_lock_dies_with_the_first(tmp_path):
  path = tmp_path / "run"
  # So that the checkpoint which the export reads is not gone before it has.
  long = local_runs.run_command(
      path,
      train__num_epochs=100_000,
      train__checkpoint_every_steps=100,
      train__keep_checkpoints=1000,
      train__log_every_steps=1000,
  )
  environment = {"XLA_FLAGS": "", "PYTHONUNBUFFERED": "1"}
  with local_runs.started(long, **environment) as first:
    saved = path / "checkpoints" / "100"
    local_runs.wait_until(saved.exists, first, within=600)
    line = _refused(long)
    assert line.startswith(f"error: {path}: must be one run's alone")
    assert f"process {first.pid} on " in line
    # A reader is let in: it has locks for what it writes.
    exported = subprocess.run(
        [*long, "--mode=export"], capture_output=True, text=True
    )
    assert exported.returncode == 0, exported.stderr
    first.send_signal(signal.SIGKILL)
    first.wait()
  assert os.path.exists(path / ".run.lock")
  with local_runs.started(long, **environment) as second:
    lock = path / ".run.lock"
    name = f"process {second.pid} on "
    local_runs.wait_until(
        lambda: lock.read_text().startswith(name), second, within=600
    )
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=600) == 75
