"""Runs on prepared datasets: YouTube-8M, features, and folders of videos."""

import pathlib

import numpy as np
import pytest
import tiny

from chain_jax import codes as codes_lib
from chain_jax import config as config_lib
from chain_jax import errors, main_flags, prepare, run
from chain_jax import report as report_lib
from chain_jax.data import splits as splits_lib
from chain_jax.preparation import demo

_CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs"


def _small(config):
  """Shrinks a config's model and schedule to seconds."""
  shape = tiny.tiny_config()
  config.model.num_bits = shape.model.num_bits
  config.model.width, config.model.num_heads = 16, 2
  config.model.mlp_dim, config.model.depth = 16, 1
  config.data.num_frames = 6
  config.train.batch_size, config.train.max_steps = 8, 3
  config.evaluation.batch_size = 16
  return config


def _yt8m(root, monkeypatch, **changes):
  monkeypatch.setattr(demo, "_DEMO_VIDEOS", 12)
  config = _small(main_flags.load_config(str(_CONFIGS / "yt8m.py"), "tiny"))
  config.data.root = str(root / "videos")
  config.data.prepared.segments_root = str(root / "segments")
  config.data.prepared.demo_shards = 4
  for name, value in changes.items():
    setattr(config.data.prepared, name, value)
  return config


def test_the_tiny_config_makes_shards_trains_and_scores_segments(
    tmp_path, monkeypatch, capsys
):
  config = _yt8m(tmp_path, monkeypatch)
  run.run(config, path=str(tmp_path / "run"), mode="train")
  report = report_lib.read_report(tmp_path / "run" / "report.json")
  methods = [row["method"] for row in report["results"]]
  assert "chain" in methods and "lsh" in methods
  segments = report["segments"]
  assert [row["method"] for row in segments["results"]] == methods
  printed = capsys.readouterr().out
  counts = f"{segments['num_queries']} in {segments['num_gallery']}"
  assert f"of segments, {counts}:" in printed
  splits = splits_lib.make_splits(config.data, seed=0)
  opened = splits_lib.open_segments(config.data)
  for name, source in (
      ("query", splits.query),
      ("gallery", splits.gallery),
      ("segment_query", opened.query),
      ("segment_gallery", opened.gallery),
  ):
    code_set = codes_lib.read_code_directory(tmp_path / "run" / "codes" / name)
    assert code_set.ids.tolist() == source.ids.tolist()
  assert segments["num_queries"] == len(opened.query)
  assert len(splits.query) + len(splits.gallery) == 24
  assert set(opened.gallery.num_frames) == {5}
  # Each segment is of a video that is itself in the dataset.
  whole = set(splits.query.ids) | set(splits.gallery.ids)
  assert {one.split(":")[0] for one in opened.gallery.ids} <= whole


def test_a_demonstration_is_made_once(tmp_path, monkeypatch, capsys):
  config = _yt8m(tmp_path, monkeypatch, segments_root="")
  demo.make_missing(config.data)
  assert "making synthetic" in capsys.readouterr().out
  demo.make_missing(config.data)
  assert not capsys.readouterr().out
  (tmp_path / "videos_shards" / "train0001.tfrecord").unlink()
  config.data.prepared.segments_root = str(tmp_path / "segments")
  demo.make_missing(config.data)
  assert "making synthetic" in capsys.readouterr().out
  assert len(list((tmp_path / "videos_shards").iterdir())) == 4


def test_without_the_data_one_line_says_how_to_get_it(tmp_path):
  config = main_flags.load_config(str(_CONFIGS / "yt8m.py"))
  config.data.root = str(tmp_path / "nothing")
  with pytest.raises(errors.InputError) as raised:
    run.run(config, path=str(tmp_path / "run"), mode="train")
  line = str(raised.value)
  for words in (
      str(tmp_path / "nothing"),
      "curl data.yt8m.org/download.py",
      "python -m chain_jax.prepare youtube8m",
      "--config=configs/yt8m.py:tiny",
  ):
    assert words in line
  assert "\n" not in line and not (tmp_path / "run").exists()


def test_an_unknown_size_is_named():
  with pytest.raises(ValueError, match="yt8m.py:tiny, got 'huge'"):
    main_flags.load_config(str(_CONFIGS / "yt8m.py"), "huge")


def _prepared_features(folder, **arrays):
  rng = np.random.default_rng(0)
  features = rng.random((24, 8, 12)).astype(np.float16)
  np.savez(folder / "set.npz", feats=features, **arrays)
  arguments = [
      "features",
      f"--input={folder}/set.npz",
      f"--output={folder}/prepared",
      "--query_share=0.2",
      "--validation_share=0.2",
      "--num_workers=0",
  ]
  assert prepare.main(arguments) == 0
  config = _small(config_lib.ExperimentConfig(name="mine"))
  config.data.dataset, config.data.root = "prepared", str(folder / "prepared")
  config.data.feature_dim = 12
  config.data.prepared.gallery_split = "train"
  return config


def test_without_labels_codes_are_exported_and_nothing_is_scored(
    tmp_path, capsys
):
  config = _prepared_features(tmp_path)
  run.run(config, path=str(tmp_path / "run"), mode="train")
  assert "nothing is scored: query or gallery have no labels" in (
      capsys.readouterr().out
  )
  gallery = codes_lib.read_code_directory(tmp_path / "run/codes/gallery")
  train = splits_lib.make_splits(config.data, seed=0).train
  assert gallery.ids.tolist() == train.ids.tolist() and gallery.labels is None
  run.run(config, path=str(tmp_path / "run"), mode="train")
  assert "this run is finished" in capsys.readouterr().out


def test_splits_do_what_the_config_says(tmp_path):
  config = _prepared_features(tmp_path, labels=np.arange(24) % 3).data
  config.prepared.validation_split = "validation"
  splits = splits_lib.make_splits(config, seed=0)
  assert splits.gallery is splits.train
  assert splits.validation[0] is splits.validation[1]
  ids = [set(s.ids) for s in (splits.train, splits.query, splits.validation[0])]
  assert sum(map(len, ids)) == len(set.union(*ids)) == 24
  config.cache_in_memory = True
  cached = splits_lib.make_splits(config, seed=0)
  for video in range(len(cached.train)):
    np.testing.assert_array_equal(
        cached.train.read_frames(video),
        splits.train.read_frames(video),
        strict=True,
    )
  assert splits_lib.fingerprints(cached) == splits_lib.fingerprints(splits)


def test_fingerprints_tell_other_frames_of_the_same_videos(tmp_path):
  config = _prepared_features(tmp_path).data
  splits = splits_lib.make_splits(config, seed=0)
  before = splits_lib.fingerprints(splits)
  read = splits.train.read_frames
  splits.train.read_frames = lambda video: read(video) * np.float16(2)
  after = splits_lib.fingerprints(splits)
  assert before["train"] != after["train"]
  assert before["query"] == after["query"]


def test_a_validation_split_is_scored_while_training(tmp_path, capsys):
  config = _prepared_features(tmp_path, labels=np.arange(24) % 3)
  config.data.prepared.validation_split = "validation"
  config.train.validate_every_steps = 2
  run.run(config, path=str(tmp_path / "run"), mode="train")
  assert "validation_map_at_5" in capsys.readouterr().out


def test_baselines_learn_from_a_sample_or_not_at_all(tmp_path):
  config = _prepared_features(tmp_path, labels=np.arange(24) % 3)
  config.evaluation.baseline_videos = 0
  run.run(config, path=str(tmp_path / "run"), mode="train")
  report = report_lib.read_report(tmp_path / "run" / "report.json")
  assert [row["method"] for row in report["results"]] == ["chain"]


def test_a_width_that_is_not_the_datasets_is_named(tmp_path):
  config = _prepared_features(tmp_path)
  config.data.feature_dim = 13
  with pytest.raises(errors.InputError, match="set `data.feature_dim` to 12"):
    splits_lib.make_splits(config.data, seed=0)


def test_a_missing_split_is_named(tmp_path):
  config = _prepared_features(tmp_path)
  config.data.prepared.gallery_split = "gallery"
  with pytest.raises(errors.InputError, match="must have a split 'gallery'"):
    splits_lib.make_splits(config.data, seed=0)


def test_no_demonstration_is_made_for_other_data(tmp_path):
  config = config_lib.DataConfig(dataset="ucf101", root=str(tmp_path / "ucf"))
  config.prepared.demo_shards = 4
  demo.make_missing(config)
  assert not list(tmp_path.iterdir())
