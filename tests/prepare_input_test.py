"""What a preparation cannot use is one line, and never mixed in."""

import errno
import json
import os

import numpy as np
import pytest
import tiny_plan

from chain_jax import prepare
from chain_jax.preparation import demo, tasks
from chain_jax.preparation import features as feature_preparation
from chain_jax.preparation import plan as plan_lib


def _refused(arguments, capsys):
  assert prepare.main(arguments) == 2
  line = capsys.readouterr().err
  assert line.startswith("error: ") and line.count("\n") == 1
  return line


@pytest.fixture
def shards(tmp_path):
  """Two train shards and a validate shard."""
  demo.write_demo(
      str(tmp_path / "shards"),
      num_shards=3,
      videos_per_shard=2,
      num_classes=8,
      seed=0,
  )
  return tmp_path / "shards"


def test_what_holds_no_video_at_all_is_no_dataset(tmp_path, capsys):
  (tmp_path / "shard").write_bytes(b"nothing of the kind")
  arguments = ["youtube8m", f"--input={tmp_path}/shard", "--num_workers=0"]
  line = _refused([*arguments, f"--output={tmp_path}/out"], capsys)
  assert "must hold at least one video, got none and 1 skipped" in line
  folder = tmp_path / "out" / "yt8m_frames" / "1.0.0"
  (skipped,) = json.loads((folder / "manifest.json").read_text())["skipped"]
  assert skipped["reason"] == "not a TFRecord file"
  assert not (folder / "metadata.json").exists()


def test_an_input_that_cannot_be_read_is_not_taken_for_a_full_disk(tmp_path):
  plan = tiny_plan.tiny_plan(tmp_path / "out", shard="shard7")

  def items():
    yield tasks.Note("a", 1)
    raise OSError(errno.EIO, os.strerror(errno.EIO))

  with pytest.raises(plan_lib.RunError, match="shard7: must be readable"):
    tasks.write_task(plan, 0, items())


def test_one_shard_in_two_parts_is_refused(shards, tmp_path, capsys):
  arguments = ["youtube8m", f"--train={shards}/*", f"--output={tmp_path}/out"]
  line = _refused([*arguments, f"--evaluation={shards}/*1.*"], capsys)
  assert "must match different files" in line and "train0001" in line


def test_features_changed_in_between_are_refused(tmp_path, capsys):
  features = np.random.default_rng(0).random((6, 3, 4)).astype(np.float32)
  arguments = [
      "features",
      f"--train={tmp_path}/set.npz",
      f"--train_labels={tmp_path}/labels.npy",
      f"--output={tmp_path}/out",
      "--num_workers=0",
  ]

  def write(features, labels):
    feature_preparation._open.cache_clear()  # As in another process.
    np.savez(tmp_path / "set.npz", feats=features)
    np.save(tmp_path / "labels.npy", np.array(labels))

  write(features, [0, 1, 2, 0, 1, 2])
  assert prepare.main(arguments) == 0
  assert prepare.main(arguments) == 0
  write(features, [0, 1, 2, 0, 2, 1])
  assert "differs in settings" in _refused(arguments, capsys)
  write(features + 1, [0, 1, 2, 0, 1, 2])
  assert "differs in settings" in _refused(arguments, capsys)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.chdir(tmp_path)
  np.save(tmp_path / "set.npy", np.ones((2, 3, 4), np.float32))
  arguments = ["features", "--train=~/set.npy", "--output=~/out"]
  assert prepare.main([*arguments, "--num_workers=0"]) == 0
  assert (tmp_path / "out" / "video_features").is_dir()
  assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    "flags",
    [("--runner=Nope",), ("--runner=DirectRunner", '--runner_options="')],
)
def test_a_runner_that_beam_does_not_know_is_refused(
    shards, tmp_path, capsys, flags
):
  pytest.importorskip("apache_beam", reason="the extra [beam] is not installed")
  arguments = ["youtube8m", f"--train={shards}/*", f"--output={tmp_path}/out"]
  assert prepare.main([*arguments, *flags]) == 2
  assert "what Apache Beam knows, got" in capsys.readouterr().err
