"""worker.sh starts a run once, outlives its caller, and knows how it ended."""

import os
import signal
import subprocess
import time

import fake_commands
import pytest

# Runs until told to stop, or ends with the code that its flag names.
_PROGRAM = """#!/usr/bin/env bash
printf '%s\\n' "$PWD" "$@" >"$HOME/words"
[[ $3 == --code=* ]] && exit "${3#--code=}"
trap 'echo saved; exit 75' TERM
echo "$$" >"$HOME/ready"
while true; do sleep 0.05; done
"""


@pytest.fixture
def worker(tmp_path):
  """Calls worker.sh in a home with a stand-in for the environment."""
  fakes = fake_commands.FakeCommands(tmp_path)
  python = tmp_path / "chain_jax_venv" / "bin" / "python"
  python.parent.mkdir(parents=True)
  python.write_text(_PROGRAM)
  python.chmod(0o755)
  fakes.add("hostname", ("", [fake_commands.Answer(0, "h\n")]))
  fakes.home = tmp_path
  fakes.call = lambda *words: fakes.run("worker.sh", *words)
  yield fakes
  ready = tmp_path / "ready"
  if ready.exists():
    try:
      os.kill(int(ready.read_text()), signal.SIGKILL)
    except ProcessLookupError:
      pass


def _state(worker):
  host, name, state = worker.call("status").stdout.split()
  assert (host, name) == ("chain_jax_worker", "h")
  return state


def _wait(condition):
  end = time.monotonic() + 20
  while not condition():
    assert time.monotonic() < end, "nothing happened for 20 s"
    time.sleep(0.02)


def test_a_host_without_a_run_says_so(worker):
  assert _state(worker) == "not_started"
  assert worker.call("idle").returncode == 0
  assert worker.call("stop").stdout == "nothing runs on h\n"


@pytest.mark.parametrize("code", [0, 1, 2, 75, 76])
def test_the_code_that_a_run_ended_with_is_kept(worker, code):
  assert worker.call("start", f"--code={code}").returncode == 0
  _wait(lambda: _state(worker) != "running")
  assert _state(worker) == f"exited_{code}"
  log = (worker.home / "chain_jax_run" / "log.txt").read_text()
  assert log.splitlines()[-1].endswith(f"exit code {code}")


def test_the_program_gets_the_flags_as_given_in_the_home_folder(worker):
  flags = ["--code=0", "it's $HOME", "a  b", ""]
  worker.call("start", *flags)
  _wait(lambda: _state(worker) == "exited_0")
  words = (worker.home / "words").read_text().splitlines()
  assert words == [str(worker.home), "-m", "chain_jax.main", *flags]


def test_a_run_is_started_once_outlives_its_caller_and_is_stopped(worker):
  assert worker.call("start", "--long").stdout.startswith("started on h")
  _wait((worker.home / "ready").exists)
  pid = int((worker.home / "ready").read_text())
  assert _state(worker) == "running"
  # Of another session than the caller's, which an end of ssh would end.
  assert os.getsid(pid) != os.getsid(0)
  again = worker.call("start", "--long")
  assert (again.returncode, "left alone" in again.stdout) == (0, True)
  assert int((worker.home / "ready").read_text()) == pid
  assert worker.call("idle").returncode == 2
  assert worker.call("stop").returncode == 0
  _wait(lambda: _state(worker) != "running")
  assert _state(worker) == "exited_75"
  assert "saved" in (worker.home / "chain_jax_run" / "log.txt").read_text()


def test_a_run_that_was_killed_whole_is_lost_and_can_start_again(worker):
  worker.call("start", "--long")
  _wait((worker.home / "ready").exists)
  pid = int((worker.home / "ready").read_text())
  # As a machine that goes away does it: the program and who watches it.
  os.killpg(os.getpgid(pid), signal.SIGKILL)
  _wait(lambda: _state(worker) != "running")
  assert _state(worker) == "lost"
  worker.call("start", "--code=0")
  _wait(lambda: _state(worker) == "exited_0")


def test_install_makes_an_environment_only_once_and_installs_the_extra(worker):
  pip = worker.home / "chain_jax_venv" / "bin" / "pip"
  pip.write_text('#!/usr/bin/env bash\necho "$@" >>"$HOME/pip_words"\n')
  pip.chmod(0o755)
  for _ in range(2):
    assert worker.call("install", "tpu").returncode == 0
  words = (worker.home / "pip_words").read_text().splitlines()
  source = f"{worker.home}/chain_jax_source[tpu]"
  assert words == [f"install --quiet --editable {source}"] * 2


def test_install_without_a_python_of_the_right_age_fetches_one(worker):
  (worker.home / "chain_jax_venv" / "bin" / "python").unlink()
  failing = [("", [fake_commands.Answer(1)])]
  worker.add("python3.12", *failing)
  worker.add("python3.11", *failing)
  worker.add("python3")
  # Nothing makes the environment here: the last step finds no pip.
  assert worker.call("install", "tpu").returncode != 0
  assert worker.calls("python3") == [
      ["python3", "-m", "pip", "install", "--quiet", "--user", "uv"],
      ["python3", "-m", "uv", "venv", "--quiet", "--seed", "--python", "3.12"]
      + [f"{worker.home}/chain_jax_venv"],
  ]


def test_a_bucket_is_mounted_once(worker):
  mounted = fake_commands.Answer(0)
  worker.add("mountpoint", ("", [fake_commands.Answer(1), mounted]))
  worker.add("gcsfuse")
  for _ in range(2):
    assert worker.call("mount", "b").returncode == 0
  folder = f"{worker.home}/bucket"
  assert worker.calls("gcsfuse") == [
      ["gcsfuse", "--implicit-dirs", "b", folder]
  ]


def test_a_host_without_gcsfuse_says_what_to_do(worker):
  worker.add("mountpoint", ("", [fake_commands.Answer(1)]))
  done = worker.call("mount", "b")
  assert done.returncode == 2 and "SETUP_COMMAND" in done.stderr


def test_an_unknown_command_is_refused(worker):
  assert worker.call("sing").returncode == 2


def test_the_checkout_unpacks_to_what_setup_expects(tmp_path):
  archive = tmp_path / "a.tar"
  subprocess.run(
      [
          "git",
          "-C",
          fake_commands.ROOT,
          "archive",
          f"--output={archive}",
          "HEAD",
      ],
      check=True,
  )
  names = subprocess.run(
      ["tar", "-tf", archive], capture_output=True, text=True, check=True
  ).stdout.splitlines()
  assert {"launch/worker.sh", "setup.py", "chain_jax/main.py"} <= set(names)
