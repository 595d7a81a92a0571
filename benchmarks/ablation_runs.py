"""The runs of a table, one after the other or some at once, unattended."""

import concurrent.futures
import contextlib
import io
import multiprocessing
import os
import re
import shutil
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from benchmarks import baseline_run
from chain_jax import codes as codes_lib
from chain_jax import config as config_lib
from chain_jax import errors, progress, run
from chain_jax import report as report_lib
from chain_jax import workdir as workdir_lib


class Cell(NamedTuple):
  """One run."""

  row: str
  num_bits: int
  seed: int
  config: config_lib.ExperimentConfig
  path: str
  method: str = ""  # A baseline's; "" = a model that is trained.

  @property
  def name(self) -> str:
    """Names it in a line of progress."""
    return f"{self.row}, {self.num_bits} bits, seed {self.seed}"


class Outcome(NamedTuple):
  """What came of a run."""

  report: dict[str, Any] | None  # None where it failed.
  failure: str  # "" where it did not.
  seconds: float  # Now; next to none where it was there before.


def cell_path(workdir: str, row: str, *, num_bits: int, seed: int) -> str:
  """Returns the folder of a run: its row, bits and seed.

  >>> cell_path("runs", "temperature .1", num_bits=64, seed=0)
  'runs/temperature_.1/64/0'
  """
  name = re.sub(r"[^\w.]+", "_", row)
  return os.path.join(workdir, name, str(num_bits), str(seed))


def run_cells(cells: list[Cell], *, jobs: int) -> list[Outcome]:
  """Runs all, or reads what is there, and prints a line for each.

  Args:
    cells: In this order.
    jobs: Processes at once; 1 = this one.

  Returns:
    The outcomes, in order. A failed run is one of them.

  Raises:
    InputError: If a config, the data or a folder is at fault.
  """
  outcomes: dict[int, Outcome] = {}
  start, spent = time.monotonic(), 0
  for index, outcome in _outcomes(cells, jobs):
    outcomes[index] = outcome
    spent += outcome.seconds >= 1.0 or bool(outcome.failure)
    elapsed = time.monotonic() - start
    left = len(cells) - len(outcomes)
    eta = progress.format_seconds(elapsed / max(spent, 1) * left)
    print(
        f"[{len(outcomes)}/{len(cells)}] {cells[index].name}:"
        f" {_said(outcome)}  ETA {eta}",
        flush=True,
    )
  return [outcomes[index] for index in range(len(cells))]


def _said(outcome: Outcome) -> str:
  if outcome.report is None:
    return f"failed: {outcome.failure}"
  score = outcome.report["results"][0]["map_at_k"]["20"]
  return f"mAP@20 {score:.4f}, {progress.format_seconds(outcome.seconds)}"


def _outcomes(cells: list[Cell], jobs: int) -> Iterator[tuple[int, Outcome]]:
  if jobs == 1:
    for index, cell in enumerate(cells):
      yield index, run_cell(cell)
    return
  # Processes share a GPU's memory only if none takes all of it at once.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(jobs, context) as pool:
    futures = {
        pool.submit(run_cell, cell): index for index, cell in enumerate(cells)
    }
    try:
      for future in concurrent.futures.as_completed(futures):
        yield futures[future], future.result()
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      raise


def run_cell(cell: Cell) -> Outcome:
  """Runs one, or goes on with it; its checkpoints go when it is done.

  Raises:
    InputError: If its config, data or folder is at fault.
  """
  start = time.monotonic()
  workdir = workdir_lib.Workdir(cell.path)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      if cell.method:
        baseline_run.run_baseline(
            cell.config, path=cell.path, method=cell.method
        )
      else:
        run.run(cell.config, path=cell.path, mode="train")
  except errors.RunError as error:
    return Outcome(None, " ".join(str(error).split()), _since(start))
  report = report_lib.read_report(workdir.report)
  if not report["results"]:
    raise errors.InputError(
        f"{workdir.report}: a table needs scores, but"
        f" {'; '.join(report.get('left_out', {}).values())}; choose a dataset"
        " with labels."
    )
  shutil.rmtree(workdir.checkpoints, ignore_errors=True)
  jax.clear_caches()  # No run shares its compiled programs with another.
  return Outcome(report, "", _since(start))


def read_codes(cell: Cell) -> tuple[codes_lib.CodeSet, codes_lib.CodeSet]:
  """Reads the codes of a finished run: its queries, its gallery."""
  workdir = workdir_lib.Workdir(cell.path)
  query, gallery = (
      codes_lib.read_code_directory(workdir.codes(split))
      for split in ("query", "gallery")
  )
  return query, gallery


def _since(start: float) -> float:
  return time.monotonic() - start
