"""Metrics are averaged over a row's steps, and a bad one stops the run."""

import json
import math

import jax
import jax.numpy as jnp
import pytest
from fake_clock import FakeClock

from chain_jax import errors, metric_writer, step_recorder
from chain_jax.step_clock import StepClock
from chain_jax.step_rates import StepWork

_WORK = StepWork(8, num_devices=2, flops=6e12, peak_flops=1e12)


@pytest.fixture
def now():
  return FakeClock()


def _make_recorder(writer, now):
  return step_recorder.StepRecorder(
      writer, StepClock(now), _WORK, start_step=0, num_steps=10
  )


@pytest.fixture
def recorder(tmp_path, now):
  writer = metric_writer.MetricWriter(str(tmp_path), start_step=0)
  yield _make_recorder(writer, now)
  writer.close()


def _metrics(total, checksum):
  return {
      "total": jnp.float32(total),
      "gradient_norm": jnp.float32(1.0),
      "batch_checksum": jnp.uint32(checksum),
  }


def _row(folder):
  return json.loads((folder / "metrics.jsonl").read_text())


def test_a_row_holds_means_and_the_checksum_of_every_step(
    recorder, tmp_path, now
):
  recorder.add(_metrics(1.0, 11))
  recorder.add(_metrics(3.0, 4294967295))
  now.advance(4.0)
  recorder.flush(2, learning_rate=0.5)
  row = _row(tmp_path)
  assert row["step"] == 2 and row["total"] == 2.0
  assert row["batch_checksums"] == [11, 4294967295]
  # 2 steps of 8 videos in 4 s.
  assert row["learning_rate"] == 0.5 and row["videos_per_second"] == 4.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_its_step_and_writes_nothing(
    recorder, tmp_path, now, bad
):
  for step, total in enumerate([1.0, bad, bad], 1):
    recorder.add(_metrics(total, step))
  now.advance(1.0)
  with pytest.raises(errors.RunError, match="step 2: total must be finite"):
    recorder.flush(3, learning_rate=0.5)
  assert not (tmp_path / "metrics.jsonl").read_text()


def test_nothing_new_writes_no_row(recorder, tmp_path):
  recorder.flush(0, learning_rate=0.5)
  assert not (tmp_path / "metrics.jsonl").read_text()


def _slow_batches(now, seconds):
  for wait in seconds:
    now.advance(wait)
    yield wait


def _train(recorder, now, waits):
  """Waits for batches and takes 3 s for each."""
  for step, _ in enumerate(recorder.timed(_slow_batches(now, waits)), 1):
    recorder.add(_metrics(1.0, step))
    now.advance(3.0)


def test_a_row_splits_the_wall_clock_into_parts_that_add_up(
    recorder, tmp_path, now
):
  now.advance(100.0)  # Before the first batch: no part of training.
  _train(recorder, now, [1.0, 0.5])
  with recorder.measure("validation"):
    now.advance(2.0)
  with recorder.measure("checkpoint"):
    now.advance(0.25)
  recorder.flush(2, learning_rate=0.5)
  row = _row(tmp_path)
  assert row["input_wait_seconds"] == 1.5
  assert row["validation_seconds"] == 2.0
  assert row["checkpoint_seconds"] == 0.25
  assert row["compute_seconds"] == 6.0 and row["logging_seconds"] == 0.0
  # 9.75 s in all, 2 steps.
  assert row["step_seconds"] == 4.875
  assert row["input_wait_share"] == 1.5 / 9.75
  # 2 * 6e12 operations of 2 devices * 1e12 a second * 9.75 s.
  assert row["model_flop_utilisation"] == pytest.approx(12 / 19.5)


def test_what_writing_a_row_takes_is_logging_of_the_next(
    recorder, tmp_path, now, monkeypatch
):
  write = metric_writer.MetricWriter.write

  def slow_write(*given):
    now.advance(0.5)
    write(*given)

  monkeypatch.setattr(metric_writer.MetricWriter, "write", slow_write)
  _train(recorder, now, [1.0])
  recorder.flush(1, learning_rate=0.5)
  recorder.write(1, {"score": 1.0})
  recorder.add(_metrics(1.0, 2))
  now.advance(3.0)
  recorder.flush(2, learning_rate=0.5)
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  first, _, second = map(json.loads, lines)
  assert first["logging_seconds"] == 0.0
  assert second["logging_seconds"] == 1.0
  assert second["compute_seconds"] == 3.0


def test_the_printed_line_says_what_limits_the_speed(recorder, now, capsys):
  _train(recorder, now, [1.0, 0.0])
  recorder.flush(2, learning_rate=0.5)
  with recorder.measure("checkpoint"):
    now.advance(3.0)  # The last one comes after the last row.
  recorder.finish()
  progress, times = capsys.readouterr().out.splitlines()
  # 16 videos in 7 s; 12e12 of 14e12 operations; 1 of 7 s.
  start = "step 2/10  loss 1.0000  2 videos/s  MFU 86%  input 14%  ETA "
  assert progress.startswith(start)
  assert times.startswith(
      "time 0:10: compute 60%, checkpoint 30%, input wait 10%, "
  )


def test_a_process_without_a_writer_prints_and_writes_nothing(
    tmp_path, now, capsys
):
  recorder = _make_recorder(None, now)
  _train(recorder, now, [1.0])
  recorder.flush(1, learning_rate=0.5)
  recorder.write(1, {"score": 1.0})
  recorder.finish()
  assert capsys.readouterr().out == "" and not list(tmp_path.iterdir())


@pytest.fixture
def device(monkeypatch):
  """Makes steps busy: `device.busy` says whether a step is still under way."""

  class Device:
    busy = False

  monkeypatch.setattr(
      step_recorder.StepRecorder,
      "_is_busy",
      lambda recorder: bool(recorder._pending) and Device.busy,
  )
  return Device


def test_a_step_is_starved_when_the_devices_ran_dry_in_the_wait(
    recorder, tmp_path, now, device
):
  def batches():
    yield 0  # Nothing was under way yet.
    yield 1  # Under way before and after.
    device.busy = False
    yield 2  # Done before the batch was there.
    device.busy = False
    yield 3  # The same again.

  for step, _ in enumerate(recorder.timed(batches()), 1):
    recorder.add(_metrics(1.0, step))
    device.busy = True
    now.advance(1.0)
  recorder.flush(4, learning_rate=0.5)
  assert _row(tmp_path)["input_starved_share"] == 0.5


class HeldStep:
  """A metric of a step that is under way until somebody waits for it."""

  is_done = False

  def is_ready(self):
    return self.is_done

  def block_until_ready(self):
    self.is_done = True
    return self


def test_devices_are_busy_until_their_last_step_is_done(recorder):
  assert not recorder._is_busy()
  recorder._pending.append({"total": HeldStep()})
  assert recorder._is_busy()
  jax.block_until_ready(recorder._pending)
  assert not recorder._is_busy()


def test_steps_under_way_are_done_before_a_part_is_measured(recorder):
  recorder._pending.append({"total": HeldStep()})
  with recorder.measure("checkpoint"):
    assert not recorder._is_busy()
