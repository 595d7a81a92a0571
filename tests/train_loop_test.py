"""What training keeps when something goes wrong on the way."""

import json
import os

import numpy as np
import pytest
import tiny

from chain_jax import codes, errors, run, train_loop
from chain_jax import report as report_lib
from chain_jax.data import pipeline
from chain_jax.data import splits as splits_lib


def _checkpoints(path):
  if not (path / "checkpoints").exists():
    return []
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


def test_a_shuffle_by_shards_follows_the_shards_of_the_split():
  config = tiny.tiny_config(data__shuffle="shards", data__shuffle_window=1)
  splits = splits_lib.make_splits(config.data, seed=0)
  splits.train.shard_starts = np.array([0, 16, 32, 48])
  plan = train_loop.make_plan(config, splits)
  shards = [
      set((plan.batches.videos(step) // 16).tolist()) for step in range(9)
  ]
  assert all(len(one) == 1 for one in shards)
  config.data.shuffle = "videos"
  plan = train_loop.make_plan(config, splits)
  assert len(set((plan.batches.videos(0) // 16).tolist())) == 3


def _rows(path):
  lines = (path / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  return [row for row in rows if "batch_checksums" in row]


def test_a_run_from_the_devices_sees_the_videos_of_one_from_the_host(tmp_path):
  found = []
  for on_device in (False, True):
    config = tiny.tiny_config(data__cache_on_device=on_device)
    path = tmp_path / str(on_device)
    run.run(config, path=str(path), mode="train")
    found.append(_rows(path))
  for host, device in zip(*found, strict=True):
    assert host["batch_checksums"] == device["batch_checksums"]
    # Other draws for the same views: near each other, and not the same.
    assert 0 < abs(host["total"] - device["total"]) < 0.2 * host["total"]


def test_a_machine_that_lost_its_disk_goes_on_from_the_checkpoint_folder(
    tmp_path, capsys
):
  folder = str(tmp_path / "kept")
  config = tiny.tiny_config(train__checkpoint_folder=folder)
  run.run(config, path=str(tmp_path / "lost"), mode="train")
  assert "kept: no checkpoint yet, training begins" in capsys.readouterr().out
  assert not (tmp_path / "lost" / "checkpoints").exists()
  run.run(config, path=str(tmp_path / "new"), mode="train")
  assert "resuming after step 12 of 12" in capsys.readouterr().out
  packed = [
      codes.read_code_directory(tmp_path / name / "codes" / "gallery").packed
      for name in ("lost", "new")
  ]
  np.testing.assert_array_equal(*packed, strict=True)
  config.train.seed = 1
  with pytest.raises(
      errors.InputError, match="kept: checkpoint 12 is of a run"
  ):
    run.run(config, path=str(tmp_path / "other"), mode="train")


def test_more_steps_than_int32_counts_are_refused():
  config = tiny.tiny_config(train__num_epochs=2**30)
  splits = splits_lib.make_splits(config.data, seed=0)
  with pytest.raises(errors.InputError, match="3221225472; set `train.max_st"):
    train_loop.make_plan(config, splits)
  config.train.max_steps = 7
  assert train_loop.make_plan(config, splits).num_steps == 7
