"""Checks the commands that the documents give for clouds, without running one."""

import os
import re
import subprocess

import documented_commands

_ROOT = documented_commands.ROOT
_ASSIGNMENT = re.compile(r"([A-Z_]+)=\S*")
_SCRIPTS = ("launch/tpu_vm.sh", "launch/gke.sh")
# Tools of others; their own parsers check `gcloud`, see launch_files_test.py.
_TOOLS = ("gcloud", "kubectl", "docker")


def _strip_settings(words):
  """Splits "A=1 B=2 command ..." into the names set and the command."""
  words, names = list(words), []
  if words[0] == "export":
    del words[0]
  while words and (found := _ASSIGNMENT.fullmatch(words[0])):
    names.append(found[1])
    del words[0]
  return names, words


def _is_script_of_python(words):
  return words[0].endswith("python") and words[1].startswith("launch/")


def is_launch(words: tuple[str, ...]) -> bool:
  """Says whether a command is one that `check` knows."""
  names, rest = _strip_settings(words)
  if not rest:
    return bool(names)
  known = (*_SCRIPTS, *_TOOLS, "sbatch")
  return rest[0] in known or _is_script_of_python(rest)


def check(words: tuple[str, ...]) -> None:
  """Checks that scripts, their commands and settings, and files exist."""
  names, rest = _strip_settings(words)
  helps = {script: _help(script) for script in _SCRIPTS}
  for name in names:
    listed = re.compile(rf"^  {name} ", re.MULTILINE)
    assert any(listed.search(text) for text in helps.values()), name
  if not rest:
    return
  if rest[0] in _SCRIPTS:
    assert re.search(rf"^  {rest[1]} ", helps[rest[0]], re.MULTILINE), rest
  elif rest[0] == "sbatch":
    (script,) = [word for word in rest if word.endswith(".sh")]
    assert (_ROOT / script).is_file()
  elif rest[0] == "docker" and rest[1] == "build":
    (file,) = [word for word in rest if word.startswith("--file=")]
    assert (_ROOT / file.removeprefix("--file=")).is_file()
  elif _is_script_of_python(rest):
    assert (_ROOT / rest[1]).is_file(), f"{rest[1]} is missing"
  _check_config(rest)


def _check_config(words):
  for word in words:
    if word.startswith("--config=configs/"):
      path = word.removeprefix("--config=").partition(":")[0]
      assert (_ROOT / path).is_file(), path


def _help(script):
  assert os.access(_ROOT / script, os.X_OK), f"{script} is not executable"
  return subprocess.run(
      ["bash", _ROOT / script, "--help"],
      capture_output=True,
      text=True,
      check=True,
  ).stdout
