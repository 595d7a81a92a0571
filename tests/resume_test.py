"""Killed at any moment, the same command ends as if nothing had happened."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny
import xla_settings

from chain_jax import codes as codes_lib

_ROOT = pathlib.Path(__file__).resolve().parent.parent
# Checkpoints every 4 steps of 24, so most kills lose some steps.
_CHANGES = {"train__num_epochs": 8}


def _start(path, *, num_devices=1, **changes):
  config = tiny.tiny_config(**(_CHANGES | changes))
  devices = xla_settings.xla_flags(num_devices)
  return subprocess.Popen(
      [sys.executable, "-m", "chain_jax.main", f"--workdir={path}"]
      + ["--config=configs/quickstart.py"]
      + _overrides(config),
      cwd=_ROOT,
      env=os.environ | {"XLA_FLAGS": devices, "JAX_PLATFORMS": "cpu"},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
  )


def _overrides(config):
  """Flags that turn the quickstart into `config`."""
  from chain_jax import config as config_lib

  return [
      f"--config.{name}={config_lib.field_value(config, name)}"
      for name in config_lib.field_names(config)
  ]


def _finish(path, **settings):
  process = _start(path, **settings)
  output, error = process.communicate(timeout=240)
  assert process.returncode == 0, error
  return output


def _kill_at(path, step, **settings):
  """Starts the run and kills it without warning once it logged a step."""
  process = _start(path, **settings)
  deadline = time.monotonic() + 240
  while _steps(path)[-1:] < [step] and process.poll() is None:
    assert time.monotonic() < deadline
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.communicate()


def _rows(path):
  file = path / "metrics.jsonl"
  if not file.exists():
    return []
  lines = file.read_text().splitlines(keepends=True)
  return [json.loads(line) for line in lines if line.endswith("\n")]


def _steps(path):
  return [row["step"] for row in _rows(path)]


def _checksums(path):
  return [one for row in _rows(path) for one in row["batch_checksums"]]


def _codes(path):
  return codes_lib.read_code_directory(path / "codes" / "gallery").packed


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
  path = tmp_path_factory.mktemp("uninterrupted") / "run"
  _finish(path)
  assert len(set(_checksums(path))) == 24
  return path


@pytest.mark.slow
def test_three_kills_change_no_bit_and_repeat_no_batch(uninterrupted, tmp_path):
  path = tmp_path / "run"
  for step in (3, 9, 18):
    _kill_at(path, step)
    assert not (path / "report.json").exists()
  assert _steps(path)[-1] < 24
  _finish(path)
  np.testing.assert_array_equal(
      _codes(path), _codes(uninterrupted), strict=True
  )
  assert _checksums(path) == _checksums(uninterrupted)
  assert _steps(path) == list(range(1, 25))


@pytest.mark.slow
def test_one_device_before_and_eight_after_go_on_with_the_same_batches(
    uninterrupted, tmp_path
):
  path = tmp_path / "run"
  _kill_at(path, 9)
  _finish(path, num_devices=8)
  assert _checksums(path) == _checksums(uninterrupted)
  codes, expected = map(
      codes_lib.unpack_bits, (_codes(path), _codes(uninterrupted))
  )
  # Sums over 8 shards round otherwise: bits whose logit is near 0 may flip.
  assert (codes != expected).mean() < 0.02
  last, expected_last = _rows(path)[-1], _rows(uninterrupted)[-1]
  # float32 rounding through 15 updates that divide by small gradients.
  np.testing.assert_allclose(last["total"], expected_last["total"], rtol=1e-3)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_in_one_line_and_saves_nothing(tmp_path):
  path = tmp_path / "run"
  process = _start(
      path,
      optimizer__learning_rate=1e30,
      optimizer__gradient_clip=0.0,
      optimizer__warmup_steps=6,
  )
  _, error = process.communicate(timeout=240)
  assert process.returncode == 1
  assert error.startswith("error: ") and error.count("\n") == 1
  assert "must be finite" in error
  assert not (path / "report.json").exists()
  assert not list((path / "checkpoints").glob("[0-9]*"))
