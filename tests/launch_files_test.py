"""The files of launch/ are sound: shells, image, documented commands."""

import os
import re
import shlex
import shutil
import subprocess
import sysconfig

import documented_commands
import pytest

_ROOT = documented_commands.ROOT
_SCRIPTS = sorted((_ROOT / "launch").glob("*.sh"))
_README = _ROOT / "launch" / "README.md"


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
  done = subprocess.run(
      ["shellcheck", "--external-sources", "--severity=style", script],
      cwd=_ROOT,
      # Installed beside the Python that runs the tests.
      env=os.environ | {"PATH": _path()},
      capture_output=True,
      text=True,
  )
  assert done.returncode == 0, done.stdout + done.stderr


def _path():
  return f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda path: path.name)
def test_bash_reads_a_script_that_is_strict_and_short(script):
  subprocess.run(["bash", "-n", script], check=True)
  text = script.read_text()
  assert len(text.splitlines()) < 300
  is_sourced = text.startswith("# shellcheck shell=bash")
  assert is_sourced or "\nset -euo pipefail\n" in text
  assert os.access(script, os.X_OK) != is_sourced


_DOCKERFILE = (_ROOT / "launch" / "Dockerfile").read_text()


def _instructions(name):
  lines = _DOCKERFILE.replace("\\\n", " ").splitlines()
  return [line.split(maxsplit=1)[1] for line in lines if line.startswith(name)]


def test_the_image_copies_what_is_there_and_nothing_else():
  copied = {
      word for line in _instructions("COPY ") for word in line.split()[:-1]
  }
  assert all((_ROOT / path).exists() for path in copied)
  ignore = (_ROOT / ".dockerignore").read_text().splitlines()
  assert "*" in ignore  # All is left out, but for these.
  kept = {line[1:] for line in ignore if line.startswith("!")}
  assert kept == {path.removeprefix("./") for path in copied}


def test_the_image_runs_the_program_as_a_user_without_rights():
  assert _instructions("ENTRYPOINT") == ['["python", "-m", "chain_jax.main"]']
  assert _instructions("USER") == ["1000:1000"]
  assert _DOCKERFILE.index("\nUSER ") > _DOCKERFILE.index("\nRUN ")


def test_the_image_installs_an_extra_that_exists():
  (run,) = _instructions("RUN")
  assert '".[${ACCELERATOR},gcs]"' in run
  setup = (_ROOT / "setup.py").read_text()
  assert {"tpu", "cuda", "gcs"} <= set(re.findall(r'"(\w+)": ', setup))
  # Where the manifests look for it: in the folder that it is copied to.
  manifests = sorted((_ROOT / "launch" / "gke").glob("*.yaml"))
  for manifest in manifests:
    assert "python, /app/wait_for_peers.py]" in manifest.read_text()
  assert len(manifests) == 2 and "WORKDIR /app\n" in _DOCKERFILE


def test_every_script_of_launch_is_documented():
  text = _README.read_text()
  names = {path.name for path in (_ROOT / "launch").rglob("*.py")}
  names |= {path.name for path in _SCRIPTS if os.access(path, os.X_OK)}
  assert {name for name in names if f"{name}`" not in text} == set()


# The real parser of the tool, where it is installed, has the last word.
@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("gcloud") is None, reason="gcloud is not installed"
)
def test_gcloud_understands_every_documented_command():
  lines = [
      shlex.join(command.words)
      for command in documented_commands.commands()
      if command.words[0] == "gcloud"
  ]
  assert len(lines) > 5
  for line in lines:
    done = subprocess.run(
        ["gcloud", "meta", "lint-gcloud-commands", f"--command-string={line}"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert '"success": true' in done.stdout, (line, done.stdout[-500:])
