"""Checkpoints go to an object store and come back, damage included."""

import gc

import jax
import numpy as np
import object_store
import pytest
import tiny

from chain_jax import (
    checkpoint,
    config_rules,
    errors,
    factories,
    ownership,
    sharding,
    train_state,
)

_FOLDER = "gs://bucket/run"


def _initialiser():
  config = tiny.tiny_config()
  optimizer = factories.make_optimizer(config.optimizer, lambda step: 0.1)
  model = train_state.make_model(config.model)
  return factories.make_initialiser(config, model, optimizer)


def _save(steps):
  mesh = sharding.make_mesh(jax.devices()[:2])
  state = train_state.start(_initialiser(), 3, mesh)
  checkpoints = _open()
  for step in steps:
    place = sharding.replicated(mesh)
    state = state.replace(step=jax.device_put(np.int32(step), place))
    checkpoints.save(state, seconds=1.5)
  checkpoints.wait()
  checkpoints.close()
  return state


def _open(name="tiny"):
  owner = ownership.Owner(config={"name": name}, fingerprints=None)
  return checkpoint.Checkpoints(_FOLDER, keep=2, owner=owner)


def _restore(name="tiny"):
  mesh = sharding.make_mesh(jax.devices()[:4], model_parallel=2)
  checkpoints = _open(name)
  try:
    return checkpoints.restore(train_state.abstract_state(_initialiser(), mesh))
  finally:
    checkpoints.close()
    gc.collect()  # What orbax leaves of arrays that cannot be read.


def _steps(folder="run"):
  paths = object_store.Objects.store
  start = f"/bucket/{folder}/"
  found = {path.removeprefix(start).split("/")[0] for path in paths}
  return sorted(int(name) for name in found if name.isdigit())


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"  # Of damaged arrays.
)
def test_a_store_keeps_checkpoints_as_a_folder_does(monkeypatch, capsys):
  with object_store.serving(monkeypatch) as asked:
    objects = object_store.Objects.store
    state = _save([4, 8, 12])
    assert _steps() == [8, 12] and asked
    restored, seconds = _restore()
    jax.tree.map(
        lambda one, other: np.testing.assert_array_equal(
            one, other, strict=True
        ),
        jax.device_get(restored),
        jax.device_get(state),
    )
    assert seconds == 1.5

    with pytest.raises(errors.InputError, match="checkpoint 12 is of a run of"):
      _restore("other")

    # Without this last object a save is half-written.
    del objects["/bucket/run/12/commit_success.txt"]
    restored, _ = _restore()
    assert int(restored.step) == 8 and _steps() == [8]

    _save([12])
    for path, file in objects.items():
      if path.startswith("/bucket/run/12/state/") and "/d/" in path:
        file.truncate(10)
    restored, _ = _restore()
    assert int(restored.step) == 8 and _steps() == [8]
    assert _steps("run_damaged") == [12]
    assert "checkpoint 12 is damaged" in capsys.readouterr().out


def test_a_store_of_another_kind_is_refused():
  config = tiny.tiny_config(train__checkpoint_folder="ftp://host/run")
  with pytest.raises(errors.InputError, match="checkpoint_folder.*gs:// or s3"):
    config_rules.validate(config, num_devices=1)
