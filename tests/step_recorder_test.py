"""Metrics are averaged over a row's steps, and a bad one stops the run."""

import json
import math

import jax.numpy as jnp
import pytest

from chain_jax import errors, metric_writer, step_recorder


@pytest.fixture
def recorder(tmp_path):
  writer = metric_writer.MetricWriter(str(tmp_path), start_step=0)
  yield step_recorder.StepRecorder(
      writer, batch_size=8, start_step=0, num_steps=10
  )
  writer.close()


def _metrics(total, checksum):
  return {
      "total": jnp.float32(total),
      "gradient_norm": jnp.float32(1.0),
      "batch_checksum": jnp.uint32(checksum),
  }


def test_a_row_holds_means_and_the_checksum_of_every_step(recorder, tmp_path):
  recorder.add(_metrics(1.0, 11))
  recorder.add(_metrics(3.0, 4294967295))
  recorder.flush(2, learning_rate=0.5)
  row = json.loads((tmp_path / "metrics.jsonl").read_text())
  assert row["step"] == 2 and row["total"] == 2.0
  assert row["batch_checksums"] == [11, 4294967295]
  assert row["learning_rate"] == 0.5 and row["videos_per_second"] > 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_its_step_and_writes_nothing(
    recorder, tmp_path, bad
):
  for step, total in enumerate([1.0, bad, bad], 1):
    recorder.add(_metrics(total, step))
  with pytest.raises(errors.RunError, match="step 2: total must be finite"):
    recorder.flush(3, learning_rate=0.5)
  assert not (tmp_path / "metrics.jsonl").read_text()


def test_nothing_new_writes_no_row(recorder, tmp_path):
  recorder.flush(0, learning_rate=0.5)
  assert not (tmp_path / "metrics.jsonl").read_text()
