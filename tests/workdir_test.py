"""A workdir belongs to one config and to one set of videos."""

import json
import os

import pytest
import tiny

from chain_jax import errors, workdir

_VIDEOS = {"train": "a", "query": "b"}


def _open(path, *, must_exist=False, **changes):
  config = tiny.tiny_config(**changes)
  return workdir.open_workdir(str(path), config, must_exist=must_exist)


def _claim(path, fingerprints=_VIDEOS, **changes):
  opened = _open(path, **changes)
  workdir.claim_workdir(opened, tiny.tiny_config(**changes), fingerprints)
  return opened


def test_a_claimed_workdir_holds_its_config(tmp_path):
  claimed = _claim(tmp_path / "run", model__num_bits=32)
  with open(claimed.config) as file:
    assert json.load(file)["model"]["num_bits"] == 32


def test_opening_writes_nothing(tmp_path):
  _open(tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_another_config_is_refused_and_its_fields_named(tmp_path):
  _claim(tmp_path)
  with pytest.raises(errors.InputError) as caught:
    _open(tmp_path, model__num_bits=32, augment__crop_fraction=(0.1, 0.2))
  message = str(caught.value)
  assert "augment.crop_fraction, model.num_bits" in message
  assert "--workdir" in message


def test_what_is_learnt_by_no_one_may_change(tmp_path):
  _claim(tmp_path)
  claimed = _claim(
      tmp_path,
      data__root="elsewhere",
      data__num_workers=3,
      train__log_every_steps=7,
  )
  with open(claimed.config) as file:
    assert json.load(file)["data"]["root"] == "elsewhere"


def test_other_videos_are_refused_and_their_split_named(tmp_path):
  _claim(tmp_path)
  with pytest.raises(errors.InputError, match="those of query differ"):
    _claim(tmp_path, {"train": "a", "query": "c"}, data__root="elsewhere")
  with open(tmp_path / "config.json") as file:
    assert json.load(file)["data"]["root"] == ""


@pytest.mark.parametrize("name", ["config.json", "data.json"])
def test_a_damaged_file_is_one_line(tmp_path, name):
  (tmp_path / name).write_text("{")
  with pytest.raises(errors.InputError, match=f"{name}: must be"):
    _claim(tmp_path)


def test_modes_that_need_a_run_refuse_a_folder_without_one(tmp_path):
  with pytest.raises(errors.InputError, match="run --mode=train first"):
    _open(tmp_path / "run", must_exist=True)
  assert not (tmp_path / "run").exists()


def test_checkpoints_without_a_config_are_left_alone(tmp_path):
  (tmp_path / "checkpoints" / "4").mkdir(parents=True)
  with pytest.raises(errors.InputError, match="config.json: must be there"):
    _open(tmp_path)


def test_a_path_that_cannot_be_a_folder_is_a_failure(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.RunError, match="must be a folder"):
    _open(tmp_path / "file" / "run")


def test_an_object_store_is_refused_rather_than_made_a_folder(tmp_path):
  del tmp_path
  with pytest.raises(errors.InputError, match="folder of this machine"):
    _open("gs://bucket/run")


def test_a_folder_without_the_right_to_write_is_a_failure(
    tmp_path, monkeypatch
):
  # Root may write anywhere: the answer is the operating system's to give.
  asked = []
  monkeypatch.setattr(os, "access", lambda *asking: asked.append(asking))
  with pytest.raises(errors.RunError, match="no right to write in"):
    _open(tmp_path / "new" / "run")
  assert asked == [(str(tmp_path), os.W_OK)]


@pytest.mark.parametrize("name", ["config.json", "data.json"])
@pytest.mark.parametrize(
    "content",
    [b"[]", b"3", b"\xff", b"[" * 10**5, b'{"a":' * 200 + b"1" + b"}" * 200],
)
def test_what_is_no_object_is_one_line(tmp_path, name, content):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(errors.InputError, match=f"{name}: must be"):
    _claim(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model": 3}, "`model` must be an object of fields, got 3"),
        ({"model": {"num_bits": "64"}}, "`model.num_bits` must be a whole"),
        ({"augment": {"crop_fraction": 1}}, "`augment.crop_fraction` must be"),
        ({"augment": {"crop_fraction": ["a", []]}}, "`augment.crop_fraction`"),
        ({"train": {"batch_size": -4}}, "`train.batch_size` must be at least"),
    ],
)
def test_a_config_that_no_run_can_have_is_one_line(tmp_path, content, words):
  (tmp_path / "config.json").write_text(json.dumps(content))
  with pytest.raises(errors.InputError, match=f"config.json: {words}"):
    workdir.read_config(str(tmp_path))


def test_a_path_that_is_no_utf8_is_kept(tmp_path):
  root = os.fsdecode(b"caf\xe9")
  claimed = _claim(tmp_path, data__root=root)
  assert workdir.read_config(claimed.path).data.root == root


def test_two_workdirs_may_not_share_a_checkpoint_folder(tmp_path):
  shared = {"train__checkpoint_folder": str(tmp_path / "shared")}
  one, other = (_open(tmp_path / name, **shared) for name in "ab")
  with workdir.trained_alone(one):
    with pytest.raises(errors.RunError, match="train.checkpoint_folder"):
      with workdir.trained_alone(other):
        raise AssertionError
  assert not list(tmp_path.iterdir())  # Nothing was trained.
  with workdir.trained_alone(other):
    pass


def test_an_object_store_is_said_to_have_no_lock(tmp_path, capsys):
  opened = _open(tmp_path / "a", train__checkpoint_folder="gs://bucket/run")
  with workdir.trained_alone(opened):
    assert capsys.readouterr().out.startswith(
        "gs://bucket/run: an object store"
    )


def test_the_lock_of_a_killed_run_is_no_checkpoint(tmp_path):
  (tmp_path / "checkpoints").mkdir()
  (tmp_path / "checkpoints" / ".run.lock").write_text("process 1 on a")
  with workdir.trained_alone(_open(tmp_path)):
    pass
