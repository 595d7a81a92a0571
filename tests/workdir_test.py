"""A workdir belongs to one config."""

import json

import pytest
import tiny

from chain_jax import errors, workdir


def _open(path, is_writer=True, **changes):
  config = tiny.tiny_config(**changes)
  return workdir.open_workdir(str(path), config, is_writer=is_writer)


def test_a_new_workdir_holds_its_config(tmp_path):
  opened = _open(tmp_path / "run", model__num_bits=32)
  with open(opened.config) as file:
    assert json.load(file)["model"]["num_bits"] == 32


def test_a_reader_writes_nothing(tmp_path):
  _open(tmp_path / "run", is_writer=False)
  assert not (tmp_path / "run").exists()


def test_another_config_is_refused_and_its_fields_named(tmp_path):
  _open(tmp_path)
  with pytest.raises(errors.InputError) as caught:
    _open(tmp_path, model__num_bits=32, augment__crop_fraction=(0.1, 0.2))
  message = str(caught.value)
  assert "augment.crop_fraction, model.num_bits" in message
  assert "--workdir" in message


def test_what_is_learnt_by_no_one_may_change(tmp_path):
  _open(tmp_path)
  opened = _open(
      tmp_path,
      data__root="elsewhere",
      data__num_workers=3,
      train__log_every_steps=7,
  )
  with open(opened.config) as file:
    assert json.load(file)["data"]["root"] == "elsewhere"


def test_a_damaged_config_is_one_line(tmp_path):
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(errors.InputError, match="config.json: must be"):
    _open(tmp_path)


def test_a_path_that_cannot_be_a_folder_is_a_failure(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.RunError, match="must be a folder"):
    _open(tmp_path / "file" / "run")
