"""One process of several gets the notice: all save the same step and end."""

import os
import signal
import socket
import time

import pytest
import tiny
import xla_settings
from stopping_run_test import batches, rows, start

# Long enough that a signal arrives in its midst, and then cut short.
_LONG = tiny.tiny_config(
    train__num_epochs=1000, train__checkpoint_every_steps=1000
)


def _start(path, num_processes, num_devices, **changes):
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  devices = xla_settings.xla_flags(num_devices)
  flags = [
      f"--coordinator=localhost:{port}",
      f"--num_processes={num_processes}",
  ]
  return [
      start(
          path,
          "-m",
          "chain_jax.main",
          *(
              flags + [f"--process_id={process_id}"]
              if num_processes > 1
              else []
          ),
          config=_LONG,
          environment={"XLA_FLAGS": devices},
          **changes,
      )
      for process_id in range(num_processes)
  ]


def _ended(processes):
  """Waits; returns the exit codes and what was printed."""
  try:
    said = [process.communicate(timeout=120)[0] for process in processes]
    return [process.returncode for process in processes], said
  finally:
    for process in processes:
      process.kill()
      process.wait()


def _saved(path):
  names = os.listdir(path / "checkpoints")
  return sorted(int(name) for name in names if name.isdigit())


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_told_alone_a_process_takes_the_others_along(tmp_path, told):
  path = tmp_path / "run"
  processes = _start(path, 2, 2)
  deadline = time.monotonic() + 120
  while not (path / "metrics.jsonl").exists() or not rows(path):
    assert time.monotonic() < deadline and processes[0].poll() is None
    time.sleep(0.01)
  sent = time.monotonic()
  processes[told].send_signal(signal.SIGTERM)
  codes, said = _ended(processes)
  assert codes == [75, 75], said
  assert time.monotonic() - sent < 30
  (step,) = _saved(path)
  for lines in said:
    assert f"after step {step} of 3000, saved; run the same" in lines
  assert "stopped on SIGTERM" in said[told]
  if told:
    _goes_on_with_other_processes(path, step)


def _goes_on_with_other_processes(path, step):
  """One process of four devices, of which two share the wide layers."""
  processes = _start(path, 1, 4, sharding__model_parallel=2)
  (process,) = processes
  while len(batches(path)) < step + 20 and process.poll() is None:
    time.sleep(0.05)
  process.send_signal(signal.SIGTERM)
  codes, said = _ended(processes)
  assert codes == [75] and f"resuming after step {step} of 3000" in said[0]
  # In a pass of 3 steps over the videos no batch comes twice.
  found = batches(path)
  assert len(set(found)) == len(found) == _saved(path)[-1] > step
