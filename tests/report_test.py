import json
import os

import pytest

from chain_jax import errors
from chain_jax import report as report_lib
from chain_jax.errors import InputError


def _result(method, value, **fields):
  scores = {k: value for k in ("5", "10", "20", "40", "60", "80", "100")}
  names = ("map_at_k", "map_at_k_best_ties", "map_at_k_worst_ties")
  return (
      {"method": method, "num_bits": 64} | dict.fromkeys(names, scores) | fields
  )


def _report(*results, **fields):
  return report_lib.make_report(
      config_name="ucf101",
      step=7,
      seed=0,
      git_commit=None,
      num_queries=372,
      num_gallery=969,
      self_match="removed",
      results=list(results),
      seconds={"evaluate": 0.5},
      **fields,
  )


def test_report_has_the_promised_keys():
  report = _report(_result("chain", 0.5))
  assert list(report) == [
      "format_version",
      "config",
      "step",
      "seed",
      "git_commit",
      "num_queries",
      "num_gallery",
      "self_match",
      "results",
      "seconds",
      "num_steps",
      "evaluation",
      "left_out",
      "segments",
  ]


def test_report_comes_back_as_written(tmp_path):
  report = _report(_result("chain", 0.1 + 0.2))
  report_lib.write_report(tmp_path / "report.json", report)
  assert report_lib.read_report(tmp_path / "report.json") == report
  assert os.listdir(tmp_path) == ["report.json"]


def test_failed_write_keeps_the_old_report(tmp_path, monkeypatch):
  path = tmp_path / "report.json"
  report_lib.write_report(path, _report(_result("chain", 0.5)))

  def full_disk(_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "fsync", full_disk)
  with pytest.raises(errors.RunError, match="report.json: could not.*No space"):
    report_lib.write_report(path, _report(_result("chain", 0.9)))
  kept = report_lib.read_report(path)["results"][0]["map_at_k"]["5"]
  assert kept == 0.5
  assert os.listdir(tmp_path) == ["report.json"]


def test_nan_is_never_written(tmp_path):
  with pytest.raises(ValueError, match="JSON"):
    report_lib.write_report(
        tmp_path / "report.json", _report(_result("chain", float("nan")))
    )
  assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be a report.json"),
        ("[]", "must be a report.json"),
        ("{}", "`format_version` must be 1, got None"),
        (json.dumps({"format_version": 2}), "must be 1, got 2"),
        (json.dumps({"format_version": 1}), "a report needs `config`"),
    ],
)
def test_something_else_is_no_report(tmp_path, text, message):
  (tmp_path / "report.json").write_text(text)
  with pytest.raises(InputError, match=message):
    report_lib.read_report(tmp_path / "report.json")


def test_missing_report_is_named(tmp_path):
  with pytest.raises(InputError, match="absent.json: must be a report"):
    report_lib.read_report(tmp_path / "absent.json")


def test_table_has_a_row_a_method_and_says_its_rules():
  table = report_lib.format_table(
      _report(_result("chain", 0.5), _result("itq", 0.25))
  )
  lines = [line.split() for line in table.splitlines()]
  columns = [f"mAP@{k}" for k in (5, 20, 40, 60, 80, 100)]
  assert lines[0] == ["method", "bits", *columns]
  assert lines[1] == ["chain", "64", *["0.5000"] * 6]
  assert lines[2] == ["itq", "64", *["0.2500"] * 6]
  assert "divided by K" in table and "Ties rank by gallery position" in table
  assert "372 queries, 969 in gallery, self-matches removed" in table
  assert ["best", "ties", "64", *["0.5000"] * 6] in lines
  assert ["worst", "ties", "64", *["0.2500"] * 6] in lines


def test_table_shows_both_self_match_choices_and_warnings():
  scores = {k: 0.75 for k in ("5", "20", "40", "60", "80", "100")}
  result = _result(
      "chain",
      0.5,
      map_at_k_self_match_kept=scores,
      code_health={"warnings": ["3 bits never change."]},
  )
  table = report_lib.format_table(_report(result))
  lines = [line.split() for line in table.splitlines()]
  assert ["self", "kept", "64", *["0.7500"] * 6] in lines
  assert "warning: 3 bits never change." in table


def test_table_says_why_a_method_is_left_out():
  table = report_lib.format_table(
      _report(_result("chain", 0.5), left_out={"itq": "too many bits."})
  )
  assert "itq is left out: too many bits." in table.splitlines()


def test_table_leaves_out_a_k_that_was_not_scored():
  result = _result("chain", 0.5)
  for key in ("map_at_k", "map_at_k_best_ties", "map_at_k_worst_ties"):
    result[key] = {"5": 0.5}
  header = report_lib.format_table(_report(result)).splitlines()[0]
  assert header.split() == ["method", "bits", "mAP@5"]


def _without(report, *path):
  *inside, last = path
  part = report
  for key in inside:
    part = part[key]
  del part[last]
  return report


@pytest.mark.parametrize(
    "spoil",
    [
        lambda report: _without(report, "results", 0, "map_at_k"),
        lambda report: _without(report, "results", 0, "num_bits"),
        lambda report: _without(report, "step"),
        lambda report: _without(report, "seconds"),
        lambda report: report | {"results": 3},
        lambda report: report | {"results": [[]]},
        lambda report: report | {"seconds": 3},
        lambda report: report | {"segments": {"results": []}},
    ],
)
def test_a_report_that_lacks_what_it_shows_is_none(tmp_path, spoil):
  report = json.loads(json.dumps(_report(_result("chain", 0.5))))
  (tmp_path / "report.json").write_text(json.dumps(spoil(report)))
  with pytest.raises(InputError, match="report.json: .* report"):
    report_lib.read_report(tmp_path / "report.json")


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"[" * 10**5, b'{"format_version": ' + b"1" * 5000]
)
def test_bytes_of_any_kind_are_no_report(tmp_path, content):
  (tmp_path / "report.json").write_bytes(content)
  with pytest.raises(InputError, match="must be a report.json"):
    report_lib.read_report(tmp_path / "report.json")
