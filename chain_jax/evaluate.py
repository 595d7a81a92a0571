"""Scores exported codes: NumPy only, no training code.

python -m chain_jax.evaluate --query=CODE_DIR --gallery=CODE_DIR
"""

import sys
import time
from collections.abc import Sequence
from typing import Any, Literal

from chain_jax import codes, command_line, errors, retrieval_metrics
from chain_jax import report as report_lib
from chain_jax.codes import CodeSet

_RUN_FIELDS = ("config", "method", "step", "seed")
_EXAMPLE = (
    "python -m chain_jax.evaluate --query=runs/ucf101/codes/query"
    " --gallery=runs/ucf101/codes/gallery --output=report.json"
)


def evaluate_directories(
    query_path: str,
    gallery_path: str,
    *,
    self_match: Literal["removed", "kept"],
) -> dict[str, Any]:
  """Scores two code directories.

  Args:
    query_path: A code directory with labels.
    gallery_path: Likewise.
    self_match: As in `evaluate_codes`.

  Returns:
    A report with one result; its method is the manifest's, or "codes".

  Raises:
    InputError: If a directory is damaged, or the two do not belong together.
  """
  started = time.perf_counter()
  query = codes.read_code_directory(query_path)
  gallery = codes.read_code_directory(gallery_path)
  _warn_of_different_runs(query, gallery)
  result = retrieval_metrics.evaluate_codes(
      query, gallery, self_match=self_match
  )
  known = gallery.manifest
  return report_lib.make_report(
      config_name=_config_name(known),
      step=known.get("step"),
      seed=known.get("seed"),
      git_commit=known.get("git_commit"),
      num_queries=len(query.packed),
      num_gallery=len(gallery.packed),
      self_match=self_match,
      results=[{"method": str(known.get("method", "codes"))} | result],
      seconds={"evaluate": time.perf_counter() - started},
  )


def _config_name(manifest: dict[str, Any]) -> str | None:
  """The manifest's "config" is a name, or all fields with a "name" inside."""
  config = manifest.get("config")
  if isinstance(config, dict):
    config = config.get("name")
  return None if config is None else str(config)


def _warn_of_different_runs(query: CodeSet, gallery: CodeSet) -> None:
  """Codes of different models do not compare; only the user can tell."""
  differing = [
      field
      for field in _RUN_FIELDS
      if query.manifest.get(field) != gallery.manifest.get(field)
  ]
  if differing:
    print(
        f"warning: query and gallery differ in {', '.join(differing)}; codes"
        " of different models do not compare.",
        file=sys.stderr,
    )


def _run(arguments: Sequence[str]) -> None:
  parser = command_line.CommandParser(
      module="chain_jax.evaluate",
      description="Scores exported codes: mAP at K and its neighbours.",
      example=_EXAMPLE,
  )
  folder = {"metavar": "CODE_DIR", "required": True}
  parser.add_argument("--query", help="codes to search with", **folder)
  parser.add_argument("--gallery", help="codes to search in", **folder)
  parser.add_argument(
      "--output", metavar="FILE", help="where to write report.json"
  )
  parser.add_argument(
      "--self_match",
      choices=("removed", "kept"),
      default="removed",
      help="what to do with gallery items that have the query's id"
      " (default: %(default)s; both numbers are reported)",
  )
  flags = parser.parse_args(arguments)
  command_line.check_output_file(flags.output)
  report = evaluate_directories(
      flags.query, flags.gallery, self_match=flags.self_match
  )
  if flags.output:
    report_lib.write_report(flags.output, report)
  print(report_lib.format_table(report))


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  given = sys.argv[1:] if arguments is None else arguments
  return errors.run_command(lambda: _run(given))


if __name__ == "__main__":
  sys.exit(main())
