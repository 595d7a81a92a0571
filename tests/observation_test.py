"""What a whole run shows: parts of its time, its speed, memory and traces."""

import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import jax
import pytest
import tiny

from chain_jax import (
    checkpoint,
    chips,
    metric_writer,
    observation,
    ownership,
    prefetch,
    sharding,
    step_flops,
    train_loop,
    validation,
)
from chain_jax.data import splits as splits_lib
from chain_jax.workdir import Workdir

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_PARTS = ("input_wait", "compute", "checkpoint", "validation", "logging")


def _rows(path):
  lines = (path / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  return [row for row in rows if "batch_checksums" in row]


def _train(config, path):
  splits = splits_lib.make_splits(config.data, seed=0)
  plan = train_loop.make_plan(config, splits)
  path.mkdir(exist_ok=True)
  workdir = Workdir(str(path))
  checkpoints = checkpoint.Checkpoints(
      workdir.checkpoints,
      keep=config.train.keep_checkpoints,
      owner=ownership.Owner(config=dataclasses.asdict(config), fingerprints={}),
  )
  mesh = sharding.make_mesh(jax.devices()[:2])
  return train_loop.train(config, workdir, splits, plan, mesh, checkpoints)


def _slow(monkeypatch, owner, name, seconds):
  function = getattr(owner, name)

  def slow(*given, **named):
    time.sleep(seconds)
    return function(*given, **named)

  monkeypatch.setattr(owner, name, slow)


def _slow_batches(monkeypatch, seconds):
  to_devices = prefetch.to_devices

  def slow(*given):
    for batch in to_devices(*given):
      time.sleep(seconds)
      yield batch

  monkeypatch.setattr(prefetch, "to_devices", slow)


@pytest.fixture(scope="module")
def slow_run(tmp_path_factory):
  """A run of 12 steps, on chips said to be a TPU v4's, with slow parts."""
  path = tmp_path_factory.mktemp("slow")
  config = tiny.tiny_config(
      train__log_every_steps=4,
      train__validate_every_steps=4,
      data__validation_fraction=0.25,
      train__batch_size=8,
      evaluation__batch_size=8,
      train__max_steps=12,
      model__depth=0,  # Compiles sooner.
  )
  with pytest.MonkeyPatch.context() as patched:
    _slow_batches(patched, 0.05)
    _slow(patched, checkpoint.Checkpoints, "save", 0.4)
    _slow(patched, validation.export, "encode_split", 0.15)
    patched.setattr(chips, "find", lambda _: chips.CHIPS[0])
    start = time.monotonic()
    _train(config, path)
  return config, path, time.monotonic() - start


def test_every_part_of_a_run_is_in_its_row(slow_run):
  _, path, wall = slow_run
  rows = _rows(path)
  assert [row["step"] for row in rows] == [4, 8, 12]
  # The first interval has none: a save and a validation come after a row.
  for row in rows[1:]:
    seconds = {name: row[f"{name}_seconds"] for name in _PARTS}
    assert seconds["input_wait"] >= 4 * 0.05
    assert seconds["checkpoint"] >= 0.4
    assert seconds["validation"] >= 2 * 0.15  # Its queries and its gallery.
    assert all(value >= 0 for value in seconds.values())
    assert sum(seconds.values()) == pytest.approx(4 * row["step_seconds"])
    assert row["videos_per_second"] == pytest.approx(8 / row["step_seconds"])
    assert row["host_memory_bytes"] > 2**24
  assert rows[0]["checkpoint_seconds"] == rows[0]["validation_seconds"] == 0.0
  assert sum(4 * row["step_seconds"] for row in rows) < wall


def test_utilisation_is_of_the_peak_of_all_devices(slow_run):
  config, path, _ = slow_run
  row = _rows(path)[-1]
  could = 275e12 * 2 * row["step_seconds"]  # Two devices of a TPU v4's peak.
  expected = step_flops.useful_flops(config) / could
  assert row["model_flop_utilisation"] == pytest.approx(expected)


def test_nobody_says_the_peak_of_a_cpu():
  work = observation._step_work(tiny.tiny_config(), num_devices=1)
  assert work.peak_flops is None


def test_tensorboard_has_every_number_of_a_row(slow_run):
  _, path, _ = slow_run
  (events,) = (path / "tensorboard").glob("events*")
  written = events.read_bytes()
  row = _rows(path)[-1]
  names = {name for name, value in row.items() if isinstance(value, float)}
  assert {f"{part}_seconds" for part in _PARTS} < names
  assert all(name.encode() in written for name in names)


def test_a_trace_is_planned_or_asked_for_and_a_restart_goes_on(
    tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(jax.profiler, "start_trace", lambda *_, **__: None)
  monkeypatch.setattr(jax.profiler, "stop_trace", lambda: None)
  config = tiny.tiny_config(
      train__profile_start_step=3, train__max_steps=6, model__depth=0
  )
  with pytest.raises(KeyboardInterrupt), _interrupted_after(5, monkeypatch):
    _train(config, tmp_path)
  first = _rows(tmp_path)
  # Steps 3 to 7 would be traced: what there is of them is kept.
  assert f"written to {tmp_path}/profile_3" in capsys.readouterr().out
  # Rows of a run that knew no times; other traces do not make another run.
  old = [{"step": row["step"], "total": row["total"]} for row in first]
  text = "".join(json.dumps(row) + "\n" for row in old)
  (tmp_path / "metrics.jsonl").write_text(text)
  (tmp_path / "profile").touch()
  config.train.profile_start_step, config.train.profile_num_steps = 0, 1
  _train(config, tmp_path)
  assert f"written to {tmp_path}/profile_5" in capsys.readouterr().out
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  assert rows[:4] == old[:4] and [row["step"] for row in rows[4:]] == [5, 6]
  assert "compute_seconds" in rows[4] and not (tmp_path / "profile").exists()


@contextlib.contextmanager
def _interrupted_after(step, monkeypatch):
  """Ends a run as Ctrl-C would, once it has written that step."""
  write = metric_writer.MetricWriter.write

  def interrupting(writer, at, row):
    write(writer, at, row)
    if at == step:
      raise KeyboardInterrupt

  with monkeypatch.context() as patched:
    patched.setattr(metric_writer.MetricWriter, "write", interrupting)
    yield


_PROGRAM = """
import sys
import jax
process, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.distributed.initialize("localhost:" + port, 2, process)
import jax.numpy as jnp
from chain_jax import metric_writer, step_recorder
from chain_jax.step_clock import StepClock
from chain_jax.step_rates import StepWork

now = [0.0]
writer = metric_writer.MetricWriter(folder, start_step=0) if not process else None
recorder = step_recorder.StepRecorder(
    writer, StepClock(lambda: now[0]), StepWork(8, 2, 1.0, None),
    start_step=0, num_steps=2)

def batches():
  for _ in range(2):
    now[0] += [1.0, 2.5][process]  # Process 1 waits longer.
    yield 0

for step, _ in enumerate(recorder.timed(batches()), 1):
  recorder.add({"total": jnp.float32(1), "batch_checksum": jnp.uint32(1)})
  now[0] += [4.0, 2.5][process]  # And process 0 waits for process 1.
recorder.flush(2, learning_rate=0.1)
if writer:
  writer.close()
jax.distributed.shutdown()
"""


def test_the_process_that_waits_longest_is_named(tmp_path):
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = str(free.getsockname()[1])
  processes = [
      subprocess.Popen(
          [sys.executable, "-c", _PROGRAM, str(process), port, str(tmp_path)],
          env=os.environ
          | {"PYTHONPATH": str(_ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
          stdout=subprocess.PIPE,
          stderr=subprocess.PIPE,
          text=True,
      )
      for process in (0, 1)
  ]
  try:
    printed, other = (one.communicate(timeout=60) for one in processes)
  finally:
    for process in processes:
      process.kill()
  # Gloo, between the processes, prints a line of its own on each.
  (line,) = [one for one in printed[0].splitlines() if "Gloo" not in one]
  assert line.startswith("step 2/2") and "  input 50%  " in line, printed[1]
  assert "step" not in other[0]
  (row,) = _rows(tmp_path)
  # Of process 0: 2 of 10 s; of process 1: 5 of 10 s.
  assert row["input_wait_seconds"] == 2.0 and row["compute_seconds"] == 8.0
  assert row["input_wait_max_seconds"] == 5.0
  assert row["input_wait_max_process"] == 1 and row["input_wait_share"] == 0.5
