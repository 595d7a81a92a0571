"""Every mistake ends in one line and the right exit code; nothing is lost."""

import os

import h5py
import numpy as np
import pytest
import scipy.io
import tiny

from chain_jax import errors, run

_TRAIN, _TEST = 20, 6


@pytest.fixture
def folder(tmp_path):
  """Good files in UCF101's layout; each test spoils one thing."""
  rng = np.random.default_rng(0)
  for split, num_videos in (("train", _TRAIN), ("test", _TEST)):
    frames = rng.random((num_videos, 8, 24)).astype(np.float16)
    labels = np.eye(3, dtype=np.uint8)[np.arange(num_videos) % 3]
    _write_features(tmp_path / f"ucf_{split}_feats.h5", frames)
    scipy.io.savemat(tmp_path / f"ucf_{split}_labels.mat", {"labels": labels})
  return tmp_path


def _write_features(path, frames, key="feats"):
  with h5py.File(path, "w") as file:
    file[key] = frames


def _missing_file(folder):
  os.remove(folder / "ucf_test_feats.h5")


def _wrong_key(folder):
  frames = np.ones((_TEST, 8, 24), np.float16)
  _write_features(folder / "ucf_test_feats.h5", frames, key="features")


def _wrong_width(folder):
  frames = np.ones((_TEST, 8, 25), np.float16)
  _write_features(folder / "ucf_test_feats.h5", frames)


def _other_length(folder):
  frames = np.ones((_TEST - 1, 8, 24), np.float16)
  _write_features(folder / "ucf_test_feats.h5", frames)


def _nan_in_train(folder):
  frames = np.ones((_TRAIN, 8, 24), np.float16)
  frames[3, 2, 1] = np.nan
  _write_features(folder / "ucf_train_feats.h5", frames)


def _truncated(folder):
  file = folder / "ucf_train_feats.h5"
  os.truncate(file, file.stat().st_size // 2)


def _run(folder, workdir="run", **changes):
  """Runs as `main` does; returns the exit code."""
  config = tiny.tiny_config(
      data__dataset="ucf101",
      data__root=str(folder),
      train__max_steps=1,
      **changes,
  )
  path = str(folder / workdir)
  return errors.run_command(lambda: run.run(config, path=path, mode="train"))


def _the_one_line(capfd):
  """Returns the error's line and makes sure that it is the only one."""
  error = capfd.readouterr().err
  assert "Traceback" not in error
  lines = [line for line in error.splitlines() if line.startswith("error: ")]
  assert len(lines) == 1
  return lines[0]


@pytest.mark.parametrize(
    "spoil, words",
    [
        (_missing_file, ["ucf_test_feats.h5"]),
        (_wrong_key, ["ucf_test_feats.h5", "'feats'", "got features"]),
        (_wrong_width, ["`data.feature_dim`", "24", "25"]),
        (_other_length, ["ucf_test_feats.h5", "5 videos and 6 rows"]),
        (_nan_in_train, ["ucf_train_feats.h5", "3", "finite"]),
        (_truncated, ["ucf_train_feats.h5", "truncated"]),
    ],
)
@pytest.mark.parametrize("cached", [False, True])
def test_a_bad_file_is_named_with_the_rule_and_exit_code_2(
    folder, capfd, spoil, words, cached
):
  spoil(folder)
  assert _run(folder, data__cache_in_memory=cached) == 2
  line = _the_one_line(capfd)
  for word in words:
    assert word in line


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"model__num_bits": 12}, ["`model.num_bits`", "multiple of 8", "12"]),
        ({"train__batch_size": 12}, ["`train.batch_size`", "8 devices", "8."]),
        ({"train__batch_size": 64}, ["`train.batch_size`", "20", "64"]),
        ({"data__dataset": "ucf"}, ["`data.dataset`", "ucf101"]),
    ],
)
def test_a_bad_field_is_named_with_the_way_out(folder, capfd, changes, words):
  config = tiny.tiny_config(
      **{"data__dataset": "ucf101", "data__root": str(folder)} | changes
  )
  code = errors.run_command(
      lambda: run.run(config, path=str(folder / "run"), mode="train")
  )
  assert code == 2
  line = _the_one_line(capfd)
  for word in words:
    assert word in line


def test_a_corrected_command_may_use_the_same_workdir(folder, capfd):
  for changes in ({"data__feature_dim": 25}, {"train__batch_size": 64}):
    assert _run(folder, **changes) == 2
  assert len(capfd.readouterr().err.splitlines()) == 2
  assert _run(folder) == 0


def test_a_workdir_goes_on_with_its_own_videos_only(folder, capfd):
  assert _run(folder) == 0
  (folder / "run" / "report.json").unlink()
  frames = np.ones((_TRAIN, 8, 24), np.float16)
  _write_features(folder / "ucf_train_feats.h5", frames)
  assert _run(folder) == 2
  assert "run on other videos, those of train, gallery" in _the_one_line(capfd)


def test_another_runs_workdir_is_left_alone(folder, capfd):
  (folder / "run").mkdir()
  (folder / "run" / "config.json").write_text('{"name": "other"}')
  assert _run(folder) == 2
  assert "name" in _the_one_line(capfd)
  assert os.listdir(folder / "run") == ["config.json"]


def test_an_unwritable_workdir_is_a_failure(folder, capfd):
  (folder / "file").write_text("")
  assert _run(folder, workdir="file/run") == 1
  assert "must be a folder that can be written" in _the_one_line(capfd)


def test_a_full_disk_is_a_failure_in_one_line(folder, small_disk, capfd):
  # Room for config.json and metrics, not for a checkpoint.
  filler = small_disk / "filler"
  filler.write_bytes(b"x" * (512 - 128) * 1024)
  assert _run(folder, workdir=str(small_disk / "run")) == 1
  line = _the_one_line(capfd)
  assert "could not be written (No space left on device" in line
