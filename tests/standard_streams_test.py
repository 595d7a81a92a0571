"""Neither a terminal nor a reader that leaves breaks what a command does."""

import os
import subprocess
import sys

import pytest

# Prints far more than a pipe holds, with letters that few encodings have.
_PROGRAM = """
import sys
from chain_jax import errors

def command():
  for _ in range(20_000):
    print("\\u00fc\\U0001f600\\ud800")
  with open(sys.argv[1], "w") as file:
    file.write("done")

sys.exit(errors.run_command(command, goes_on_unread="on" in sys.argv))
"""


def _run(tmp_path, redirection, *, goes_on=False, **environment):
  """Returns exit code, standard error, and whether the command got through."""
  (tmp_path / "program.py").write_text(_PROGRAM)
  words = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "file")]
  words += ["on"] if goes_on else []
  done = subprocess.run(
      [
          "bash",
          "-c",
          f"{' '.join(words)} {redirection}; exit ${{PIPESTATUS[0]}}",
      ],
      env=os.environ | {"PYTHONPATH": os.getcwd()} | environment,
      capture_output=True,
      timeout=60,
  )
  return done.returncode, done.stderr, (tmp_path / "file").exists()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_who_works_for_files_goes_on_when_nobody_reads(tmp_path, unbuffered):
  ended = _run(tmp_path, "| head -1", goes_on=True, PYTHONUNBUFFERED=unbuffered)
  assert ended == (0, b"", True)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_who_answers_by_printing_ends_when_nobody_reads(tmp_path, unbuffered):
  ended = _run(tmp_path, "| head -1", PYTHONUNBUFFERED=unbuffered)
  assert ended == (0, b"", False)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "0<&- >&- 2>&-"])
def test_closed_streams_take_what_is_printed(tmp_path, closed):
  assert _run(tmp_path, f"{closed}") == (0, b"", True)


def test_a_full_disk_under_standard_output_is_one_line(tmp_path):
  code, printed, through = _run(tmp_path, "> /dev/full", goes_on=True)
  assert (code, through) == (1, False)
  assert printed.startswith(b"error: ") and printed.count(b"\n") == 1
  assert b"No space left on device: 'standard output'" in printed


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"PYTHONIOENCODING": "ascii"}, b"\\xfc\\U0001f600\\ud800\n"),
        ({"PYTHONIOENCODING": "latin-1"}, b"\xfc\\U0001f600\\ud800\n"),
        ({"LC_ALL": "C"}, "\u00fc\U0001f600\\ud800\n".encode()),
        (
            {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            b"\\xfc\\U0001f600\\ud800\n",
        ),
    ],
)
def test_what_a_terminal_lacks_is_escaped(tmp_path, environment, line):
  output = tmp_path / "output"
  assert _run(tmp_path, f"> {output}", **environment) == (0, b"", True)
  assert output.read_bytes() == line * 20_000


def test_help_that_nobody_reads_is_no_failure():
  done = subprocess.run(
      [
          "bash",
          "-c",
          f"{sys.executable} -m chain_jax.search --help | sleep 0;"
          " exit ${PIPESTATUS[0]}",
      ],
      capture_output=True,
      timeout=60,
  )
  assert (done.returncode, done.stderr) == (0, b"")
