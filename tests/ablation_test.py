"""A table of variants: its numbers are those of its runs, and it resumes."""

import json
import pathlib
import re
import shutil
import statistics
import sys

import array_source
import numpy as np
import pytest

from chain_jax import errors, run, train_loop, workdir
from chain_jax.data import splits as splits_lib

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_CONFIG = """
import tiny

def get_config(preset="chain"):
  config = tiny.tiny_config(train__max_steps=2, model__depth=0)
  if preset == "chain_plus":
    config.loss.temperature = 0.3
  return config
"""
# The benchmarks are not installed.
sys.path.insert(0, str(_ROOT))
from benchmarks import ablation  # noqa: E402

_ROWS = ("chain", "contrast only")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Holds a config file, and the runs of two variants by two seeds."""
  folder = tmp_path_factory.mktemp("ablation")
  (folder / "small.py").write_text(_CONFIG, encoding="utf-8")
  _run(folder, "parts", *_ROWS, seeds=(0, 1))
  return folder


def _run(folder, table, *rows, seeds=(0,), split="queries", more=()):
  """Runs the command; returns its table."""
  output = folder / f"{table}_{split}.md"
  ablation.main(
      [f"--config={folder / 'small.py'}", f"--table={table}"]
      + ["--seeds", *map(str, seeds), "--bits", "16", f"--split={split}"]
      + [f"--workdir={folder / 'runs'}", f"--output={output}"]
      + ["--variants", *rows, *more]
  )
  return output.read_text(encoding="utf-8")


def _report(folder, row, seed, split="queries"):
  path = folder / "runs" / "tiny" / split / row.replace(" ", "_") / "16"
  return json.loads((path / str(seed) / "report.json").read_text())


def _row(table, name):
  """The cells of the first row of that name: of the scores."""
  (line,) = re.findall(rf"^\| {name} \| 16 \| (.*) \|$", table, re.M)[:1]
  return line.split(" | ")


@pytest.mark.parametrize("row", _ROWS)
def test_a_cell_is_the_mean_and_the_spread_of_its_runs(folder, row):
  table = (folder / "parts_queries.md").read_text(encoding="utf-8")
  reports = [_report(folder, row, seed) for seed in (0, 1)]
  assert reports[0]["results"] != reports[1]["results"]
  expected = []
  for k in ("5", "20", "100"):
    scores = [one["results"][0]["map_at_k"][k] for one in reports]
    mean, spread = statistics.fmean(scores), statistics.pstdev(scores)
    expected.append(f"{mean:.3f} ± {spread:.3f}".replace("0.", "."))
  assert _row(table, row) == expected


def test_the_difference_from_the_first_row_is_that_of_the_reports(folder):
  table = (folder / "parts_queries.md").read_text(encoding="utf-8")
  of_row = {
      row: statistics.fmean(
          _report(folder, row, seed)["results"][0]["map_at_k"]["20"]
          for seed in (0, 1)
      )
      for row in _ROWS
  }
  (line,) = re.findall(r"^\| contrast only \| 16 \| ([+-]\S+) \|", table, re.M)
  # Three decimals are printed.
  assert float(line) == pytest.approx(
      of_row["contrast only"] - of_row["chain"], abs=6e-4
  )


def test_the_same_command_trains_nothing_anew(folder, monkeypatch):
  before = (folder / "parts_queries.md").read_text(encoding="utf-8")
  monkeypatch.setattr(train_loop, "train", None)
  after = _run(folder, "parts", *_ROWS, seeds=(0, 1))
  # All but the machine's load.
  assert after.partition("machine")[0] == before.partition("machine")[0]


def test_a_finished_run_keeps_its_codes_and_not_its_checkpoints(folder):
  path = folder / "runs" / "tiny" / "queries" / "chain" / "16" / "0"
  assert (path / "codes" / "query" / "codes.npy").exists()
  assert not (path / "checkpoints").exists()


def test_a_folder_of_another_config_is_refused(folder):
  with pytest.raises(errors.InputError, match=r"differ: loss\.temperature\."):
    _run(folder, "parts", "chain", more=["--config.loss.temperature=0.4"])


def test_a_baseline_scores_as_it_does_beside_an_ordinary_run(folder, tmp_path):
  _run(folder, "results", "itq", "lsh", seeds=(3,))
  trained = folder / "runs" / "tiny" / "queries" / "chain" / "16" / "0"
  shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
  config = workdir.read_config(str(tmp_path))
  config.evaluation.baseline_videos = 1000
  config.evaluation.baseline_seed = 3
  run.run(config, path=str(tmp_path), mode="evaluate")
  report = json.loads((tmp_path / "report.json").read_text())
  for expected in report["results"][1:]:
    (found,) = _report(folder, expected["method"], 3)["results"]
    assert found == expected


class _Unreadable(array_source.ArraySource):
  """Videos that nobody may look into: no score can be made of them."""

  def read_frames(self, video):
    raise AssertionError("a test video was read")


def test_a_table_of_validation_videos_never_touches_the_queries(
    folder, monkeypatch
):
  make = splits_lib._synthetic
  tests = _Unreadable([np.zeros((8, 24), np.float32)] * 5)
  monkeypatch.setattr(
      splits_lib, "_synthetic", lambda config: (make(config)[0], tests, tests)
  )
  rows = ("chain_plus", "itq")
  table = _run(folder, "results", *rows, split="validation")
  assert "12 videos held out of train" in table and "in 36," in table
  for row in rows:
    report = _report(folder, row, 0, "validation")
    # A quarter of 48 videos, in the rest.
    assert (report["num_queries"], report["num_gallery"]) == (12, 36)
  # What training itself says of the same videos.
  path = folder / "runs" / "tiny" / "validation" / "chain_plus" / "16" / "0"
  lines = (path / "metrics.jsonl").read_text().splitlines()
  (said,) = [
      json.loads(line)["validation_map_at_20"]
      for line in lines
      if "validation_map_at_20" in line
  ]
  report = _report(folder, "chain_plus", 0, "validation")
  np.testing.assert_allclose(
      report["results"][0]["map_at_k"]["20"], said, rtol=1e-12, strict=True
  )


def test_a_run_that_fails_is_listed_and_the_others_are_kept(
    folder, monkeypatch
):
  ordinary = run.run

  def run_or_fail(config, **settings):
    if config.loss.scene_change == 0 and config.loss.frame_order == 0:
      raise errors.RunError("the loss is not finite")
    ordinary(config, **settings)

  monkeypatch.setattr(run, "run", run_or_fail)
  with pytest.raises(errors.RunError, match="1 of 2 runs failed"):
    _run(folder, "parts", *_ROWS, more=[f"--output={folder / 'failed.md'}"])
  table = (folder / "failed.md").read_text(encoding="utf-8")
  assert _row(table, "contrast only") == ["failed"] * 3
  assert "- contrast only, 16 bits, seed 0: the loss is not finite" in table
  (score,) = _report(folder, "chain", 0)["results"]
  assert _row(table, "chain")[0] == f"{score['map_at_k']['5']:.3f}"[1:]
