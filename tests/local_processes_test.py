"""What the launcher starts, it shows, tells, waits for and ends."""

import os
import signal
import subprocess
import sys
import time

import local_runs
import pytest

# Prints who it is, then does as its number's word says.
_CHILD = """
import json, os, signal, sys, time
flags = dict(a[2:].split("=") for a in sys.argv[2:])
me = int(flags["process_id"])
print("out", flags["num_processes"], os.environ.get("XLA_FLAGS"), flush=True)
print("err", file=sys.stderr, flush=True)
word = sys.argv[1].split(",")[me]
if word == "wait":
  time.sleep(60)
if word == "tell":
  signal.signal(signal.SIGTERM, lambda *_: os._exit(75))
  print("ready", flush=True)
  time.sleep(60)
if word == "kill":
  os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(word))
"""


def _launch(words, *flags):
  number = words.count(",") + 1
  return local_runs.started(
      [
          *(sys.executable, local_runs.LAUNCHER, f"--num_processes={number}"),
          *(*flags, "--", sys.executable, "-c", _CHILD, words),
      ],
      XLA_FLAGS="--xla_force_host_platform_device_count=8 --xla_other=1",
  )


def test_each_process_has_its_number_and_its_lines_carry_it():
  with _launch("0,0", "--devices_per_process=2") as process:
    output, error = process.communicate(timeout=20)
  flags = "--xla_other=1 --xla_force_host_platform_device_count=2"
  assert sorted(output.splitlines()) == [
      f"[0] out 2 {flags}",
      f"[1] out 2 {flags}",
  ]
  assert sorted(error.splitlines()) == ["[0] err", "[1] err"]
  assert process.returncode == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("0,0,0", 0),
        ("76,2,1", 2),
        ("76,1,75", 1),
        # Who was killed is not at fault, and the same command goes on.
        ("76,kill,76", 76),
        ("0,kill", 128 + signal.SIGKILL),
        ("75,75", 75),
    ],
)
def test_the_exit_code_is_the_one_to_act_on(words, code):
  with _launch(words) as process:
    process.communicate(timeout=20)
    assert process.returncode == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_every_process(number):
  word = "tell" if number == signal.SIGTERM else "wait"
  with _launch(f"{word},{word}") as process:
    for _ in range(4 if word == "tell" else 2):
      process.stdout.readline()
    process.send_signal(number)
    process.communicate(timeout=20)
    # Python's own answer to SIGINT is to end by it.
    expected = 75 if word == "tell" else 128 + signal.SIGINT
    assert process.returncode == expected


def test_no_process_survives_a_killed_launcher():
  with _launch("wait,wait") as process:
    for _ in range(2):
      process.stdout.readline()
    children = local_runs.children(process)
    assert len(children) == 2
    process.kill()
    deadline = time.monotonic() + 10
    while any(_is_alive(child) for child in children):
      assert time.monotonic() < deadline
      time.sleep(0.05)


def _is_alive(process_id):
  try:
    os.kill(process_id, 0)
  except ProcessLookupError:
    return False
  # A zombie is dead, if nobody has collected it yet.
  with open(f"/proc/{process_id}/stat", encoding="utf-8") as file:
    return file.read().rpartition(")")[2].split()[0] != "Z"


def test_the_others_are_ended_when_they_do_not_end_by_themselves():
  program = (
      "import runpy, sys;"
      f"launcher = runpy.run_path({local_runs.LAUNCHER!r});"
      "launcher['main'].__globals__['_GRACE_SECONDS'] = 1.0;"
      "sys.exit(launcher['main'](sys.argv[1:]))"
  )
  command = [sys.executable, "-c", program, "--num_processes=2", "--"]
  command += [sys.executable, "-c", _CHILD, "1,wait"]
  ended = subprocess.run(command, capture_output=True, timeout=20)
  assert ended.returncode == 1
