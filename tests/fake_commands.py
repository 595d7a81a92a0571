"""Stand-ins for gcloud, kubectl, srun and others, first on PATH."""

import json
import os
import pathlib
import stat
import subprocess
import sys
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Writes its words down, then gives the next answer of the first rule that fits;
# the last answer of a rule is repeated.
_FAKE = """#!{python} -SE
import json, pathlib, re, sys
folder, name = pathlib.Path({folder!r}), {name!r}
with open(folder / "calls.jsonl", "a") as calls:
  calls.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
line = " ".join(sys.argv[1:])
rules_file = folder / (name + ".rules")
rules = json.loads(rules_file.read_text())
for rule in rules:
  if re.search(rule["pattern"], line):
    code, out, err = rule["answers"][0]
    if len(rule["answers"]) > 1:
      del rule["answers"][0]
      rules_file.write_text(json.dumps(rules))
    sys.stdout.write(out)
    sys.stderr.write(err)
    sys.exit(code)
"""


class Answer(NamedTuple):
  """How a stand-in ends, and what it says."""

  code: int = 0
  out: str = ""
  err: str = ""


class FakeCommands:
  """Commands that do nothing but answer as told and remember their words."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.bin = folder / "bin"
    self.bin.mkdir()

  def add(self, name: str, *rules: tuple[str, list[Answer]]) -> None:
    """Adds or replaces a command; each rule is a pattern and its answers."""
    program = _FAKE.format(
        python=sys.executable, folder=str(self.folder), name=name
    )
    path = self.bin / name
    path.write_text(program)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (self.folder / f"{name}.rules").write_text(
        json.dumps([{"pattern": p, "answers": a} for p, a in rules])
    )

  def run(self, script: str, *words: str, **settings: str):
    """Runs a script of launch/ with the stand-ins first on PATH."""
    environment = {
        "PATH": f"{self.bin}:{os.environ['PATH']}",
        "HOME": str(self.folder),
        **settings,
    }
    return subprocess.run(
        ["bash", str(ROOT / "launch" / script), *words],
        cwd=self.folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )

  def calls(self, name: str | None = None) -> list[list[str]]:
    """The words of every call so far, in order."""
    path = self.folder / "calls.jsonl"
    if not path.exists():
      return []
    calls = [json.loads(line) for line in path.read_text().splitlines()]
    return [call for call in calls if name in (None, call[0])]
