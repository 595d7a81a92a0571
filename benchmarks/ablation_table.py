"""The runs of a table as Markdown: scores, differences, health, failures."""

import itertools
from collections.abc import Sequence

import numpy as np

from benchmarks import ablation_runs, paired_bootstrap
from chain_jax import average_precision

_BOOTSTRAP_K = 20
# Key of the codes' health -> column.
_HEALTH = {
    "max_abs_bit_mean": "max abs bit mean",
    "mean_abs_correlation": "mean abs correlation",
    "distinct_share": "distinct share",
}

# Runs of one row and length, one a seed.
Runs = list[tuple[ablation_runs.Cell, ablation_runs.Outcome]]


def format_tables(
    cells: Sequence[ablation_runs.Cell],
    outcomes: Sequence[ablation_runs.Outcome],
    *,
    title: str,
    top_ks: Sequence[int],
    reference: str,
) -> str:
  """Draws the whole file but for where its numbers are from.

  Args:
    cells: The runs.
    outcomes: What came of each.
    title: Of the file.
    top_ks: Columns of the table of scores.
    reference: Row that each other is compared with, at the same bits.

  Returns:
    Markdown.
  """
  runs = _grouped(cells, outcomes)
  parts = [
      f"# {title}",
      _about(runs),
      _scores(runs, top_ks),
      *_differences(runs, reference),
      "## Health of the gallery's codes, and seconds a run\n\n" + _health(runs),
      *_failures(cells, outcomes),
  ]
  return "\n\n".join(parts) + "\n"


def _grouped(
    cells: Sequence[ablation_runs.Cell],
    outcomes: Sequence[ablation_runs.Outcome],
) -> dict[tuple[int, str], Runs]:
  """Collects the runs that did not fail by bits and row, bits ascending."""
  runs: dict[tuple[int, str], Runs] = {}
  for cell, outcome in zip(cells, outcomes, strict=True):
    group = runs.setdefault((cell.num_bits, cell.row), [])
    if outcome.report is not None:
      group.append((cell, outcome))
  # A stable sort: rows keep their order.
  return dict(sorted(runs.items(), key=lambda item: item[0][0]))


def _about(runs: dict[tuple[int, str], Runs]) -> str:
  done = list(itertools.chain(*runs.values()))
  if not done:
    return "No run came to its end."
  cell, outcome = done[0]
  report, data = outcome.report, cell.config.data
  what = "queries"
  if data.evaluated_split == "validation":
    what = "videos held out of train (other ones by seed)"
  seeds = ", ".join(map(str, sorted({cell.seed for cell, _ in done})))
  return (
      f"{report['config']}: {report['num_queries']} {what} in"
      f" {report['num_gallery']}, self-matches {report['self_match']}. mAP@K with"
      " the field's divisor K, ties by gallery position; mean ± standard"
      f" deviation of seeds {seeds}."
  )


def _scores(runs: dict[tuple[int, str], Runs], top_ks: Sequence[int]) -> str:
  header = ["", "bits", *(f"@{k}" for k in top_ks)]
  rows = []
  for (num_bits, name), group in runs.items():
    cells = ["failed"] * len(top_ks)
    if group:
      scores = [
          outcome.report["results"][0]["map_at_k"] for _, outcome in group
      ]
      cells = [_spread([one[str(k)] for one in scores]) for k in top_ks]
    rows.append([name, str(num_bits), *cells])
  return _table(header, rows)


def _differences(
    runs: dict[tuple[int, str], Runs], reference: str
) -> list[str]:
  rows = []
  for (num_bits, name), group in runs.items():
    base = runs.get((num_bits, reference), [])
    common = {c.seed for c, _ in base} & {c.seed for c, _ in group}
    if name == reference or not common:
      continue
    found = paired_bootstrap.paired_bootstrap(_paired(group, base, common))
    interval = f"{_signed(found.low)} to {_signed(found.high)}"
    rows.append([name, str(num_bits), _signed(found.difference), interval])
  if not rows:
    return []
  columns = ["", "bits", f"mAP@{_BOOTSTRAP_K} difference", "95 % interval"]
  return [
      f"## Difference from {reference}\n\nPaired bootstrap over queries, 10,000"
      " resamples; a query's score is its mean over the seeds that both rows"
      " have.\n\n" + _table(columns, rows)
  ]


def _paired(group: Runs, base: Runs, seeds: set[int]) -> np.ndarray:
  """Returns the differences in AP by query, each a mean over seeds."""
  ids, differences = [], []
  others = {cell.seed: cell for cell, _ in base}
  for cell, _ in group:
    if cell.seed not in seeds:
      continue
    of_query = _average_precisions(cell)
    of_other = _average_precisions(others[cell.seed])
    # The same seed holds out the same videos: all have their counterpart.
    ids += of_query
    differences += [score - of_other[one] for one, score in of_query.items()]
  return paired_bootstrap.mean_by_query(np.array(ids), np.array(differences))


def _average_precisions(cell: ablation_runs.Cell) -> dict[str, float]:
  query, gallery = ablation_runs.read_codes(cell)
  scores = average_precision.average_precisions(
      query,
      gallery,
      self_match=cell.config.evaluation.self_match,
      top_ks=[_BOOTSTRAP_K],
  )
  return dict(zip(query.ids.tolist(), scores[:, 0].tolist(), strict=True))


def _health(runs: dict[tuple[int, str], Runs]) -> str:
  rows = []
  for (num_bits, name), group in runs.items():
    if not group:
      continue
    reports = [outcome.report for _, outcome in group]
    cells = []
    for key in _HEALTH:
      values = [one["results"][0]["code_health"][key] for one in reports]
      known = [value for value in values if value is not None]
      cells.append(_decimal(np.mean(known)) if known else "")
    seconds = np.mean([sum(one["seconds"].values()) for one in reports])
    rows.append([name, str(num_bits), *cells, f"{seconds:.0f}"])
  return _table(["", "bits", *_HEALTH.values(), "seconds"], rows)


def _failures(
    cells: Sequence[ablation_runs.Cell],
    outcomes: Sequence[ablation_runs.Outcome],
) -> list[str]:
  lines = [
      f"- {cell.name}: {outcome.failure}"
      for cell, outcome in zip(cells, outcomes, strict=True)
      if outcome.failure
  ]
  return ["## Runs that failed\n\n" + "\n".join(lines)] if lines else []


def _spread(values: list[float]) -> str:
  if len(values) == 1:
    return _decimal(values[0])
  return f"{_decimal(np.mean(values))} ± {_decimal(np.std(values))}"


def _decimal(value: float) -> str:
  """Three places, without a leading zero."""
  return f"{value:.3f}".replace("0.", ".", 1) if value < 1 else f"{value:.3f}"


def _signed(value: float) -> str:
  return ("-" if value < 0 else "+") + _decimal(abs(value))


def _table(header: list[str], rows: list[list[str]]) -> str:
  lines = [header, ["---"] * len(header), *rows]
  return "\n".join("| " + " | ".join(line) + " |" for line in lines)
