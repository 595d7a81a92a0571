"""A run trains to its end, whether or not anybody reads what it prints."""

import os
import pathlib
import shlex
import subprocess

import local_runs
import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    "redirection", ["| head -1", ">&- 2>&-", "2>&1 | true"]
)
def test_a_run_that_nobody_reads_ends_as_any_other(tmp_path, redirection):
  command = shlex.join(local_runs.run_command(tmp_path / "run"))
  done = subprocess.run(
      ["bash", "-c", f"{command} {redirection}; exit ${{PIPESTATUS[0]}}"],
      env=os.environ | {"PYTHONPATH": os.getcwd(), "XLA_FLAGS": ""},
      cwd=pathlib.Path(__file__).parents[1],
      capture_output=True,
      text=True,
      timeout=300,
  )
  assert (done.returncode, done.stderr) == (0, "")
  assert (tmp_path / "run" / "report.json").exists()
