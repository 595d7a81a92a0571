"""A command ends with the right exit code and one line."""

import subprocess
import sys

import pytest

from chain_jax import errors


def _run(error, capsys):
  def command():
    raise error

  code = errors.run_command(command)
  return code, capsys.readouterr()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InputError("`a` must be b, got c."), 2),
        (errors.RunError("`a` must be b, got c."), 1),
        (OSError("`a` must be b, got c."), 1),
    ],
)
def test_a_failure_is_one_line_on_standard_error(error, code, capsys):
  actual, printed = _run(error, capsys)
  assert actual == code
  assert printed == ("", "error: `a` must be b, got c.\n")


def test_an_error_of_many_lines_becomes_one(capsys):
  _, printed = _run(errors.InputError("one\n  two\r\n\tthree "), capsys)
  assert printed.err == "error: one two three\n"


def test_an_operating_system_error_names_its_file(capsys):
  code, printed = _run(OSError(28, "No space left on device", "f.npy"), capsys)
  assert code == 1 and "No space left" in printed.err
  assert "'f.npy'" in printed.err


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("a bug")])
def test_a_bug_keeps_its_traceback(error, capsys):
  with pytest.raises(type(error)):
    _run(error, capsys)


def test_a_command_that_succeeds_says_nothing(capsys):
  assert errors.run_command(lambda: None) == 0
  assert capsys.readouterr() == ("", "")


def test_a_reader_that_has_had_enough_is_no_failure():
  program = (
      "import sys; from chain_jax import errors\n"
      "def command():\n"
      "  while True: print('x' * 1000)\n"
      "sys.exit(errors.run_command(command))"
  )
  done = subprocess.run(
      f'{sys.executable} -c "{program}" | head -1; echo ${{PIPESTATUS[0]}}',
      shell=True,
      executable="/bin/bash",
      capture_output=True,
      text=True,
  )
  assert done.stdout.splitlines()[-1] == "0" and done.stderr == ""
