"""A dead, hung or failed process ends all of its run with one line."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from chain_jax import peer_hub, peer_messages, peers

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_PROGRAM = pathlib.Path(__file__).with_name("peer_program.py")
_PEER_LOST, _STOPPED = 76, 75


def _free_port():
  with socket.socket() as free:
    free.bind(("localhost", 0))
    return free.getsockname()[1]


@contextlib.contextmanager
def _run(*actions, **settings):
  """Starts a process for each list of actions; None leaves that one out."""
  settings = {
      "port": _free_port(),
      "num_processes": len(actions),
      "settings": {},
      "silence_seconds": 20,
      "start_timeout": 20,
      "hang_seconds": 0,
      "secret": "secret",
  } | settings
  started = []
  try:
    for process_id, one in enumerate(actions):
      if one is None:
        continue
      own = {"process_id": process_id, "actions": one} | settings
      if isinstance(one, dict):
        own |= {"actions": []} | one
      started.append(
          subprocess.Popen(
              [sys.executable, str(_PROGRAM), json.dumps(own)],
              cwd=_ROOT,
              env=os.environ | {"PYTHONPATH": str(_ROOT)},
              stdout=subprocess.PIPE,
              stderr=subprocess.PIPE,
              text=True,
          )
      )
    yield started
  finally:
    for process in started:
      process.kill()
      process.communicate()


def _wait_until_joined(processes):
  for process in processes:
    assert process.stdout.readline() == "joined\n"


def _ends(processes, *, within=20):
  """Returns exit code and standard error of each."""
  deadline = time.monotonic() + within
  outputs = [
      process.communicate(timeout=max(deadline - time.monotonic(), 0.1))
      for process in processes
  ]
  return [
      (process.returncode, error)
      for process, (_, error) in zip(processes, outputs, strict=True)
  ]


_WORK = [["work"]]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_with_its_number(victim):
  with _run(_WORK, _WORK, _WORK) as processes:
    _wait_until_joined(processes)
    processes[victim].send_signal(signal.SIGKILL)
    others = [one for one in processes if one is not processes[victim]]
    for code, error in _ends(others, within=5):
      assert code == _PEER_LOST
      assert re.fullmatch(
          rf"error: process {victim} \(.*\) has died; run the same command"
          r" again on all hosts to go on\.\n",
          error,
      )


@pytest.mark.parametrize("victim", [0, 1])
def test_a_silent_process_ends_the_others(victim):
  with _run(_WORK, _WORK, _WORK, silence_seconds=3) as processes:
    _wait_until_joined(processes)
    processes[victim].send_signal(signal.SIGSTOP)
    others = [one for one in processes if one is not processes[victim]]
    for code, error in _ends(others):
      assert code == _PEER_LOST
      assert re.match(rf"error: process {victim} .* hangs: silent", error)


@pytest.mark.parametrize(("kind", "own_code"), [("input", 2), ("run", 1)])
def test_the_others_are_told_why_one_fails(kind, own_code):
  with _run(_WORK, [["fail", kind]], _WORK) as processes:
    (code, _), (fails, error), (other_code, other) = _ends(processes)
  assert (code, fails, other_code) == (_PEER_LOST, own_code, _PEER_LOST)
  assert error == f"error: {kind}\n"
  host = socket.gethostname()
  assert other == f"error: process 1 (host {host}) failed: {kind}\n"


def test_processes_that_fail_together_each_say_their_own():
  # The barrier makes it the same moment, however unlike they started.
  fail = [["barrier"], ["fail", "input"]]
  with _run(fail, fail, fail) as processes:
    assert _ends(processes) == [(2, "error: input\n")] * 3


def test_a_stop_of_one_process_stops_all():
  with _run(_WORK, _WORK, _WORK) as processes:
    _wait_until_joined(processes)
    processes[1].send_signal(signal.SIGTERM)
    ends = _ends(processes, within=5)
  assert [code for code, _ in ends] == [_STOPPED] * 3
  assert "SIGTERM;" in ends[1][1]
  for _, error in (ends[0], ends[2]):
    assert f"SIGTERM at process 1 (host {socket.gethostname()})" in error


def test_a_barrier_waits_for_the_last_and_gives_what_process_0_said():
  start = time.monotonic()
  last = [["sleep", 1.5], ["barrier", "zero"]]
  with _run(last, [["barrier", "one"]], [["barrier"]]) as processes:
    outputs = [process.communicate(timeout=20) for process in processes]
    assert outputs == [("joined\ntold zero\n", "")] * 3
    assert [process.returncode for process in processes] == [0, 0, 0]
  assert time.monotonic() - start > 1.5


def test_a_process_that_ends_first_waits_for_process_0():
  with _run([["sleep", 2]], [], silence_seconds=1) as processes:
    _wait_until_joined(processes)
    with pytest.raises(subprocess.TimeoutExpired):
      processes[1].wait(1)
    assert _ends(processes) == [(0, ""), (0, "")]


def test_a_run_that_gets_no_further_ends_and_names_the_slowest():
  ahead = [["progress"], ["progress"], ["sleep", 60]]
  behind = [["progress"], ["sleep", 60]]
  with _run(ahead, behind, ahead, hang_seconds=1) as processes:
    for code, error in _ends(processes):
      assert code == _PEER_LOST
      assert "no process got any further" in error
      assert "process 1 " in error and "behind at 1 steps" in error
      assert "`train.hang_seconds`" in error


def test_waiting_for_the_work_of_one_process_is_no_hang():
  alone = [["sleep", 3.5], ["barrier"]]
  with _run(alone, [["barrier"]], hang_seconds=1) as processes:
    assert _ends(processes) == [(0, ""), (0, "")]


def test_who_is_missing_is_said_by_all_that_are_there():
  with _run([], None, [], None, start_timeout=2) as processes:
    for code, error in _ends(processes):
      assert code == 1
      assert error.startswith("error: processes 1, 3 of 4 did not report to")
      assert error.count("\n") == 1


def test_a_coordinator_that_does_not_answer_is_named():
  with _run(None, [], start_timeout=1) as processes:
    ((code, error),) = _ends(processes)
  assert code == 1
  assert re.match(r"error: process 0 must answer at localhost:\d+, ", error)
  assert "2 processes expected" in error


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"process_id": 0}, "--process_id must differ in all processes, got 0"),
        ({"num_processes": 4}, "--num_processes must be the same"),
        ({"settings": {"--mode": "export"}}, "`--mode` must be the same"),
    ],
)
def test_processes_that_do_not_fit_together_are_refused(odd, words):
  # No hub of its own in the process that takes another's number.
  with _run([], None, None, start_timeout=20) as first:
    hello = {
        "process_id": 1,
        "num_processes": 3,
        "host": "b",
        "settings": {},
    } | odd
    port = json.loads(first[0].args[2])["port"]
    with peer_messages.connect("localhost", port, timeout=10.0) as odd_one:
      odd_one.sendall(peer_messages.encode("hello", **hello))
      answer = peer_messages.decode(odd_one.makefile("rb").readline())
    assert answer["kind"] == "refused" and words in answer["reason"]
    ((code, error),) = _ends(first)
  assert code == 2 and words in error


def test_a_stranger_at_the_port_is_left_alone():
  with _run([["sleep", 1]], [["sleep", 1]]) as processes:
    port = json.loads(processes[0].args[2])["port"]
    for line in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100_000, b"[1]\n"):
      with peer_messages.connect("localhost", port, timeout=10.0) as stranger:
        stranger.sendall(line)
    assert _ends(processes) == [(0, ""), (0, "")]


@pytest.mark.parametrize("secret", ["another", None])
def test_who_has_not_the_secret_ends_the_run_in_a_line(secret):
  impostor = {"actions": _WORK, "secret": secret}
  with _run(_WORK, impostor, _WORK, start_timeout=3) as processes:
    for code, error in _ends(processes, within=30):
      assert code == _PEER_LOST
      assert re.fullmatch(
          rf"error: process 1 \(host {re.escape(socket.gethostname())}\) at"
          r" \S+ did not show the secret of this run; run the same command"
          r" again on all hosts to go on\.\n",
          error,
      )


def test_a_port_in_use_is_an_error_and_not_a_second_hub():
  with socket.create_server(("", 0)) as taken, pytest.raises(OSError):
    peer_hub.Hub(
        "localhost",
        taken.getsockname()[1],
        secret="",
        num_processes=2,
        start_timeout=1.0,
        hang_seconds=0.0,
    )


def test_a_run_of_one_process_waits_for_nobody():
  peers.progress()
  assert peers.barrier("here", 3) == 3
  with pytest.raises(ValueError), peers.told():
    raise ValueError
  peers.leave()
