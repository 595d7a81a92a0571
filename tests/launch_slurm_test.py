"""slurm.sh requeues what can go on, and only that."""

import os
import re
import signal
import subprocess
import time

import fake_commands
import pytest
from fake_commands import Answer

# Runs the tasks as Slurm does: a number each, the greatest code for all.
_SRUN = """#!/usr/bin/env bash
echo "$@" >>"$OUT/srun_words"
while [[ $1 == --* ]]; do shift; done
pids=() worst=0
for ((i = 0; i < TASKS; i++)); do
  SLURM_PROCID=$i "$@" &
  pids+=($!)
done
trap : TERM # Slurm tells the tasks, not srun.
for pid in "${pids[@]}"; do
  code=0
  wait "$pid" || code=$?
  while kill -0 "$pid" 2>/dev/null; do code=0; wait "$pid" || code=$?; done
  ((code <= worst)) || worst=$code
done
exit "$worst"
"""
# Ends with the code that CODES_OF_TASKS has for its task; waits if it is "wait".
_PROGRAM = """#!/usr/bin/env bash
codes=($TASK_CODES)
printf '%s\\n' "$@" >"$OUT/words.$SLURM_PROCID"
if [[ ${codes[SLURM_PROCID]} == wait ]]; then
  trap 'sleep 0.2; echo saved >>"$OUT/saved"; exit 75' TERM
  echo ready >"$OUT/ready.$SLURM_PROCID"
  while true; do sleep 0.05; done
fi
exit "${codes[SLURM_PROCID]}"
"""


@pytest.fixture
def slurm(tmp_path):
  fakes = fake_commands.FakeCommands(tmp_path)
  fakes.add("scontrol")
  for name, text in (("srun", _SRUN), ("program", _PROGRAM)):
    (fakes.bin / name).write_text(text)
    (fakes.bin / name).chmod(0o755)
  return fakes


def _settings(slurm, codes, **settings):
  return {
      "SLURM_JOB_ID": "7",
      "SLURM_SUBMIT_DIR": str(slurm.folder),
      "PYTHON": "program",
      "TASKS": str(len(codes)),
      "TASK_CODES": " ".join(map(str, codes)),
      "OUT": str(slurm.folder),
      "RETRY_SECONDS": "0",
      **settings,
  }


def _run(slurm, codes, *flags, **settings):
  words = flags or ("--f",)
  return slurm.run("slurm.sh", *words, **_settings(slurm, codes, **settings))


_REQUEUED = [["scontrol", "requeue", "7"]]


@pytest.mark.parametrize(
    "codes, code, requeued",
    [
        ([0, 0], 0, False),
        ([75, 75], 75, True),
        ([76, 75], 75, True),
        ([0, 76], 75, True),
        ([2, 76], 2, False),
        ([76, 76, 2], 2, False),
        ([2, 1], 2, False),
        ([1, 76], 75, True),
        ([139, 76], 75, True),
    ],
)
def test_the_codes_of_all_tasks_decide(slurm, codes, code, requeued):
  done = _run(slurm, codes)
  assert done.returncode == code, done.stderr
  assert slurm.calls("scontrol") == (_REQUEUED if requeued else [])


def test_every_task_gets_the_flags_as_given(slurm):
  flags = ["--config=x.py", "it's $HOME", "a  b"]
  assert _run(slurm, [0, 0], *flags).returncode == 0
  for i in range(2):
    words = (slurm.folder / f"words.{i}").read_text().splitlines()
    assert words == ["-m", "chain_jax.main", *flags]
  assert (
      (slurm.folder / "srun_words")
      .read_text()
      .startswith("--kill-on-bad-exit=0 --wait=0 --label bash -c")
  )


def test_a_run_that_fails_is_requeued_three_times(slurm):
  codes = [_run(slurm, [1, 76]).returncode for _ in range(4)]
  assert codes == [75, 75, 75, 1]
  assert slurm.calls("scontrol") == _REQUEUED * 3


def test_preemptions_do_not_count_as_failures(slurm):
  for codes in ([1, 76], [75, 75], [76, 76], [75, 75], [1, 1]):
    assert _run(slurm, codes).returncode == 75
  assert len(slurm.calls("scontrol")) == 5


def test_requeues_without_end_are_given_up(slurm):
  done = _run(slurm, [75], SLURM_RESTART_COUNT="100")
  assert done.returncode == 1 and "MAX_RESTARTS" in done.stderr
  assert slurm.calls("scontrol") == []


def test_a_requeue_is_tried_again(slurm):
  slurm.add("scontrol", ("", [Answer(1), Answer(1), Answer(0)]))
  assert _run(slurm, [76]).returncode == 75
  assert slurm.calls("scontrol") == _REQUEUED * 3


def test_a_requeue_that_never_works_says_what_to_do(slurm):
  slurm.add("scontrol", ("", [Answer(1)]))
  done = _run(slurm, [76])
  assert done.returncode == 1 and "submit the same command" in done.stderr
  assert slurm.calls("scontrol") == _REQUEUED * 5


def test_the_signal_before_the_time_limit_lets_all_tasks_save(slurm):
  process = subprocess.Popen(
      ["bash", str(fake_commands.ROOT / "launch" / "slurm.sh"), "--f"],
      cwd=slurm.folder,
      env={"PATH": f"{slurm.bin}:{os.environ['PATH']}"}
      | _settings(slurm, ["wait", "wait"]),
      stderr=subprocess.PIPE,
      start_new_session=True,
  )
  try:
    end = time.monotonic() + 20
    while len(list(slurm.folder.glob("ready.*"))) < 2:
      assert time.monotonic() < end
      time.sleep(0.02)
    _signal_steps(process.pid)
    process.communicate(timeout=20)
  finally:
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
  assert process.returncode == 75
  assert (slurm.folder / "saved").read_text() == "saved\n" * 2
  # Requeued as one that was stopped, not as one that failed.
  assert not (slurm.folder / ".chain_jax_slurm" / "7" / "failures").exists()
  assert slurm.calls("scontrol") == _REQUEUED


def _signal_steps(batch):
  """SIGTERM to all processes of the step, and not to the batch script."""
  listed = subprocess.run(
      ["ps", "-o", "pid=,args=", "-g", str(batch)],
      capture_output=True,
      text=True,
      check=True,
  ).stdout
  for line in listed.splitlines():
    pid, args = line.split(maxsplit=1)
    if "slurm.sh" not in args:
      try:
        os.kill(int(pid), signal.SIGTERM)
      except ProcessLookupError:  # A `sleep` of the stand-in.
        pass


@pytest.mark.parametrize(
    "flags, settings, said",
    [
        ([], {"SLURM_JOB_ID": "7"}, "error: no flags for the run"),
        (["--f"], {}, "error: this is a script for sbatch"),
    ],
)
def test_a_mistake_gives_one_line_and_exit_code_2(slurm, flags, settings, said):
  done = slurm.run("slurm.sh", *flags, **settings)
  assert done.returncode == 2 and done.stderr.startswith(said)
  assert done.stderr.count("\n") == 1


def test_dry_run_prints_the_step_and_runs_nothing(slurm):
  done = _run(slurm, [0], DRY_RUN="1")
  assert done.stdout.startswith("+ srun ") and done.returncode == 0
  assert not (slurm.folder / "srun_words").exists()


def test_the_job_asks_for_what_jax_and_a_restart_need():
  text = (fake_commands.ROOT / "launch" / "slurm.sh").read_text()
  options = dict(
      re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.MULTILINE)
  )
  # jax's Slurm cluster gives a process the device of its local number.
  assert options["ntasks-per-node"] == options["gpus-per-node"]
  assert "requeue" in options and options["open-mode"] == "append"
  # Without "B:" the signal goes to the tasks; a save takes less than 30 s.
  name, _, seconds = options["signal"].partition("@")
  assert name == "TERM" and int(seconds) >= 60
