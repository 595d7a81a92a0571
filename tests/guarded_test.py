"""A reader that crashes, hangs or grows costs a line, and nothing else."""

import subprocess
import sys
import threading
import time

import guarded_examples
import numpy as np
import pytest

from chain_jax import errors, guarded


@pytest.fixture
def path(tmp_path):
  path = tmp_path / "a.bin"
  path.write_bytes(b"a")
  return path


def _call(function, path, *arguments):
  return guarded.call_guarded(
      function, path, *arguments, must_be="good", way_out="mend it"
  )


def test_an_answer_arrives_as_it_was_given(path):
  values = _call(guarded_examples.answer, path, 7)
  assert (values["number"], values["none"]) == (7, None)
  np.testing.assert_array_equal(
      values["text"], np.array(["é", "ab"]), strict=True
  )
  np.testing.assert_array_equal(values["empty"], np.zeros((0, 3)), strict=True)
  expected = np.array([[0, 3], [1, 4], [2, 5]], ">i2")
  np.testing.assert_array_equal(values["swapped"], expected, strict=True)


def test_the_process_imports_neither_jax_nor_the_main_module(path):
  values = _call(guarded_examples.answer, path, 7)
  assert values["imported"] == ["__main__"] and values["main"] is None


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (guarded_examples.crash, "its reader crashed, SIGSEGV"),
        (guarded_examples.leave, "its reader ended with 3 and no answer"),
        (
            guarded_examples.half_an_answer,
            "its reader ended with 0 and no answer",
        ),
        (guarded_examples.hang, "it took longer than 1 s"),
        (guarded_examples.fill, "it needs more than 64 MiB of memory"),
        (guarded_examples.fail, "'a bug.*in a library'"),
    ],
)
def test_whatever_happens_is_one_line(monkeypatch, path, function, reason):
  monkeypatch.setattr(guarded, "_LEAST_SECONDS", 0.6)
  with pytest.raises(errors.InputError) as caught:
    _call(function, path)
  assert str(caught.value).startswith(f"{path}: must be good, could not be")
  assert caught.match(rf"\({reason}\); mend it\.$")


def test_a_disk_that_never_answers_is_waited_for_no_longer(monkeypatch, path):
  monkeypatch.setattr(guarded, "_wall_seconds", lambda job: 2.0)
  start = time.monotonic()
  with pytest.raises(errors.InputError, match="took longer than"):
    _call(guarded_examples.stall, path)
  assert time.monotonic() - start < 30


def test_a_refusal_comes_as_it_is(path):
  with pytest.raises(errors.InputError) as caught:
    _call(guarded_examples.refuse, path)
  assert str(caught.value) == f"{path} must be another, got this; take that."


def test_a_larger_file_may_take_more(path):
  path.write_bytes(bytes(2**20))
  assert _call(guarded_examples.fill, path) == {"sum": 2**29}


def test_a_missing_file_is_one_line(tmp_path):
  with pytest.raises(errors.InputError, match="No such file"):
    _call(guarded_examples.refuse, tmp_path / "b.bin")


def test_threads_call_side_by_side(path):
  found = []

  def call(number):
    values = _call(guarded_examples.answer, path, number)
    found.append(values["number"])

  threads = [threading.Thread(target=call, args=[n]) for n in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(found) == [0, 1, 2, 3]


_PROGRAM = """
print("main")
import pathlib, sys
sys.path[:0] = {sys_path!r}
import guarded_examples
from chain_jax import guarded
print(guarded.call_guarded(guarded_examples.answer, pathlib.Path({path!r}), 5,
                           must_be="good", way_out="mend it")["number"])
"""


@pytest.mark.parametrize("through", ["-c", "-"])
def test_a_program_without_a_file_runs_once(tmp_path, path, through):
  # Modules in the current folder are not taken for Python's own.
  (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
  program = _PROGRAM.format(sys_path=sys.path, path=str(path))
  ran = subprocess.run(
      [sys.executable, "-P", *([through, program][: 1 + (through == "-c")])],
      input=program,
      capture_output=True,
      text=True,
      cwd=tmp_path,
      check=True,
  )
  assert ran.stdout.split() == ["main", "5"]
