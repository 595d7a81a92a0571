"""Does every kind of video file come out of `prepare videos` as it must?

    python -m benchmarks.video_corpus

Makes some hundred small files (containers x codecs x streams x times x pictures
x damage) by PyAV, and by the ffmpeg command where it is installed. Runs
`prepare videos` over all of them at once, and compares the frames of each with
those of a full decode by PyAV alone. Ends with 1 if a traceback, a hang, a
wrong frame or an intact file that was left out is among them.
"""

import argparse
import collections
import fnmatch
import functools
import os
import pathlib
import sys
import tempfile
import time

from benchmarks import (
    machine,
    video_corpus_check,
    video_corpus_cuts,
    video_corpus_damage,
    video_corpus_files,
    video_corpus_folders,
    video_corpus_kinds,
    video_corpus_looks,
    video_corpus_streams,
    video_corpus_times,
)
from benchmarks.video_corpus_check import Finding
from benchmarks.video_corpus_files import Case

_COLUMNS = ("files", "taken", "left out", "wrong frames", "intact but left out")
_COLUMNS += ("no video but taken", "traceback or hang", "not as made")


def all_cases() -> list[Case]:
  """Returns every case, in the order of the table."""
  return [
      *video_corpus_kinds.kinds(),
      *video_corpus_streams.streams(),
      *video_corpus_times.times(),
      *video_corpus_looks.looks(),
      *video_corpus_cuts.cuts(),
      *video_corpus_cuts.open_groups(),
      *video_corpus_damage.renamed(),
      *video_corpus_damage.damaged(),
      *video_corpus_damage.refused(),
  ]


def make_files(
    cases: list[Case], folder: pathlib.Path
) -> tuple[list[Case], list[str]]:
  """Makes the files; returns the cases that could be made, and why not."""
  has_ffmpeg = video_corpus_files.has_ffmpeg()
  made, failed = [], []
  for case in cases:
    if case.needs_ffmpeg and not has_ffmpeg:
      failed.append(f"{case.name}: needs ffmpeg")
      continue
    try:
      case.write(folder / case.name)
    except Exception as error:  # An encoder that this machine does not have.
      (folder / case.name).unlink(missing_ok=True)
      reason = " ".join(str(error).split())
      failed.append(f"{case.name}: {type(error).__name__}: {reason[-160:]}")
      continue
    made.append(case)
  return made, failed


def judge(case: Case, finding: Finding) -> str:
  """Returns the column of the table that a file's fault belongs to, or ""."""
  if finding.fault.startswith(("raised", "hangs", "ended")):
    return "traceback or hang"
  if finding.doubt and case.must == "taken":
    return "not as made"
  if case.must == "taken" and finding.reason:
    return "intact but left out"
  if case.must == "refused" and not finding.reason:
    return "no video but taken"
  if case.must == "taken" and finding.fault:
    return "wrong frames"
  return ""


def check_frames(
    cases: list[Case], folder: pathlib.Path, timeout_seconds: float
) -> dict[str, Finding]:
  """Compares every file with its full decode."""
  watched = functools.partial(
      video_corpus_check.Watched, timeout_seconds=timeout_seconds
  )
  with watched() as decoder, watched() as other:
    return {
        case.name: video_corpus_check.check(
            case, folder / case.name, decoder=decoder, other=other
        )
        for case in cases
    }


def check_prepared(
    cases: list[Case],
    findings: dict[str, Finding],
    prepared: video_corpus_folders.Prepared,
) -> list[str]:
  """Says where `prepare videos` did not do as it must."""
  if prepared.exit_code is None:
    return ["prepare videos: took too long and was ended"]
  faults = []
  if prepared.exit_code or prepared.has_traceback:
    faults.append(
        f"prepare videos: exit {prepared.exit_code}"
        f"{', a traceback' * prepared.has_traceback}: {prepared.said}"
    )
  if not prepared.taken and not prepared.skipped:
    return [*faults, "prepare videos: made no dataset, so lists no file"]
  for case in cases:
    is_taken = case.name in prepared.taken
    reason = prepared.skipped.get(case.name)
    if is_taken == (reason is not None):
      faults.append(f"{case.name}: taken and listed, or neither")
    elif not is_taken and not reason.strip():
      faults.append(f"{case.name}: listed without a reason")
    elif is_taken == bool(findings[case.name].reason):
      faults.append(f"{case.name}: prepare and decode_video disagree")
  return faults


def table(cases: list[Case], findings: dict[str, Finding]) -> str:
  """Lays out the numbers of each group, and their totals."""
  counts: dict[str, collections.Counter] = {}
  for case in cases:
    finding = findings[case.name]
    column = judge(case, finding)
    is_out = bool(finding.reason)
    for name in (case.group, "total"):
      row = counts.setdefault(name, collections.Counter())
      row["files"] += 1
      row["left out"] += is_out
      row["taken"] += not is_out and column != "traceback or hang"
      if column:
        row[column] += 1
  counts["total"] = counts.pop("total", collections.Counter())
  widths = [len(column) + 2 for column in _COLUMNS]
  lines = [f"{'':20}" + _row(_COLUMNS, widths)]
  for name, row in counts.items():
    values = [row[column] for column in _COLUMNS]
    lines.append(f"{name:20}" + _row(values, widths))
  return "\n".join(lines)


def _row(values, widths) -> str:
  cells = zip(values, widths, strict=True)
  return "".join(f"{value:>{width}}" for value, width in cells)


def reasons(cases: list[Case], findings: dict[str, Finding]) -> list[str]:
  """Returns why files were left out, the most frequent reasons first."""
  names = collections.defaultdict(list)
  for case in cases:
    if findings[case.name].reason:
      names[findings[case.name].reason].append(case.name)
  rows = sorted(names.items(), key=lambda row: -len(row[1]))
  return [
      f"{len(files):4}  {reason[:100]}  ({', '.join(files[:3])}"
      f"{', ...' if len(files) > 3 else ''})"
      for reason, files in rows
  ]


def run_corpus(
    cases: list[Case], folder: pathlib.Path, *, timeout_seconds: float
) -> list[str]:
  """Makes, prepares and compares files, prints the table, returns the faults."""
  inputs = folder / "videos"
  inputs.mkdir()
  start = time.perf_counter()
  made, failed = make_files(cases, inputs)
  making = time.perf_counter() - start
  findings = check_frames(made, inputs, timeout_seconds)
  comparing = time.perf_counter() - start - making
  prepared = video_corpus_folders.prepare(
      inputs, folder / "output", f"--timeout_seconds={timeout_seconds:g}"
  )
  preparing = time.perf_counter() - start - making - comparing
  print(table(made, findings))
  print(
      f"made in {making:.0f} s, compared in {comparing:.0f} s, prepared in"
      f" {preparing:.0f} s; prepare videos: exit {prepared.exit_code},"
      f" {len(prepared.taken)} videos, {len(prepared.skipped)} listed"
  )
  print(f"could not be made here: {len(failed)}")
  for line in failed:
    print(f"  {line}")
  print("left out:")
  for line in reasons(made, findings):
    print(f"  {line}")
  unlike = [
      case.name
      for case in made
      if case.must == "either" and findings[case.name].wrong
  ]
  print(
      "damaged, taken, and with a picture that a full decode lacks:"
      f" {', '.join(unlike) or 'none'}"
  )
  faults = [
      f"{case.name}: {column}:" f" {_said(findings[case.name], column)}"
      for case in made
      if (column := judge(case, findings[case.name]))
  ]
  return faults + check_prepared(made, findings, prepared)


def _said(finding: Finding, column: str) -> str:
  if column == "not as made":
    return finding.doubt
  text = finding.fault or finding.reason
  return f"{text} ({finding.wrong} wrong)" if finding.wrong else text


def _parse(arguments: list[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  path = pathlib.Path
  parser.add_argument("--keep", type=path, help="new folder for the files")
  parser.add_argument(
      "--only", default="*", help="of names or groups, as *.mp4"
  )
  parser.add_argument("--odd", type=path, help="folder with f1.mp4 ... f13.mp4")
  parser.add_argument("--with_sound", type=path, help="folder of clips")
  parser.add_argument("--timeout_seconds", type=float, default=60)
  return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
  """Runs it; returns the exit code."""
  parsed = _parse(arguments)
  os.environ.setdefault("SVT_LOG", "0")  # Else that encoder talks.
  print(machine.machine_line("av"))
  cases = [
      case
      for case in all_cases()
      if fnmatch.fnmatch(case.name, parsed.only)
      or fnmatch.fnmatch(case.group, parsed.only)
  ]
  if parsed.odd:
    cases += video_corpus_folders.odd_cases(parsed.odd)
  with tempfile.TemporaryDirectory() as temporary:
    folder = parsed.keep or pathlib.Path(temporary) / "corpus"
    folder.mkdir(parents=True)
    faults = []
    if cases:
      timeout = parsed.timeout_seconds
      faults += run_corpus(cases, folder, timeout_seconds=timeout)
    if parsed.with_sound:
      faults += video_corpus_folders.check_sound(parsed.with_sound, folder)
  print(f"faults: {len(faults)}")
  for line in faults:
    print(f"  {line}")
  return 1 if faults else 0


if __name__ == "__main__":
  sys.exit(main())
