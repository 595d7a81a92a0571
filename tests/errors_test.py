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


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RecursionError("too\n deep"), "too deep"),
        (OSError(5, "Input/output error", "x"), "Input/output error"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"), "why"),
        (KeyError(), "KeyError"),
        (MemoryError(), "more memory"),
        (ValueError("\ud800"), "\\ud800"),
    ],
)
def test_whatever_reading_raises_is_the_files_fault(error, reason, capsys):
  def command():
    with errors.reading("a.h5", must_be="an HDF5 file", way_out="copy it"):
      raise error

  assert errors.run_command(command) == 2
  line = capsys.readouterr().err
  assert line.startswith("error: a.h5: must be an HDF5 file, could not be read")
  assert reason in line and line.endswith("; copy it.\n")
  assert line.count("\n") == 1


def test_errors_of_ours_pass_through_reading_as_they_are():
  for ours in (errors.InputError, errors.RunError, errors.Stopped):
    with pytest.raises(ours, match="^as it is$"):
      with errors.reading("a", must_be="b", way_out="c"):
        raise ours("as it is")


def test_a_file_that_cannot_be_written_is_a_failed_run(capsys):
  def command():
    with errors.writing("a.npy"):
      raise OSError(28, "No space left on device")

  assert errors.run_command(command) == 1
  assert "a.npy: could not be written (No space left" in capsys.readouterr().err


def test_the_flag_traceback_shows_where_an_error_came_from():
  command = [sys.executable, "-m", "chain_jax.search", "--gallery=none"]
  command.append("--query=none")
  plain = subprocess.run(command, capture_output=True, text=True)
  assert plain.returncode == 2 and "Traceback" not in plain.stderr
  shown = subprocess.run(
      [*command, "--traceback"], capture_output=True, text=True
  )
  assert shown.returncode == 2 and "Traceback" in shown.stderr
  assert shown.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1]


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


class JaxRuntimeError(RuntimeError):
  """Stands in for JAX's own: it is known by its name."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 7.28 TiB for an array"),
        JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\n allocating 8 TiB"),
    ],
)
def test_too_little_memory_is_one_line(error, capsys):
  code, printed = _run(error, capsys)
  assert code == 1 and printed.err.count("\n") == 1
  assert "needs more memory than there is" in printed.err
  assert "8 TiB" in printed.err


def test_another_failure_of_jax_is_a_bug(capsys):
  with pytest.raises(JaxRuntimeError):
    _run(JaxRuntimeError("INTERNAL: no"), capsys)


def test_a_broken_pipe_of_another_kind_is_no_success(capsys):
  assert _run(BrokenPipeError(32, "Broken pipe"), capsys)[0] == 1
