"""What training keeps when something goes wrong on the way."""

import os

import numpy as np
import pytest
import tiny

from chain_jax import errors, run
from chain_jax import report as report_lib
from chain_jax.data import pipeline


def _checkpoints(path):
  names = os.listdir(path / "checkpoints")
  return sorted(int(name) for name in names if name.isdigit())


@pytest.fixture
def spoilt_views(monkeypatch):
  """Views hold NaN from the sixth batch on."""
  load = pipeline._TrainingLoader.__call__

  def spoilt(loader, step):
    batch = load(loader, step)
    if step >= 5:
      batch.frames[:] = np.nan
    return batch

  monkeypatch.setattr(pipeline._TrainingLoader, "__call__", spoilt)
  return monkeypatch


def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint(
    tmp_path, spoilt_views, capsys
):
  config = tiny.tiny_config(train__keep_checkpoints=1)
  with pytest.raises(errors.RunError, match="must be finite"):
    run.run(config, path=str(tmp_path), mode="train")
  assert _checkpoints(tmp_path) == [4]
  spoilt_views.undo()
  run.run(config, path=str(tmp_path), mode="train")
  assert "resuming after step 4 of 12" in capsys.readouterr().out
  report = report_lib.read_report(tmp_path / "report.json")
  assert report["step"] == 12


def test_an_update_that_ruins_the_parameters_is_not_saved(tmp_path):
  # The loss of step 1 is finite: it is that of the parameters before.
  config = tiny.tiny_config(
      optimizer__learning_rate=1e30,
      optimizer__warmup_steps=0,
      train__checkpoint_every_steps=1,
  )
  with pytest.raises(errors.RunError, match="step 1: parameter_norm must be"):
    run.run(config, path=str(tmp_path), mode="train")
  assert not _checkpoints(tmp_path)
