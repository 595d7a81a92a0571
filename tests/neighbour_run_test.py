"""Runs that know of neighbours: their table, their batches, their loss."""

import io
import json

import jax
import numpy as np
import pytest
import tiny

from chain_jax import config as config_lib
from chain_jax import (
    config_rules,
    errors,
    neighbour_table,
    presets,
    run,
    sharding,
    train_loop,
)
from chain_jax.data import sources, training_plan
from chain_jax.data import splits as splits_lib
from chain_jax.workdir import Workdir


def _config(**changes):
  return tiny.tiny_config(
      **{"neighbours__num_neighbours": 5, "evaluation__baseline_videos": 0}
      | changes
  )


def _rows(path):
  lines = (path / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  path = tmp_path_factory.mktemp("finished")
  run.run(_config(), path=str(path), mode="train")
  return path


def test_the_table_is_kept_and_read_again(finished, tmp_path, capsys):
  with np.load(finished / "neighbours.npz") as table:
    assert table["videos"].shape == table["overlaps"].shape == (48, 10)
  (tmp_path / "run").mkdir()
  stopped = _config(train__max_steps=5)
  run.run(stopped, path=str(tmp_path / "short"), mode="train")
  (tmp_path / "short/neighbours.npz").rename(tmp_path / "run/neighbours.npz")
  capsys.readouterr()
  run.run(_config(), path=str(tmp_path / "run"), mode="train")
  assert "nearest of 48 videos" not in capsys.readouterr().out
  for row, other in zip(_rows(finished), _rows(tmp_path / "run"), strict=True):
    assert row["total"] == other["total"]


def _cut(table):
  return table[: len(table) // 2]


def _changed(**changes):
  """Damages arrays of a table as they lie in a file."""

  def damage(content):
    with np.load(io.BytesIO(content)) as table:
      arrays = dict(table)
    file = io.BytesIO()
    np.savez(
        file, **{n: changes.get(n, lambda a: a)(a) for n, a in arrays.items()}
    )
    return file.getvalue()

  return damage


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        lambda table: b"",
        _changed(videos=lambda a: a[:0], overlaps=lambda a: a[:0]),
        _changed(videos=lambda a: a + 48),
        _changed(videos=lambda a: a - 48),
        _changed(videos=lambda a: a.astype(np.float64)),
        _changed(overlaps=lambda a: a + np.float32(np.nan)),
        _changed(overlaps=lambda a: a * np.float32(-1)),
        _changed(videos=lambda a: a[:, :3], overlaps=lambda a: a[:, :3]),
        _changed(made_of=lambda a: np.array("others")),
    ],
)
def test_a_table_that_is_damaged_is_made_again(
    finished, tmp_path, damage, capsys
):
  config = _config()
  splits = splits_lib.make_splits(config.data, seed=0)
  plan = train_loop.make_plan(config, splits)
  path = tmp_path / "neighbours.npz"
  path.write_bytes(damage((finished / "neighbours.npz").read_bytes()))
  batches = neighbour_table.with_neighbours(
      config, Workdir(str(tmp_path)), splits.train, plan.batches
  )
  said = capsys.readouterr().out
  assert "neighbours.npz: must be the table" in said
  assert "nearest of 48 videos" in said
  with np.load(finished / "neighbours.npz") as expected, np.load(path) as made:
    for name in ("videos", "overlaps"):
      np.testing.assert_array_equal(made[name], expected[name], strict=True)
  assert len(batches.videos(0)) == 16


def test_a_table_of_other_videos_or_settings_is_made_again(
    finished, tmp_path, capsys
):
  for config in (
      _config(data__synthetic__seed=1),
      _config(neighbours__pooling="variance"),
  ):
    (tmp_path / "neighbours.npz").write_bytes(
        (finished / "neighbours.npz").read_bytes()
    )
    splits = splits_lib.make_splits(config.data, seed=0)
    neighbour_table.with_neighbours(
        config,
        Workdir(str(tmp_path)),
        splits.train,
        train_loop.make_plan(config, splits).batches,
    )
    assert "it is of other videos or settings" in capsys.readouterr().out


def test_neighbours_change_the_contrastive_loss_alone(finished, tmp_path):
  run.run(
      _config(neighbours__weight=0.0), path=str(tmp_path / "run"), mode="train"
  )
  first, plain = _rows(finished)[0], _rows(tmp_path / "run")[0]
  assert first["batch_checksums"] == plain["batch_checksums"]
  assert first["contrastive"] != plain["contrastive"]
  for term in ("frame_order", "scene_change", "decorrelation"):
    assert first[term] == plain[term]


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("num_devices", [1, 4])
def test_batches_know_their_neighbours_on_any_devices(
    num_devices, on_device, tmp_path
):
  config = _config(neighbours__batch_share=0.5, data__cache_on_device=on_device)
  splits = splits_lib.make_splits(config.data, seed=0)
  plan = train_loop.make_plan(config, splits)
  assert plan.num_steps == 4 * (48 // 8)
  workdir = Workdir(str(tmp_path))
  batches = neighbour_table.with_neighbours(
      config, workdir, splits.train, plan.batches
  )
  mesh = sharding.make_mesh(jax.devices()[:num_devices])
  made = train_loop._make_batches(
      config, splits, plan._replace(batches=batches), 3, mesh
  )
  with made as iterator:
    batch = next(iterator)
  np.testing.assert_array_equal(batch.videos, batches.videos(3))
  expected = batches.neighbours(3)
  np.testing.assert_array_equal(batch.neighbours.rows, expected.rows)
  np.testing.assert_array_equal(batch.neighbours.weights, expected.weights)
  # Half of the batch was drawn as neighbours of the other.
  assert np.mean(np.any(expected.weights > 0, axis=1)) > 0.8


@pytest.mark.parametrize("pooling", ["mean", "variance"])
def test_neighbours_are_those_of_the_pooling_asked_for(pooling, tmp_path):
  """Four videos: two look alike, two others move alike."""
  moves = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]], np.float32)
  looks = np.array([[0, 0, 9], [0, 0, 9], [0, 9, 0], [0, 9, 0]], np.float32)
  time = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
  videos = sources.FramesSource(list(looks[:, None] + time * moves[:, None]))
  config = _config(
      neighbours__num_neighbours=1,
      neighbours__pooling=pooling,
      train__batch_size=4,
  )
  plan = neighbour_table.with_neighbours(
      config,
      Workdir(str(tmp_path)),
      videos,
      training_plan.TrainingPlan(4, batch_size=4, seed=0),
  )
  found = plan.neighbours(0)
  batch = plan.videos(0)
  nearest = {
      int(video): int(batch[rows[np.argmax(weights)]])
      for video, rows, weights in zip(batch, *found, strict=True)
  }
  by_looks, by_moves = {0: 1, 1: 0, 2: 3, 3: 2}, {0: 2, 2: 0, 1: 3, 3: 1}
  assert nearest == {"mean": by_looks, "variance": by_moves}[pooling]


def test_stills_have_no_variance_to_be_compared_by(tmp_path):
  stills = sources.FramesSource([np.ones((3, 2), np.float32)] * 8)
  with pytest.raises(errors.InputError, match="pooling` must be mean.* 8 "):
    neighbour_table.with_neighbours(
        _config(neighbours__pooling="variance"),
        Workdir(str(tmp_path)),
        stills,
        training_plan.TrainingPlan(8, batch_size=4, seed=0),
    )


def test_more_neighbours_than_videos_end_the_run_in_a_line(tmp_path):
  config = _config(neighbours__num_neighbours=48)
  with pytest.raises(errors.InputError, match="num_neighbours.*48 train"):
    run.run(config, path=str(tmp_path / "run"), mode="train")


@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_preset_is_a_valid_config_that_trains(name, tmp_path):
  config = tiny.tiny_config(evaluation__baseline_videos=0, train__max_steps=2)
  presets.apply(config, name)
  for field in ("num_neighbours", "num_components", "num_directions"):
    few = min(5, getattr(config.neighbours, field))
    setattr(config.neighbours, field, few)
  config_rules.validate(config, num_devices=1)
  run.run(config, path=str(tmp_path / "run"), mode="train")
  assert np.isfinite(_rows(tmp_path / "run")[-1]["total"])


def test_the_paper_has_neither_neighbours_nor_hidden_frames():
  config = config_lib.ExperimentConfig()
  presets.apply(config, "chain")
  assert config.neighbours == config_lib.NeighbourConfig()
  assert config.loss.reconstruction == config.augment.mask_fraction == 0


def test_an_unknown_preset_is_refused_with_the_known_ones():
  with pytest.raises(errors.InputError, match="chain_plus, conmh, got 'best'"):
    presets.apply(config_lib.ExperimentConfig(), "best")
