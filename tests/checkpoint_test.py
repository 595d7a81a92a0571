"""Checkpoints: exact, movable to another mesh, and safe when damaged."""

import gc
import os

import jax
import numpy as np
import pytest
import tiny

from chain_jax import (
    checkpoint,
    errors,
    factories,
    ownership,
    sharding,
    train_state,
)

_CONFIG = {"name": "tiny", "train": {"checkpoint_folder": ""}}
_OWNER = ownership.Owner(config=_CONFIG, fingerprints={"train": "a"})


def _initialiser():
  config = tiny.tiny_config()
  optimizer = factories.make_optimizer(config.optimizer, lambda step: 0.1)
  model = train_state.make_model(config.model)
  return factories.make_initialiser(config, model, optimizer)


def _mesh(num_devices, model_parallel):
  return sharding.make_mesh(
      jax.devices()[:num_devices], model_parallel=model_parallel
  )


def _state(seed, step, num_devices=1, model_parallel=1):
  mesh = _mesh(num_devices, model_parallel)
  state = train_state.start(_initialiser(), seed, mesh)
  step = jax.device_put(np.int32(step), sharding.replicated(mesh))
  return state.replace(step=step)


def _target(num_devices=1, model_parallel=1):
  mesh = _mesh(num_devices, model_parallel)
  return train_state.abstract_state(_initialiser(), mesh)


def _save(folder, states, keep=3, owner=_OWNER):
  checkpoints = checkpoint.Checkpoints(str(folder), keep=keep, owner=owner)
  for state in states:
    checkpoints.save(state, seconds=2.5)
  checkpoints.wait()
  checkpoints.close()


# Of many arrays that cannot be read orbax raises one error, and leaves the
# others to the garbage collector, which complains of them, and after the last
# test nothing would excuse it.
@pytest.fixture
def leftovers():
  yield
  gc.collect()


def _damages(test):
  excused = pytest.mark.filterwarnings(
      "ignore::pytest.PytestUnraisableExceptionWarning"
  )
  return excused(pytest.mark.usefixtures("leftovers")(test))


def _restore(
    folder, num_devices=1, model_parallel=1, owner=_OWNER, only_reads=False
):
  checkpoints = checkpoint.Checkpoints(
      str(folder), keep=3, owner=owner, only_reads=only_reads
  )
  try:
    return checkpoints.restore(_target(num_devices, model_parallel))
  finally:
    checkpoints.close()
    gc.collect()  # Here, not in the middle of another test.


def _assert_same(actual, expected):
  jax.tree.map(
      lambda one, other: np.testing.assert_array_equal(one, other, strict=True),
      jax.device_get(actual),
      jax.device_get(expected),
  )


def _damage(folder, step):
  """Cuts every array file of a checkpoint in half."""
  files = [
      file
      for file in (folder / str(step) / "state").rglob("*")
      if file.is_file() and file.stat().st_size > 8
  ]
  for file in files:
    os.truncate(file, file.stat().st_size // 2)
  assert files


def test_a_state_comes_back_bit_for_bit_with_its_seconds(tmp_path):
  state = _state(seed=3, step=7)
  _save(tmp_path / "c", [state])
  restored, seconds = _restore(tmp_path / "c")
  _assert_same(restored, state)
  assert seconds == 2.5


@pytest.mark.parametrize("before, after", [(1, 8), (8, 2)])
def test_a_state_moves_to_another_number_of_devices(tmp_path, before, after):
  state = _state(seed=3, step=7, num_devices=before)
  _save(tmp_path / "c", [state])
  restored, _ = _restore(tmp_path / "c", num_devices=after)
  _assert_same(restored, state)
  kernel = restored.params["projection"]["kernel"]
  assert len(kernel.sharding.device_set) == after


@pytest.mark.parametrize(
    "before, after", [((8, 1), (4, 2)), ((8, 4), (2, 1)), ((2, 2), (8, 2))]
)
def test_a_state_moves_to_another_shape_of_the_mesh(tmp_path, before, after):
  state = _state(3, 7, *before)
  _save(tmp_path / "c", [state])
  restored, _ = _restore(tmp_path / "c", *after)
  _assert_same(restored, state)
  kernel = restored.params["projection"]["kernel"]
  # The projection's inputs are split over `model`.
  assert kernel.sharding.shard_shape((24, 16)) == (24 // after[1], 16)


@pytest.mark.parametrize(
    "config, fingerprints, said",
    [
        (
            _CONFIG | {"name": "other"},
            {"train": "a"},
            "another config.*differ: name",
        ),
        (_CONFIG, {"train": "b"}, "other videos, those of train"),
    ],
)
def test_the_checkpoints_of_another_run_are_refused_and_stay(
    tmp_path, config, fingerprints, said
):
  _save(tmp_path / "c", [_state(seed=1, step=4)])
  other = ownership.Owner(config=config, fingerprints=fingerprints)
  with pytest.raises(errors.InputError, match=said) as caught:
    _restore(tmp_path / "c", owner=other)
  assert "checkpoint 4" in str(caught.value) and "\n" not in str(caught.value)
  assert _restore(tmp_path / "c") is not None


def test_what_may_change_and_videos_not_known_are_no_other_run(tmp_path):
  _save(tmp_path / "c", [_state(seed=1, step=4)])
  moved = {"name": "tiny", "train": {"checkpoint_folder": "elsewhere"}}
  same = ownership.Owner(config=moved, fingerprints=None)
  assert _restore(tmp_path / "c", owner=same) is not None


def test_a_checkpoint_of_an_older_version_is_named_and_kept(
    tmp_path, monkeypatch
):
  with monkeypatch.context() as older:
    older.setattr(checkpoint, "_FORMAT_VERSION", 1)
    _save(tmp_path / "c", [_state(seed=1, step=4)])
  with pytest.raises(errors.InputError, match="checkpoint 4 must be of format"):
    _restore(tmp_path / "c")
  assert (tmp_path / "c" / "4").is_dir()


def test_a_folder_that_cannot_be_is_said_in_one_line(tmp_path):
  (tmp_path / "file").write_text("")
  for folder in (tmp_path / "file" / "c", "gs://bucket-nowhere/run"):
    with pytest.raises(errors.RunError, match="cannot be used") as caught:
      _save(folder, [])
    assert str(folder) in str(caught.value)
    assert "train.checkpoint_folder" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("process", [0, 1])
def test_a_folder_that_not_all_hosts_share_is_refused(
    tmp_path, monkeypatch, process
):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(jax, "process_index", lambda: process)
  agreement = checkpoint.agreement
  monkeypatch.setattr(agreement, "numbers_of_first", lambda numbers, most: [7])
  monkeypatch.setattr(agreement, "wait_for_all", lambda name: None)
  # Process 0 sees its own mark, and hears that another one does not.
  monkeypatch.setattr(agreement, "true_on_all", lambda here: here and process)
  with pytest.raises(errors.InputError, match="one that all hosts share"):
    checkpoint._check_shared(checkpoint.epath.Path(tmp_path))
  assert not list(tmp_path.iterdir())


def test_what_counts_is_what_is_committed(tmp_path):
  checkpoints = checkpoint.Checkpoints(
      str(tmp_path / "c"), keep=3, owner=_OWNER
  )
  assert checkpoints.what_counts() == "before anything was saved"
  checkpoints.save(_state(seed=1, step=4), seconds=0.0)
  checkpoints.save(_state(seed=1, step=8), seconds=0.0)
  assert checkpoints.what_counts().endswith(("step 4 counts", "step 8 counts"))
  checkpoints.wait()
  assert checkpoints.what_counts().endswith("the checkpoint of step 8 counts")
  checkpoints.close()


def test_an_empty_folder_restores_nothing(tmp_path):
  assert _restore(tmp_path / "c") is None


def test_the_newest_are_kept(tmp_path):
  _save(tmp_path / "c", [_state(0, step) for step in (1, 2, 3)], keep=2)
  kept = {file.name for file in (tmp_path / "c").iterdir()}
  assert {"2", "3"} <= kept and "1" not in kept


@_damages
def test_a_damaged_checkpoint_is_moved_aside_and_said_so(tmp_path, capsys):
  good = _state(seed=1, step=4)
  _save(tmp_path / "c", [good, _state(seed=2, step=8)])
  _damage(tmp_path / "c", 8)
  restored, _ = _restore(tmp_path / "c")
  _assert_same(restored, good)
  said = capsys.readouterr().out
  assert "checkpoint 8 is damaged" in said and "from step 4" in said
  assert (tmp_path / "c_damaged" / "8").is_dir()
  again = _state(seed=5, step=8)
  _save(tmp_path / "c", [again])
  _assert_same(_restore(tmp_path / "c")[0], again)


def _array_bytes(folder):
  """Files and places where a checkpoint may hold incompressible numbers.

  Orbax spreads the arrays over files as its threads happen to run, and leaves
  bytes behind that nothing reads: after a file's arrays, or all of a file.
  """
  for file in sorted(folder.rglob("*")):
    # A projection kernel of 24 x 16 floats fills more than this.
    if (
        file.is_file()
        and file.parent.name == "d"
        and file.stat().st_size > 1024
    ):
      yield from ((file, place) for place in (64, file.stat().st_size // 3))


@_damages
def test_no_flipped_bit_comes_back_as_a_state(tmp_path, capsys):
  good, newer = _state(seed=1, step=4), _state(seed=2, step=8)
  _save(tmp_path / "c", [good, newer])
  noticed = 0
  for file, place in list(_array_bytes(tmp_path / "c" / "8" / "state")):
    content = bytearray(file.read_bytes())
    content[place] ^= 16
    file.write_bytes(content)
    restored, _ = _restore(tmp_path / "c")
    aside = tmp_path / "c_damaged" / "8"
    if aside.exists():
      _assert_same(restored, good)
      aside.rename(tmp_path / "c" / "8")
      noticed += 1
    else:  # A byte that nothing reads.
      _assert_same(restored, newer)
    content[place] ^= 16
    file.write_bytes(content)
  assert noticed and "are not those saved" in capsys.readouterr().out


@_damages
def test_no_good_checkpoint_is_an_error_and_deletes_nothing(tmp_path):
  _save(tmp_path / "c", [_state(seed=1, step=4)])
  _damage(tmp_path / "c", 4)
  with pytest.raises(errors.RunError, match=r"none of the checkpoints \[4\]"):
    _restore(tmp_path / "c")
  assert (tmp_path / "c" / "4").is_dir()


def test_a_half_written_checkpoint_is_no_checkpoint_and_goes(tmp_path):
  state = _state(seed=1, step=4)
  _save(tmp_path / "c", [state])
  partial = tmp_path / "c" / "8.orbax-checkpoint-tmp-1"
  (partial / "state").mkdir(parents=True)
  (partial / "state" / "d").write_bytes(b"half")
  _assert_same(_restore(tmp_path / "c")[0], state)
  assert not partial.exists()


@_damages
def test_who_only_reads_changes_nothing_under_a_run(tmp_path, capsys):
  good = _state(seed=1, step=4)
  _save(tmp_path / "c", [good, _state(seed=2, step=8)])
  _damage(tmp_path / "c", 8)
  under_way = tmp_path / "c" / "12.orbax-checkpoint-tmp-1"
  under_way.mkdir()
  before = sorted(tmp_path.rglob("*"))
  _assert_same(_restore(tmp_path / "c", only_reads=True)[0], good)
  assert sorted(tmp_path.rglob("*")) == before
  assert "checkpoint 8 is damaged" in capsys.readouterr().out
  assert _restore(tmp_path / "none", only_reads=True) is None
  assert not (tmp_path / "none").exists()


def test_a_full_disk_ends_in_one_line_and_keeps_the_last_checkpoint(small_disk):
  good = _state(seed=1, step=4)
  _save(small_disk / "c", [good])
  (small_disk / "filler").write_bytes(b"")
  with open(small_disk / "filler", "wb", buffering=0) as file:
    try:
      while file.write(b"x" * 4096):
        pass
    except OSError:
      pass
  with pytest.raises(errors.RunError, match="could not be written") as caught:
    _save(small_disk / "c", [_state(seed=2, step=8)])
  assert "\n" not in str(caught.value)
  os.remove(small_disk / "filler")
  _assert_same(_restore(small_disk / "c")[0], good)


def test_a_step_that_cannot_be_saved_is_an_error(tmp_path):
  _save(tmp_path / "c", [_state(seed=1, step=4)])
  (tmp_path / "c" / "9999").mkdir()
  with pytest.raises(errors.RunError, match="8 cannot be saved.*9999") as one:
    _save(tmp_path / "c", [_state(seed=1, step=8)])
  assert str(tmp_path / "c") in str(one.value) and "\n" not in str(one.value)


def test_a_checkpoint_under_another_number_is_moved_aside(tmp_path, capsys):
  good, newer = _state(seed=1, step=4), _state(seed=2, step=8)
  _save(tmp_path / "c", [good, newer])
  (tmp_path / "c" / "8").rename(tmp_path / "c" / "9999")
  _assert_same(_restore(tmp_path / "c")[0], good)
  assert "9999 is damaged (it holds the state of step 8)" in (
      capsys.readouterr().out
  )
  _save(tmp_path / "c", [newer])
  _assert_same(_restore(tmp_path / "c")[0], newer)


def test_a_checkpoint_beyond_the_end_of_the_run_is_named(tmp_path):
  _save(tmp_path / "c", [_state(seed=1, step=4), _state(seed=1, step=40)])
  checkpoints = checkpoint.Checkpoints(
      str(tmp_path / "c"), keep=3, owner=_OWNER
  )
  with pytest.raises(errors.RunError, match="checkpoint 40 must not .* 12;"):
    checkpoints.restore(_target(), last_step=12)
  checkpoints.close()
  assert (tmp_path / "c" / "40").is_dir()
