"""A whole run, from config to report, on made-up and on the field's files."""

import json
import os
import shutil

import h5py
import numpy as np
import pytest
import scipy.io
import tiny

from chain_jax import checkpoint, errors, evaluate, run, search
from chain_jax import codes as codes_lib
from chain_jax import report as report_lib


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  path = tmp_path_factory.mktemp("finished")
  run.run(tiny.tiny_config(), path=str(path), mode="train")
  return path


def _codes(path, split="query"):
  return codes_lib.read_code_directory(path / "codes" / split)


def test_a_workdir_holds_what_is_promised(finished):
  promised = ["config.json", "checkpoints", "metrics.jsonl", "tensorboard"]
  for name in [*promised, "codes/query", "codes/gallery", "report.json"]:
    assert (finished / name).exists()
  rows = [
      json.loads(line)
      for line in (finished / "metrics.jsonl").read_text().splitlines()
  ]
  assert [row["step"] for row in rows] == list(range(1, 13))
  terms = {"contrastive", "frame_order", "scene_change", "quantisation"}
  assert terms | {"bit_balance", "decorrelation", "total"} <= rows[0].keys()


def test_the_report_has_the_model_beside_both_baselines(finished):
  report = report_lib.read_report(finished / "report.json")
  assert [row["method"] for row in report["results"]] == ["chain", "itq", "lsh"]
  assert report["step"] == 12 and report["num_queries"] == 12
  assert report["num_gallery"] == 30 and report["self_match"] == "removed"
  assert report["seconds"].keys() == {"train", "export", "evaluate"}
  assert report["num_steps"] == 12 and not report["left_out"]
  for row in report["results"]:
    assert list(row["map_at_k"]) == ["5", "10", "20", "40", "60", "80", "100"]
    for name in ("standard", "best_ties", "worst_ties"):
      assert row[f"map_at_k_{name}"].keys() == row["map_at_k"].keys()
    assert {"precision_at_k", "code_health"} <= row.keys()


def test_a_finished_run_says_so_and_changes_nothing(finished, capsys):
  before = (finished / "report.json").stat().st_mtime_ns
  run.run(tiny.tiny_config(), path=str(finished), mode="train")
  said = capsys.readouterr().out
  assert "this run is finished" in said and "mAP@20" in said
  assert (finished / "report.json").stat().st_mtime_ns == before


def test_export_and_evaluate_alone_repeat_the_run(finished, capsys):
  codes, report = _codes(finished).packed, finished / "report.json"
  expected = report_lib.read_report(report)["results"]
  seconds = report_lib.read_report(report)["seconds"]
  run.run(tiny.tiny_config(), path=str(finished), mode="export")
  np.testing.assert_array_equal(_codes(finished).packed, codes, strict=True)
  run.run(tiny.tiny_config(), path=str(finished), mode="evaluate")
  again = report_lib.read_report(report)
  assert again["results"] == expected
  for phase in ("train", "export"):
    assert again["seconds"][phase] == seconds[phase]


def test_a_finished_run_is_scored_anew_when_asked_otherwise(tmp_path, capsys):
  run.run(
      tiny.tiny_config(train__max_steps=1), path=str(tmp_path), mode="train"
  )
  changed = tiny.tiny_config(train__max_steps=1, evaluation__self_match="kept")
  run.run(changed, path=str(tmp_path), mode="train")
  report = report_lib.read_report(tmp_path / "report.json")
  assert report["self_match"] == "kept"
  assert "self-matches kept" in capsys.readouterr().out


def test_an_evaluation_half_way_does_not_finish_a_run(tmp_path, monkeypatch):
  class Stop(Exception):
    pass

  save = checkpoint.Checkpoints.save

  def stop_after_save(self, state, **settings):
    save(self, state, **settings)
    self.wait()
    raise Stop

  monkeypatch.setattr(checkpoint.Checkpoints, "save", stop_after_save)
  with pytest.raises(Stop):
    run.run(tiny.tiny_config(), path=str(tmp_path), mode="train")
  monkeypatch.undo()
  for mode in ("export", "evaluate", "train"):
    run.run(tiny.tiny_config(), path=str(tmp_path), mode=mode)
    if mode == "evaluate":
      report = report_lib.read_report(tmp_path / "report.json")
      assert (report["step"], report["num_steps"]) == (4, 12)
  report = report_lib.read_report(tmp_path / "report.json")
  assert report["step"] == 12 and "train" in report["seconds"]


@pytest.mark.parametrize("content", ["{", "[]", '{"format_version": 1}'])
def test_a_report_that_cannot_be_read_is_made_again(
    finished, tmp_path, content, capsys
):
  folder = shutil.copytree(finished, tmp_path / "run")
  expected = report_lib.read_report(finished / "report.json")
  (folder / "report.json").write_text(content)
  run.run(tiny.tiny_config(), path=str(folder), mode="train")
  said = capsys.readouterr().out
  assert "report.json: " in said and "This run makes it again." in said
  report = report_lib.read_report(folder / "report.json")
  assert report["results"] == expected["results"]
  assert report["step"] == 12


def test_codes_that_cannot_be_read_are_exported_again(finished, tmp_path):
  folder = shutil.copytree(finished, tmp_path / "run")
  codes = folder / "codes" / "gallery" / "codes.npy"
  content = codes.read_bytes()
  codes.write_bytes(content[:-1])
  changed = tiny.tiny_config(evaluation__self_match="kept")
  run.run(changed, path=str(folder), mode="train")
  assert codes.read_bytes() == content
  report = report_lib.read_report(folder / "report.json")
  assert report["self_match"] == "kept"


def test_codes_of_no_step_are_not_scored(finished, tmp_path):
  folder = shutil.copytree(finished, tmp_path / "run")
  for split in ("query", "gallery"):
    manifest = folder / "codes" / split / "manifest.json"
    manifest.write_text(
        manifest.read_text().replace('"step": 12', '"stop": 12')
    )
  with pytest.raises(errors.InputError, match="query: must be codes of"):
    run.run(tiny.tiny_config(), path=str(folder), mode="evaluate")


def test_codes_of_two_steps_are_not_scored_together(finished, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(finished, folder)
  manifest = folder / "codes" / "gallery" / "manifest.json"
  manifest.write_text(manifest.read_text().replace('"step": 12', '"step": 8'))
  with pytest.raises(errors.InputError, match="gallery: must be codes of"):
    run.run(tiny.tiny_config(), path=str(folder), mode="evaluate")


def test_offline_evaluation_repeats_the_report(finished, tmp_path):
  output = tmp_path / "offline.json"
  code = evaluate.main(
      [
          f"--query={finished / 'codes/query'}",
          f"--gallery={finished / 'codes/gallery'}",
          f"--output={output}",
      ]
  )
  assert code == 0
  (offline,) = report_lib.read_report(output)["results"]
  online = report_lib.read_report(finished / "report.json")["results"][0]
  assert offline["map_at_k"] == online["map_at_k"]


def test_search_finds_a_video_at_distance_zero_of_itself(finished, tmp_path):
  output = tmp_path / "found.jsonl"
  folder = finished / "codes" / "gallery"
  code = search.main(
      [
          f"--query={folder}",
          f"--gallery={folder}",
          "--top_k=30",
          f"--output={output}",
      ]
  )
  assert code == 0 and len(output.read_text().splitlines()) == 30
  assert '"synthetic-gallery-000000"' in output.read_text().splitlines()[0]


def test_export_without_a_checkpoint_says_to_train_first(tmp_path):
  with pytest.raises(errors.InputError, match="run --mode=train first"):
    run.run(tiny.tiny_config(), path=str(tmp_path / "run"), mode="export")
  assert not (tmp_path / "run").exists()


def test_validation_scores_videos_held_out_of_train(tmp_path):
  config = tiny.tiny_config(
      data__validation_fraction=0.25,
      train__batch_size=8,
      evaluation__batch_size=8,
      train__num_epochs=1,
  )
  run.run(config, path=str(tmp_path), mode="train")
  rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
  # 36 of 48 videos are left to train on: 4 batches of 8.
  assert json.loads(rows[-1])["step"] == 4
  assert 0 <= json.loads(rows[-1])["validation_map_at_5"] <= 1


def test_more_bits_than_itq_can_give_leave_it_out_and_lose_nothing(
    tmp_path, capsys
):
  # Features are 24 wide, so that ITQ ends at 24 bits.
  config = tiny.tiny_config(model__num_bits=32, train__max_steps=1)
  run.run(config, path=str(tmp_path), mode="train")
  report = report_lib.read_report(tmp_path / "report.json")
  assert [row["method"] for row in report["results"]] == ["chain", "lsh"]
  assert "min(n - 1, dim) = 24" in report["left_out"]["itq"]
  assert "itq is left out: " in capsys.readouterr().out


def write_field_files(folder, prefix, splits):
  """Writes features and labels as the field lays them out."""
  rng = np.random.default_rng(0)
  for split, num_videos in splits.items():
    classes = np.arange(num_videos) % 3
    frames = (
        rng.random((num_videos, 8, 24), np.float32) + classes[:, None, None]
    )
    with h5py.File(folder / f"{prefix}_{split}_feats.h5", "w") as file:
      file["feats"] = frames.astype(np.float16)
    labels = np.eye(3, dtype=np.uint8)[classes]
    scipy.io.savemat(
        folder / f"{prefix}_{split}_labels.mat", {"labels": labels}
    )


@pytest.mark.parametrize(
    "dataset, prefix, num_gallery", [("ucf101", "ucf", 24), ("fcvid", "fcv", 9)]
)
def test_the_fields_files_run_end_to_end(
    tmp_path, dataset, prefix, num_gallery
):
  write_field_files(tmp_path, prefix, {"train": 24, "test": 9})
  config = tiny.tiny_config(
      data__dataset=dataset,
      data__root=str(tmp_path),
      data__cache_in_memory=True,
      train__max_steps=2,
  )
  run.run(config, path=str(tmp_path / "run"), mode="train")
  report = report_lib.read_report(tmp_path / "run" / "report.json")
  assert report["num_gallery"] == num_gallery and report["step"] == 2
  overlaps = dataset == "fcvid"
  for row in report["results"]:
    for name in ("removed", "kept"):
      assert (f"map_at_k_self_match_{name}" in row) == overlaps
  if overlaps:
    row = report["results"][0]
    # A query that finds itself first has at least 1 / 5 at K = 5 for free.
    assert row["map_at_k_self_match_kept"]["5"] >= 0.2
    assert row["map_at_k"] == row["map_at_k_self_match_removed"]
  assert os.path.isdir(tmp_path / "run" / "codes" / "gallery")
