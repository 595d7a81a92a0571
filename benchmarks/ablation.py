"""Runs the rows of a table by seeds and code lengths; writes it as Markdown.

    python -m benchmarks.ablation --config=configs/ucf101.py --table=results --root=DIR
    python -m benchmarks.ablation --config=configs/ucf101.py --table=parts --root=DIR

`benchmarks/variants.py` lists the tables. Every (row, bits, seed) is an ordinary
run under `--workdir`; the same command goes on where an earlier one ended.
"""

import argparse
import os
import pathlib
import shlex
import sys

import jax

from benchmarks import (
    ablation_config,
    ablation_runs,
    ablation_table,
    machine,
    variants,
)
from chain_jax import command_line, config_rules, errors, provenance


def main(arguments: list[str]) -> None:
  """Runs the command.

  Raises:
    InputError: If a flag, a config, the data or a folder is at fault.
    RunError: If a run failed; the table of the others is written.
  """
  flags, words = _parser().parse_known_args(arguments)
  command_line.check_output_file(flags.output)
  table = variants.TABLES[flags.table]
  split = flags.split or table.split
  reference = table.reference or table.variants[0].name
  cells = make_cells(flags, ablation_config.parse_overrides(words), split)
  rows = list(dict.fromkeys(cell.row for cell in cells))
  outcomes = ablation_runs.run_cells(cells, jobs=flags.jobs)
  text = ablation_table.format_tables(
      cells,
      outcomes,
      title=f"{table.title}: {flags.config}",
      top_ks=table.top_ks,
      reference=reference if reference in rows else rows[0],
  ) + _origin(arguments, outcomes)
  if flags.output:
    pathlib.Path(flags.output).write_text(text, encoding="utf-8")
  print(text, end="")
  num_failed = sum(bool(outcome.failure) for outcome in outcomes)
  if num_failed:
    raise errors.RunError(
        f"{num_failed} of {len(cells)} runs failed, the table lists them; run"
        " the same command again, or leave their rows out with --variants."
    )


def make_cells(
    flags: argparse.Namespace, overrides: dict[str, object], split: str
) -> list[ablation_runs.Cell]:
  """Lists the runs, all rows of a seed before the next seed.

  Raises:
    InputError: If a row, a field or the config file is at fault.
  """
  table = variants.TABLES[flags.table]
  chosen = {row.name: row for row in table.variants}
  chosen |= {name: variants.Variant(name, "") for name in table.baselines}
  for name in flags.variants or ():
    if name not in chosen:
      raise errors.InputError(
          f"--variants must be rows of --table={flags.table}, got {name!r};"
          f" there are {', '.join(chosen)}."
      )
  if flags.root is not None:
    overrides = overrides | {"data.root": flags.root}
  cells = []
  for seed in flags.seeds:
    for num_bits in flags.bits or table.bits:
      for name in flags.variants or chosen:
        config = ablation_config.make_config(
            flags.config,
            chosen[name],
            overrides=overrides,
            split=split,
            num_bits=num_bits,
            seed=seed,
        )
        method = name if name in table.baselines else ""
        if method:
          config = ablation_config.baseline_config(config)
        config_rules.validate(config, num_devices=1)
        folder = os.path.join(flags.workdir, config.name, split)
        path = ablation_runs.cell_path(
            folder, name, num_bits=num_bits, seed=seed
        )
        cells.append(
            ablation_runs.Cell(name, num_bits, seed, config, path, method)
        )
  return cells


def _origin(arguments: list[str], outcomes: list[ablation_runs.Outcome]) -> str:
  """Says what printed the numbers, and which commits the runs are of."""
  commits = {
      str(outcome.report["git_commit"])
      for outcome in outcomes
      if outcome.report is not None
  } or {str(provenance.git_commit())}
  command = shlex.join(["python", "-m", "benchmarks.ablation", *arguments])
  devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
  lines = [
      f"{machine.machine_line('jax', 'flax')}, {devices}",
      f"commit: {', '.join(sorted(commits))}",
      f"command: {command}",
  ]
  return "\n```text\n" + "\n".join(lines) + "\n```\n"


def _parser() -> command_line.CommandParser:
  parser = command_line.CommandParser(
      module="benchmarks.ablation",
      description=__doc__.splitlines()[0]
      + "\nAny setting of all rows: --config.FIELD=VALUE.",
      example="python -m benchmarks.ablation --config=configs/quickstart.py"
      " --table=local",
  )
  add = parser.add_argument
  add("--config", default="configs/quickstart.py", help="FILE or FILE:PRESET")
  add("--table", required=True, choices=sorted(variants.TABLES))
  add("--root", help="folder of the dataset, `data.root`")
  add("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
  add("--bits", type=int, nargs="+", help="code lengths; the table's own")
  add(
      "--split",
      choices=("queries", "validation"),
      help="what is scored; the table's own. validation: groups of train"
      " videos, others by seed; the queries take no part",
  )
  add("--variants", nargs="+", metavar="ROW", help="only these rows")
  add("--workdir", default="runs/ablation", help="folder of the runs")
  add("--output", metavar="FILE.md", help="the table, beside standard output")
  parser.add_number("jobs", 1, "runs at once")
  return parser


if __name__ == "__main__":
  # Exceptions of a bug are shown whole.
  sys.exit(errors.run_command(lambda: main(sys.argv[1:])))
