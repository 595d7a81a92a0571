"""Told to stop in any phase, a run ends in time and goes on from there."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np
import pytest
import tiny
import xla_settings

from chain_jax import codes as codes_lib
from chain_jax import config as config_lib
from chain_jax import stop_notice

_ROOT = pathlib.Path(__file__).resolve().parent.parent
# 12 steps, saves at 4, 8 and 12, validation at 6 and 12.
_CONFIG = tiny.tiny_config(
    data__validation_fraction=0.25,
    train__batch_size=8,
    evaluation__batch_size=8,
    train__num_epochs=3,
    train__validate_every_steps=6,
)


_ENVIRONMENT = {
    "XLA_FLAGS": xla_settings.xla_flags(),
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": str(_ROOT),
}


class Ended(NamedTuple):
  """How a run that was told to stop has ended."""

  exit_code: int
  said: str
  seconds: float  # From the signal on.


def start(path, *command, config=_CONFIG, environment=None, **changes):
  """Starts a run in a session of its own."""
  values = {
      name: config_lib.field_value(config, name)
      for name in config_lib.field_names(config)
  }
  values |= {name.replace("__", "."): one for name, one in changes.items()}
  return subprocess.Popen(
      [sys.executable, *command]
      + [f"--workdir={path}", "--config=configs/quickstart.py"]
      + [f"--config.{name}={value}" for name, value in values.items()],
      cwd=_ROOT,
      env=os.environ | _ENVIRONMENT | (environment or {}),
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      start_new_session=True,
  )


def stop_in(phase, path, *, grace=2.0, signal_number=signal.SIGTERM, **changes):
  """Runs until a phase, signals the whole session, waits for the end."""
  process = start(path, "tests/slowed_run.py", phase, str(grace), **changes)
  said = ""
  try:
    while f"in {phase}\n" not in said:
      line = process.stdout.readline()
      assert line, said
      said += line
    sent = time.monotonic()
    os.killpg(process.pid, signal_number)
    said += process.communicate(timeout=60)[0]
    return Ended(process.returncode, said, time.monotonic() - sent)
  finally:
    end_session(process)


def end_session(process):
  """Ends what is left of a run and its workers."""
  process.kill()
  process.wait()
  process.stdout.close()


def finish(path, **changes):
  """Runs to the end; returns what was printed."""
  process = start(path, "-m", "chain_jax.main", **changes)
  said = process.communicate(timeout=240)[0]
  assert process.returncode == 0, said
  return said


def rows(path):
  """Returns the rows of the steps."""
  lines = (path / "metrics.jsonl").read_text().splitlines()
  found = [json.loads(line) for line in lines]
  return [row for row in found if "batch_checksums" in row]


def batches(path):
  """Returns the checksums of the batches, in the order of the steps."""
  return [one for row in rows(path) for one in row["batch_checksums"]]


def packed_codes(path):
  """Returns what the run exported."""
  return [
      codes_lib.read_code_directory(path / "codes" / split).packed
      for split in ("query", "gallery")
  ]


def _saved(path):
  names = os.listdir(path / "checkpoints")
  return sorted(int(name) for name in names if name.isdigit())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
  path = tmp_path_factory.mktemp("uninterrupted") / "run"
  finish(path)
  assert len(set(batches(path))) == 12
  return path


@pytest.mark.slow
def test_stopped_in_every_phase_a_run_ends_as_if_it_never_was(
    uninterrupted, tmp_path
):
  path = tmp_path / "run"
  again = "; run the same command again to go on\n"

  # Nothing is done yet, and nothing is waited for.
  for phase in ("start", "compile"):
    ended = stop_in(phase, path, grace=60.0)
    assert ended.exit_code == 75 and ended.seconds < 20
    assert ended.said == f"in {phase}\nstopped on SIGTERM{again}"

  # The signal goes to the worker that reads videos, too.
  ended = stop_in("step", path, grace=60.0, data__num_workers=1)
  assert ended.exit_code == 75 and ended.seconds < 20
  (step,) = _saved(path)
  assert 3 <= step <= 4
  said = f"stopped on SIGTERM after step {step} of 12, saved{again}"
  assert ended.said.endswith(said)

  # What is being committed is waited for, and so is what the notice saves.
  ended = stop_in("save", path, grace=60.0, train__checkpoint_every_steps=6)
  assert ended.exit_code == 75 and ended.seconds < 20
  assert f"resuming after step {step} of 12" in ended.said
  step = _saved(path)[-1]
  assert 6 <= step < 12
  assert f"after step {step} of 12, saved" in ended.said

  # No notice: a save that is cut off by a kill is none.
  ended = stop_in(
      "endless_save",
      path,
      signal_number=signal.SIGKILL,
      train__checkpoint_every_steps=step + 1,
      train__keep_checkpoints=9,
  )
  assert ended.exit_code == -signal.SIGKILL
  assert _saved(path)[-1] == step
  assert list((path / "checkpoints").glob("*tmp*"))

  # The main thread does not come back: what was saved counts.
  ended = stop_in("validation", path, grace=1.0)
  assert ended.exit_code == 75 and ended.seconds < 20
  assert f"resuming after step {step} of 12" in ended.said
  assert not list((path / "checkpoints").glob("*tmp*"))
  said = "stopped on SIGTERM without a save: the checkpoint of step 12 counts"
  assert ended.said.endswith(said + again)

  for phase in ("export", "evaluation"):
    ended = stop_in(phase, path, grace=60.0)
    assert ended.exit_code == 75 and ended.seconds < 20
    assert ended.said.endswith(f"stopped on SIGTERM{again}")
    assert not (path / "report.json").exists()
  finish(path)
  for found, expected in zip(
      packed_codes(path), packed_codes(uninterrupted), strict=True
  ):
    np.testing.assert_array_equal(found, expected, strict=True)
  assert batches(path) == batches(uninterrupted)
  leftovers = [file for file in path.rglob("*") if "partial" in file.name]
  assert not leftovers


def test_a_cloud_that_gives_30_seconds_gets_an_answer_before():
  assert stop_notice.GRACE_SECONDS <= 25
