import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import reference_retrieval

from chain_jax import codes, evaluate
from chain_jax import report as report_lib
from chain_jax.labels import Labels

_ROOT = pathlib.Path(evaluate.__file__).parent.parent


def _write(path, *, draw, num_videos, num_bytes=2, num_classes=3, **manifest):
  rng = np.random.default_rng(draw)
  classes = rng.integers(0, 3, num_videos)
  packed = rng.integers(0, 4, (num_videos, num_bytes), dtype=np.uint8)
  ids = [f"{path.name} {i}" for i in range(num_videos)]
  codes.write_code_directory(
      path,
      packed=packed,
      ids=np.array(ids),
      labels=Labels.from_classes(classes, num_classes=num_classes),
      manifest=manifest,
  )
  labels = [{int(label)} for label in classes]
  return {"packed": packed, "ids": ids, "labels": labels}


@pytest.fixture
def plain(tmp_path):
  run = {"config": {"name": "ucf101"}, "step": 7, "seed": 3, "method": "chain"}
  return {
      "query": _write(tmp_path / "query", draw=0, num_videos=6, **run),
      "gallery": _write(tmp_path / "gallery", draw=1, num_videos=30, **run),
  }


def _flags(tmp_path):
  return [f"--query={tmp_path}/query", f"--gallery={tmp_path}/gallery"]


def _run(*arguments):
  return subprocess.run(
      [sys.executable, *arguments], cwd=_ROOT, capture_output=True, text=True
  )


def test_command_agrees_with_the_loops(tmp_path, plain, capsys):
  output = tmp_path / "report.json"
  assert evaluate.main([*_flags(tmp_path), f"--output={output}"]) == 0
  report = report_lib.read_report(output)
  expected = reference_retrieval.evaluate(
      plain["query"],
      plain["gallery"],
      self_match="removed",
      top_ks=(5, 20, 100),
  )
  (result,) = report["results"]
  for name in ("map_at_k", "map_at_k_best_ties", "map_at_k_worst_ties"):
    for k, value in expected[name].items():
      # float64 sums of 100 terms; an item out of place moves it by 1e-3.
      assert result[name][k] == pytest.approx(value, abs=1e-9)
  assert f"{expected['map_at_k']['20']:.4f}" in capsys.readouterr().out


def test_report_carries_what_the_manifest_knows(tmp_path, plain, capsys):
  del plain
  output = tmp_path / "report.json"
  evaluate.main([*_flags(tmp_path), f"--output={output}", "--self_match=kept"])
  report = json.loads(output.read_text())
  assert report["format_version"] == 1
  assert (report["config"], report["step"], report["seed"]) == ("ucf101", 7, 3)
  assert (report["num_queries"], report["num_gallery"]) == (6, 30)
  assert report["self_match"] == "kept"
  assert report["results"][0]["method"] == "chain"
  assert report["results"][0]["num_bits"] == 16
  assert "evaluate" in report["seconds"]
  assert capsys.readouterr().err == ""


def test_codes_of_unknown_method_are_called_codes(tmp_path, capsys):
  _write(tmp_path / "query", draw=0, num_videos=3)
  _write(tmp_path / "gallery", draw=1, num_videos=3)
  assert evaluate.main(_flags(tmp_path)) == 0
  assert capsys.readouterr().out.splitlines()[1].startswith("codes ")


def test_codes_of_two_runs_are_warned_of(tmp_path, capsys):
  _write(tmp_path / "query", draw=0, num_videos=3, step=100)
  _write(tmp_path / "gallery", draw=1, num_videos=3, step=200)
  assert evaluate.main(_flags(tmp_path)) == 0
  assert "warning: query and gallery differ in step" in capsys.readouterr().err


def test_command_imports_no_jax_flax_scipy_or_faiss(tmp_path, plain):
  del plain
  program = (
      "import sys; from chain_jax import evaluate;"
      f"evaluate.main({_flags(tmp_path)!r});"
      "print({'jax', 'flax', 'scipy', 'faiss'} & set(sys.modules))"
  )
  done = _run("-c", program)
  assert done.stdout.splitlines()[-1] == "set()", done.stderr


def test_module_runs_and_its_help_shows_an_example(tmp_path):
  done = _run("-m", "chain_jax.evaluate", "--help")
  assert done.returncode == 0
  assert "example:\n  python -m chain_jax.evaluate --query=" in done.stdout
  done = _run("-m", "chain_jax.evaluate", *_flags(tmp_path))
  assert done.returncode == 2
  assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "required: --query, --gallery; see python -m chain_jax.evaluate"),
        (["--self_match=no"], "invalid choice: 'no'"),
        (["--output=/nowhere/report.json"], "make /nowhere first"),
        (["--output=."], "must be a file"),
    ],
)
def test_bad_usage_ends_in_one_line_and_code_2(
    tmp_path, plain, flags, message, capsys
):
  del plain
  given = [*_flags(tmp_path), *flags] if flags else []
  assert evaluate.main(given) == 2
  error = capsys.readouterr().err
  assert error.startswith("error: ") and error.count("\n") == 1
  assert message in error


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"num_bytes": 1}, "`num_bits` must be the same"),
        ({"num_classes": 9}, "`num_classes` must be the same"),
    ],
)
def test_sets_that_differ_end_in_one_line_and_code_2(
    tmp_path, query, message, capsys
):
  _write(tmp_path / "query", draw=0, num_videos=3, **query)
  _write(tmp_path / "gallery", draw=1, num_videos=3)
  assert evaluate.main(_flags(tmp_path)) == 2
  error = capsys.readouterr().err
  assert message in error and error.count("\n") == 1
