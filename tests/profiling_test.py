"""Traces hold the steps that were asked for, and never end a run."""

import gzip
import json
import sys

import jax
import jax.numpy as jnp
import pytest
from fake_clock import FakeClock

from chain_jax import profiling, step_clock
from chain_jax.workdir import Workdir


class FakeProfiler:
  """Notes what is started and stopped."""

  def __init__(self):
    self.folders = []
    self.is_on = False

  def start_trace(self, folder, **_):
    assert not self.is_on
    self.folders.append(folder)
    self.is_on = True

  def stop_trace(self):
    assert self.is_on
    self.is_on = False


@pytest.fixture
def profiler(monkeypatch):
  fake = FakeProfiler()
  monkeypatch.setattr(jax.profiler, "start_trace", fake.start_trace)
  monkeypatch.setattr(jax.profiler, "stop_trace", fake.stop_trace)
  return fake


@pytest.fixture
def now():
  return FakeClock()


def _make_tracer(folder, now, *, start_step=0, num_steps=2):
  clock = step_clock.StepClock(now)
  return profiling.Tracer(
      Workdir(str(folder)),
      clock,
      start_step=start_step,
      num_steps=num_steps,
      now=now,
  )


def _traced_steps(tracer, profiler, *, steps_done, num_calls, before=None):
  """Makes calls; returns the steps during which a trace was on."""
  seen, step = [], steps_done

  def train_step(state, batch):
    if profiler.is_on:
      seen.append(step)
    return state + batch, {}

  step_fn = tracer.traced(train_step, steps_done=steps_done)
  for call in range(num_calls):
    step += 1
    if before:
      before(step)
    assert step_fn(call, 10) == (call + 10, {})
  return seen


def test_the_planned_steps_are_traced_and_no_others(tmp_path, profiler, now):
  tracer = _make_tracer(tmp_path, now, start_step=4, num_steps=2)
  assert _traced_steps(tracer, profiler, steps_done=0, num_calls=9) == [4, 5]
  assert profiler.folders == [str(tmp_path / "profile_4")]


def test_a_resumed_run_does_not_trace_planned_steps_again(
    tmp_path, profiler, now
):
  tracer = _make_tracer(tmp_path, now, start_step=4)
  assert not _traced_steps(tracer, profiler, steps_done=4, num_calls=9)


def test_no_steps_a_trace_means_no_traces(tmp_path, profiler, now):
  (tmp_path / "profile").touch()
  tracer = _make_tracer(tmp_path, now, start_step=1, num_steps=0)
  assert not _traced_steps(tracer, profiler, steps_done=0, num_calls=9)
  assert (tmp_path / "profile").exists()


def test_a_file_asks_for_a_trace_and_is_taken_away(tmp_path, profiler, now):
  def touch(step):
    now.advance(1.0)
    if step in (3, 8):
      (tmp_path / "profile").touch()

  tracer = _make_tracer(tmp_path, now)
  seen = _traced_steps(
      tracer, profiler, steps_done=0, num_calls=10, before=touch
  )
  assert seen == [3, 4, 8, 9] and not (tmp_path / "profile").exists()
  assert profiler.folders == [
      str(tmp_path / "profile_3"),
      str(tmp_path / "profile_8"),
  ]


def test_the_folder_is_looked_at_once_a_second(tmp_path, profiler, now):
  def touch(step):
    (tmp_path / "profile").touch()
    if step == 7:
      now.advance(1.0)

  tracer = _make_tracer(tmp_path, now)
  _traced_steps(tracer, profiler, steps_done=1, num_calls=2, before=touch)
  seen = _traced_steps(
      tracer, profiler, steps_done=3, num_calls=9, before=touch
  )
  assert seen == [7, 8]


def test_closing_keeps_the_trace_under_way(tmp_path, profiler, now, capsys):
  tracer = _make_tracer(tmp_path, now, start_step=2, num_steps=100)
  _traced_steps(tracer, profiler, steps_done=0, num_calls=3)
  assert profiler.is_on
  tracer.close()
  tracer.close()
  assert not profiler.is_on
  assert capsys.readouterr().out.count("trace: written to") == 1


def _fail(*_, **__):
  raise RuntimeError("no space left\non this disk")


@pytest.mark.parametrize("failing", ["start_trace", "stop_trace"])
def test_a_trace_that_fails_is_a_line_and_the_run_goes_on(
    tmp_path, profiler, now, monkeypatch, capsys, failing
):
  monkeypatch.setattr(jax.profiler, failing, _fail)
  tracer = _make_tracer(tmp_path, now, start_step=2)
  _traced_steps(tracer, profiler, steps_done=0, num_calls=9)
  tracer.close()
  assert capsys.readouterr().out == (
      f"trace: {tmp_path}/profile_2: failed (no space left), going on\n"
  )


def test_a_folder_that_cannot_be_made_is_a_line(
    tmp_path, profiler, now, capsys
):
  (tmp_path / "profile_2").write_text("in the way")
  tracer = _make_tracer(tmp_path, now, start_step=2)
  assert not _traced_steps(tracer, profiler, steps_done=0, num_calls=9)
  assert "failed ([Errno 17] File exists" in capsys.readouterr().out


def test_a_request_that_cannot_be_taken_away_asks_once(
    tmp_path, profiler, now, monkeypatch, capsys
):
  (tmp_path / "profile").touch()
  monkeypatch.setattr(profiling.os, "remove", _refuse)
  tracer = _make_tracer(tmp_path, now)
  assert not _traced_steps(
      tracer,
      profiler,
      steps_done=0,
      num_calls=9,
      before=lambda _: now.advance(1.0),
  )
  assert capsys.readouterr().out.count("trace: ") == 1


def _refuse(_):
  raise PermissionError(13, "Permission denied")


def test_what_a_trace_costs_counts_as_logging(tmp_path, monkeypatch, now):
  clock = step_clock.StepClock(now)
  tracer = profiling.Tracer(
      Workdir(str(tmp_path)), clock, start_step=1, num_steps=1
  )
  monkeypatch.setattr(
      jax.profiler, "start_trace", lambda *_, **__: now.advance(1.0)
  )
  monkeypatch.setattr(jax.profiler, "stop_trace", lambda: now.advance(2.0))
  tracer.traced(lambda *given: given, steps_done=0)(0, 0)
  assert clock.split()["logging"] == 3.0


def test_a_real_trace_names_its_steps_and_needs_no_tensorflow(tmp_path, now):
  @jax.jit
  def train_step(state, batch):
    return state + batch @ batch, {"total": batch.sum()}

  batch = jnp.ones((8, 8))
  train_step(batch, batch)
  tracer = _make_tracer(tmp_path, now, start_step=3, num_steps=2)
  step_fn = tracer.traced(train_step, steps_done=0)
  state = batch
  for _ in range(6):
    state, _ = step_fn(state, batch)
  folder = tmp_path / "profile_3" / "plugins" / "profile"
  (written,) = folder.iterdir()
  # What xprof reads, and what the viewer in a browser reads.
  assert len(list(written.glob("*.xplane.pb"))) == 1
  with gzip.open(written / "perfetto_trace.json.gz") as file:
    events = json.load(file)["traceEvents"]
  steps = [
      int(event["args"]["step_num"])
      for event in events
      if event.get("name") == "train"
  ]
  assert sorted(steps) == [3, 4]
  assert "tensorflow" not in sys.modules
