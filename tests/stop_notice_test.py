"""A notice to stop ends the process in time, whatever its main thread does."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from chain_jax import errors, stop_notice

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_START = """
import hashlib, os, signal, sys, threading, time
from chain_jax import errors, stop_notice
stop_notice.GRACE_SECONDS = stop_notice.COMMIT_SECONDS = .5
# A shell starts its background jobs with Control-C ignored: not so here.
signal.signal(signal.SIGINT, signal.default_int_handler)
stop_notice.install()
def in_c(rounds=10**9):  # Does not return for minutes, and no signal ends it.
  hashlib.pbkdf2_hmac("sha256", b"", b"", rounds)
def saving():
  return stop_notice.saving_first(lambda: "where step 4 counts")
print("ready", flush=True)
"""


def _ended(body, *, signals=1, sent=signal.SIGTERM):
  """Runs a command's body, sends signals; returns code, lines and seconds."""
  process = subprocess.Popen(
      [sys.executable, "-c", _START + body],
      cwd=_ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
  )
  try:
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    start = time.monotonic()
    for _ in range(signals):
      process.send_signal(sent)
      time.sleep(0.05)
    output, error = process.communicate(timeout=30)
  finally:
    process.kill()
  return process.returncode, output + error, time.monotonic() - start


@pytest.fixture
def notice(monkeypatch):
  """A process that no one has asked to stop."""
  monkeypatch.setattr(stop_notice, "_notice", stop_notice._Notice())


def test_a_main_thread_in_c_code_is_ended_at_once():
  code, said, seconds = _ended("in_c()")
  assert code == errors.EXIT_STOPPED == 75 and seconds < 5
  assert said == "stopped on SIGTERM; run the same command again to go on\n"


_LOOP = """
def loop():
  with saving() as told:
    told.begin()
    while not stop_notice.requested():
      time.sleep(.01)
    told.at_safe_point()
    {save}
    raise stop_notice.stopped("after step 7 of 9, saved")
sys.exit(errors.run_command(loop))
"""


def test_a_loop_saves_first_and_a_second_signal_changes_nothing():
  body = _LOOP.format(save="time.sleep(.2); print('saved')")
  code, said, _ = _ended(body, signals=2)
  assert code == 75
  assert said == (
      "saved\nstopped on SIGTERM after step 7 of 9, saved; run the same"
      " command again to go on\n"
  )


@pytest.mark.parametrize("save, seconds", [("in_c()", 1.0), ("pass", 0.0)])
def test_a_save_that_takes_too_long_is_given_up(save, seconds):
  code, said, waited = _ended(_LOOP.format(save=save))
  assert code == 75 and seconds <= waited < seconds + 5
  assert ("where step 4 counts" in said) == (save == "in_c()")


def test_a_loop_that_never_looks_is_ended_after_the_grace_time():
  body = "with saving() as told:\n  told.begin()\n  in_c()"
  code, said, seconds = _ended(body)
  assert code == 75 and 0.5 <= seconds < 5
  assert said.startswith("stopped on SIGTERM where step 4 counts; run the same")


def test_before_the_loop_begins_and_after_it_ends_nothing_is_waited_for():
  body = "stop_notice.GRACE_SECONDS = 60\nwith saving() as told:\n  in_c()"
  assert _ended(body)[2] < 5
  body = (
      "stop_notice.GRACE_SECONDS = 60\nwith saving() as told:\n"
      "  told.begin()\nin_c()"
  )
  assert _ended(body)[2] < 5


@pytest.mark.parametrize("stderr", [subprocess.PIPE, subprocess.STDOUT])
def test_who_reads_its_lines_no_more_does_not_keep_it(stderr):
  process = subprocess.Popen(
      [sys.executable, "-c", _START + "while True:\n  print('x' * 1000)"],
      cwd=_ROOT,
      # It would keep no lock while it writes.
      env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
      stdout=subprocess.PIPE,
      stderr=stderr,
  )
  try:
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.5)  # The pipe is full: the main thread writes for ever.
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == errors.EXIT_STOPPED
    if stderr == subprocess.PIPE:
      assert process.stderr.read().startswith(b"stopped on SIGTERM")
  finally:
    process.kill()
    process.communicate()


def test_closed_streams_do_not_keep_it():
  code, said, _ = _ended("sys.stdout.close(); sys.stderr = None\nin_c()")
  assert (code, said) == (errors.EXIT_STOPPED, "")


def test_other_processes_are_told_before_this_one_ends():
  body = (
      "stop_notice.relay_to(lambda reason: 1 / 0)\n"
      "stop_notice.relay_to(lambda reason: print('told of', reason))\nin_c()"
  )
  code, said, _ = _ended(body)
  assert code == 75 and said.startswith("told of SIGTERM\nstopped on SIGTERM;")


def test_the_end_of_a_forked_child_is_not_that_of_its_parent():
  body = """
import warnings
# Python 3.12 warns of forks beside threads.
warnings.simplefilter("ignore", DeprecationWarning)
child = os.fork()
if child == 0:
  time.sleep(60)
time.sleep(.1)
os.kill(child, signal.SIGTERM)
status = os.waitpid(child, 0)[1]
time.sleep(.2)
print(os.WTERMSIG(status), stop_notice.requested(), flush=True)
os._exit(3)
"""
  code, said, _ = _ended(body, signals=0)
  assert (code, said) == (3, "15 None\n")


def test_control_c_stays_a_failure_of_one_line():
  body = "sys.exit(errors.run_command(lambda: time.sleep(60)))"
  code, said, _ = _ended(body, sent=signal.SIGINT)
  assert code == 1
  assert said == "error: interrupted; what was written stays valid\n"


def test_the_first_reason_counts(notice):
  assert stop_notice.requested() is None
  stop_notice.request("the cloud's notice")
  stop_notice.request("SIGTERM")
  assert stop_notice.requested() == "the cloud's notice"
  assert str(stop_notice.stopped("and saved")).startswith(
      "stopped on the cloud's notice and saved;"
  )


def test_what_breaks_while_all_is_ended_is_no_failure(notice):
  with pytest.raises(ZeroDivisionError):
    with stop_notice.saving_first(str):
      raise ZeroDivisionError
  stop_notice.request("SIGTERM")
  with pytest.raises(errors.Stopped, match="SIGTERM at step 4;"):
    with stop_notice.saving_first(lambda: "at step 4"):
      raise ZeroDivisionError
  # A run that failed by itself has failed.
  with pytest.raises(errors.RunError, match="disk"):
    with stop_notice.saving_first(str):
      raise errors.RunError("disk")


def test_help_says_which_exit_code_means_to_run_again():
  found = subprocess.run(
      [sys.executable, "-m", "chain_jax.main", "--help"],
      cwd=_ROOT,
      capture_output=True,
      text=True,
  )
  assert "75 told to stop" in found.stdout and found.returncode == 0
