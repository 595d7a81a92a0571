"""The report of an evaluation: `report.json`, and a table for the terminal.

`report.html` will be drawn from the same dict.
"""

import json
import os
import pathlib
from typing import Any

from chain_jax import errors, whole_files
from chain_jax.errors import InputError

FORMAT_VERSION = 1

_TABLE_KS = ("5", "20", "40", "60", "80", "100")
_FIELDS = (
    "config",
    "step",
    "num_queries",
    "num_gallery",
    "self_match",
    "results",
    "seconds",
)


def make_report(
    *,
    config_name: str | None,
    step: int | None,
    seed: int | None,
    git_commit: str | None,
    num_queries: int,
    num_gallery: int,
    self_match: str,
    results: list[dict[str, Any]],
    seconds: dict[str, float],
    num_steps: int | None = None,
    evaluation: dict[str, Any] | None = None,
    left_out: dict[str, str] | None = None,
    segments: dict[str, Any] | None = None,
) -> dict[str, Any]:
  """Puts a report together.

  Args:
    config_name: Such as "ucf101"; None when unknown, as for the next three.
    step: Of the checkpoint.
    seed: Of the run.
    git_commit: Of the code that made the codes.
    num_queries: Of every result.
    num_gallery: Of every result, before self-matches are removed.
    self_match: "removed" or "kept".
    results: One per method: `evaluate.evaluate_codes` and a "method" each.
    seconds: Wall time by phase: "train", "export", "evaluate".
    num_steps: Length of the run; more than `step` where it was not over.
    evaluation: Settings of the evaluation; None when unknown.
    left_out: Methods that could not be run, and why.
    segments: "num_queries", "num_gallery" and "results" of segments.

  Returns:
    JSON-ready; the format is a promise to users, keys are only ever added.
  """
  return {
      "format_version": FORMAT_VERSION,
      "config": config_name,
      "step": step,
      "seed": seed,
      "git_commit": git_commit,
      "num_queries": num_queries,
      "num_gallery": num_gallery,
      "self_match": self_match,
      "results": results,
      "seconds": seconds,
      "num_steps": num_steps,
      "evaluation": evaluation,
      "left_out": left_out or {},
      "segments": segments,
  }


def write_report(path: str | os.PathLike[str], report: dict[str, Any]) -> None:
  """Writes a report in one step: a reader finds the old one or the new one.

  Raises:
    RunError: If the disk is full or the folder cannot be written.
    ValueError: If a number is NaN or infinite, which JSON cannot hold.
  """
  # Through links: what is replaced is the file, never the link to it.
  path = pathlib.Path(path).resolve()
  text = json.dumps(report, indent=2, allow_nan=False) + "\n"
  with errors.writing(path), whole_files.written_whole(path) as partial:
    partial.write_text(text, encoding="utf-8")


def read_report(path: str | os.PathLike[str]) -> dict[str, Any]:
  """Reads a report.

  Raises:
    InputError: If it is missing, not JSON, not of this format, or lacks what
      its table shows.
  """
  path = pathlib.Path(path)
  words = {"must_be": "a report.json", "way_out": "evaluate again"}
  report = whole_files.read_json(path, **words)
  version = report.get("format_version")
  if version != FORMAT_VERSION:
    raise InputError(
        f"{path}: `format_version` must be {FORMAT_VERSION}, got {version!r};"
        " evaluate again with this version."
    )
  missing = [field for field in _FIELDS if field not in report]
  if missing:
    raise InputError(
        f"{path}: a report needs `{missing[0]}`, which is not there; evaluate"
        " again."
    )
  with errors.reading(path, **words):
    if not isinstance(report["seconds"], dict):
      raise ValueError("`seconds` is no object")
    format_table(report)
  return report


def format_table(report: dict[str, Any]) -> str:
  """Draws the table that a run ends with: one row a method.

  Args:
    report: From `make_report`.

  Returns:
    Lines without a final newline: the table, what the numbers mean, the range
    over all orders of ties, and warnings of ill codes.
  """
  results = report["results"]
  if not results:
    return (
        f"{report['config']}: the codes are exported, nothing is scored: "
        + ("; ".join(report.get("left_out", {}).values()))
    )
  ks = [k for k in _TABLE_KS if all(k in each["map_at_k"] for each in results)]
  names = [each["method"] for each in results]
  width = max([len("worst ties"), *map(len, names)]) + 2
  header = f"{'method':<{width}}{'bits':>5}"
  header += "".join(f"{'mAP@' + k:>9}" for k in ks)
  lines = [header]
  lines += [
      _row(each, each["method"], "map_at_k", ks, width) for each in results
  ]
  lines += _segment_rows(report, ks, width)
  lines += [
      f"{method} is left out: {reason}"
      for method, reason in report.get("left_out", {}).items()
  ]
  lines += ["", *_notes(report), ""]
  for each in results:
    lines.append(each["method"])
    for ties in ("best", "worst"):
      key = f"map_at_k_{ties}_ties"
      lines.append(_row(each, f"  {ties} ties", key, ks, width))
    for choice in ("kept", "removed"):
      key = f"map_at_k_self_match_{choice}"
      if key in each:
        lines.append(_row(each, f"  self {choice}", key, ks, width))
    warnings = each.get("code_health", {}).get("warnings", [])
    lines += [f"  warning: {warning}" for warning in warnings]
  return "\n".join(lines)


def _segment_rows(
    report: dict[str, Any], ks: list[str], width: int
) -> list[str]:
  segments = report.get("segments")
  if not segments:
    return []
  counts = f"{segments['num_queries']} in {segments['num_gallery']}"
  return [f"of segments, {counts}:"] + [
      _row(each, each["method"], "map_at_k", ks, width)
      for each in segments["results"]
  ]


def _row(
    result: dict[str, Any], name: str, key: str, ks: list[str], width: int
) -> str:
  cells = "".join(f"{result[key][k]:>9.4f}" for k in ks)
  return f"{name:<{width}}{result['num_bits']:>5}{cells}"


def _notes(report: dict[str, Any]) -> list[str]:
  where = f"{report['num_queries']} queries, {report['num_gallery']} in gallery"
  if report.get("step") is not None:
    where = f"step {report['step']}, {where}"
  return [
      f"{report['config'] or 'codes'}: {where}, self-matches"
      f" {report['self_match']}.",
      "AP@K is divided by K (the field's custom). Ties rank by gallery"
      " position;",
      "best and worst ties are the range that another order of ties could"
      " reach:",
  ]
