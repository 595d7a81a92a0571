"""The documents keep their word: commands run, links lead, names exist."""

import ast
import functools
import os
import pathlib
import re
import runpy
import shlex
import subprocess
import sys
from typing import NamedTuple

import h5py
import numpy as np
import pytest
import scipy.io
import setuptools

from chain_jax import config as config_lib
from chain_jax import main_flags

_ROOT = pathlib.Path(__file__).resolve().parent.parent
# README first: its first command makes the codes that later ones read.
_DOCUMENTS = [
    _ROOT / "README.md",
    *sorted((_ROOT / "docs").glob("*.md")),
    _ROOT / "CONTRIBUTING.md",
    _ROOT / "CHANGELOG.md",
    *sorted((_ROOT / "benchmarks").glob("*.md")),
]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND_LANGUAGES = ("bash", "sh", "shell", "console")
# In any other block, a line that looks like this is a command as well.
_LOOKS_LIKE_A_COMMAND = re.compile(
    r"^(\$ |\.venv/|python3? |pip |pytest|git |\w+=\S+ python)"
)
_PYTHONS = ("python", "python3", ".venv/bin/python")

# Appended to a run's flags: the same run, in seconds.
_SHRUNK_RUN = [
    "--config.train.max_steps=4",
    "--config.train.batch_size=16",
    "--config.evaluation.batch_size=16",
    "--config.data.synthetic.num_train=160",
    "--config.data.synthetic.num_gallery=64",
    "--config.data.synthetic.num_query=16",
]
# The same for benchmarks; one that is not here is asked for its --help.
_SHRUNK_BENCHMARKS = {
    "benchmarks.evaluate": ["--num_videos=200", "--num_bits", "16"],
    "benchmarks.search": [
        "--num_gallery=2000",
        "--num_queries=10",
        "--repeats=1",
    ],
}


class Command(NamedTuple):
  """One command of a document, and where it stands."""

  where: str
  words: tuple[str, ...]


def _lines_of(document):
  """Lines of the document's fenced blocks that are commands."""
  for language, block in _FENCE.findall(document.read_text(encoding="utf-8")):
    for line in block.replace("\\\n", " ").splitlines():
      line = line.strip()
      if language in _COMMAND_LANGUAGES:
        if line and not line.startswith("#"):
          yield line.removeprefix("$ ")
      elif _LOOKS_LIKE_A_COMMAND.match(line):
        yield line.removeprefix("$ ")


def _commands():
  """All commands, each once, in the order of the documents."""
  commands = {}
  for document in _DOCUMENTS:
    for line in _lines_of(document):
      for part in line.split(" && "):
        words = tuple(shlex.split(part, comments=True))
        where = str(document.relative_to(_ROOT))
        commands.setdefault(words, Command(where, words))
  return list(commands.values())


def _module_of(words):
  """The M of "python -m M", or None."""
  is_module = len(words) > 2 and words[0] in _PYTHONS and words[1] == "-m"
  return words[2] if is_module else None


def _runs(command):
  module = _module_of(command.words) or ""
  return module.startswith(("chain_jax.", "benchmarks."))


def _name(command):
  return f"{command.where}: {' '.join(command.words)}"


_COMMANDS = _commands()
_RUN = [command for command in _COMMANDS if _runs(command)]
_SETUP = [command for command in _COMMANDS if not _runs(command)]


def _write_ucf101(folder):
  """Made-up files in the field's layout, with frames of the field's width."""
  folder.mkdir()
  rng = np.random.default_rng(0)
  # ITQ needs more train videos than its 64 bits.
  for split, num_videos in (("train", 96), ("test", 8)):
    with h5py.File(folder / f"ucf_{split}_feats.h5", "w") as file:
      features = rng.random((num_videos, 5, 4096), np.float32)
      file["feats"] = features.astype(np.float16)
      file["ids"] = [f"{split}_g{row % 12}_c{row}" for row in range(num_videos)]
    labels = np.eye(4, dtype=np.uint8)[np.arange(num_videos) % 4]
    scipy.io.savemat(folder / f"ucf_{split}_labels.mat", {"labels": labels})


def _shrunk(words):
  """The arguments to run, from the module's name on."""
  module, arguments = words[2], list(words[3:])
  if module == "chain_jax.main":
    return [module, *arguments, *_SHRUNK_RUN]
  if module in _SHRUNK_BENCHMARKS:
    return [module, *arguments, *_SHRUNK_BENCHMARKS[module]]
  if module.startswith("benchmarks."):
    return [module, "--help"]
  return [module, *arguments]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
  """Runs every command in order, in one workspace; what each printed."""
  workspace = tmp_path_factory.mktemp("workspace")
  _write_ucf101(workspace / "DIR")
  # One device, as a user has it; the tests around this one force eight.
  flags = os.environ.get("XLA_FLAGS", "").split()
  kept = [flag for flag in flags if "host_platform_device_count" not in flag]
  environment = os.environ | {
      "PYTHONPATH": str(_ROOT),
      "XLA_FLAGS": " ".join(kept),
  }
  return {
      command: subprocess.run(
          [sys.executable, "-m", *_shrunk(command.words)],
          cwd=workspace,
          env=environment,
          stdin=subprocess.DEVNULL,
          capture_output=True,
          text=True,
          timeout=300,
      )
      for command in _RUN
  }


# Four runs of JAX take about a minute on two cores.
@pytest.mark.slow
@pytest.mark.parametrize("command", _RUN, ids=_name)
def test_a_command_in_the_documents_runs(command, outcomes):
  done = outcomes[command]
  assert done.returncode == 0, done.stderr
  module = _module_of(command.words)
  if module in ("chain_jax.main", "chain_jax.evaluate"):
    methods = ["chain"]
    methods += ["itq", "lsh"] if module == "chain_jax.main" else []
    rows = [line.split()[0] for line in done.stdout.splitlines() if line]
    assert "mAP@100" in done.stdout and set(methods) <= set(rows)
  elif module == "chain_jax.search":
    # An id, then ten neighbours, for each of the 16 queries.
    assert len(done.stdout.splitlines()) == 16 * 11
  elif module not in _SHRUNK_BENCHMARKS:
    flags = [word.partition("=")[0] for word in command.words[3:]]
    known = set(re.findall(r"--\w+", done.stdout))
    assert {flag for flag in flags if flag.startswith("--")} <= known


def _pip_target(words):
  """The SPEC of ".venv/bin/pip install --editable SPEC", or None."""
  install = (".venv/bin/pip", "install", "--editable")
  return words[3] if words[:3] == install and len(words) == 4 else None


@pytest.mark.parametrize("command", _SETUP, ids=_name)
def test_a_setup_command_is_of_a_kind_that_ci_runs(command):
  words = command.words
  ci = (_ROOT / ".ci" / "run").read_text(encoding="utf-8")
  if words == ("python3", "-m", "venv", ".venv"):
    assert ".venv/" in (_ROOT / ".gitignore").read_text().splitlines()
  elif target := _pip_target(words):
    found = re.fullmatch(r"\.(?:\[(\w+(?:,\w+)*)\])?", target)
    assert found, f"{target} is not this folder with or without extras"
    asked = set(found[1].split(",")) if found[1] else set()
    assert asked <= _extras()
  elif _module_of(words) == "pytest":
    assert all((_ROOT / word).exists() for word in words[3:])
  elif words[0] in (".venv/bin/ruff", ".venv/bin/pyink"):
    tool = words[0].rpartition("/")[2]
    assert re.search(rf'/{tool}" .*{re.escape(words[-1])}$', ci, re.MULTILINE)
  else:
    pytest.fail(f"{_name(command)}: no test knows this kind of command")


@functools.cache
def _extras():
  given = {}
  setup, setuptools.setup = setuptools.setup, given.update
  setuptools.setup = lambda **settings: given.update(settings)
  try:
    runpy.run_path(str(_ROOT / "setup.py"))
  finally:
    setuptools.setup = setup
  return set(given["extras_require"])


def test_extras_named_in_prose_exist():
  named = set()
  for document in _DOCUMENTS:
    text = document.read_text(encoding="utf-8")
    named |= set(re.findall(r"`\.\[(\w+)\]`", text))
  assert named <= _extras()


def _marked_block(name):
  """The block that directly follows the comment `<!-- name -->`."""
  text = (_ROOT / "README.md").read_text(encoding="utf-8")
  found = re.findall(
      rf"^<!-- {name} -->\n```\w*\n(.*?)^```$", text, re.M | re.S
  )
  assert len(found) == 1, f"README must have one {name}"
  return found[0].splitlines()


def test_readme_gives_one_line_to_start_and_one_to_test():
  (start,) = _marked_block("quickstart command")
  (test,) = _marked_block("test command")
  parts = start.split(" && ")
  assert parts[:2] == [
      "python3 -m venv .venv",
      ".venv/bin/pip install --editable .",
  ]
  assert parts[2].endswith("chain_jax.main --config=configs/quickstart.py")
  # What .ci/run looks for, and what it changes.
  assert re.match(r"python|pytest", test) and test.endswith("-m pytest")
  assert ".venv/bin/" in test


def test_ci_runs_the_command_that_readme_gives():
  ci = _ROOT / ".ci" / "run"
  (test,) = _marked_block("test command")
  assert os.access(ci, os.X_OK)
  # The lines of .ci/run that read the command, run as they stand.
  lines = ci.read_text(encoding="utf-8").splitlines()
  last = next(i for i, line in enumerate(lines) if "${command//" in line)
  program = "\n".join(
      ["set -euo pipefail"]
      + [line for line in lines[:last] if not line.startswith(("cd ", "#"))]
      + [lines[last], 'echo "$command"']
  )
  done = subprocess.run(
      ["bash", "-c", program], cwd=_ROOT, capture_output=True, text=True
  )
  assert done.stdout.strip() == test.replace(".venv", ".ci/venv"), done.stderr


def test_readme_is_under_200_lines():
  text = (_ROOT / "README.md").read_text(encoding="utf-8")
  assert len(text.splitlines()) < 200


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(document):
  text = document.read_text(encoding="utf-8")
  links = re.findall(r"\]\(([^)\s]+)\)", text)
  targets = [link.partition("#")[0] for link in links if "://" not in link]
  missing = [
      target for target in targets if not (document.parent / target).exists()
  ]
  assert not missing


@functools.cache
def _names_in(path):
  """Functions, classes, methods and constants of a Python file."""
  names = set()

  def visit(body, prefix):
    for node in body:
      if isinstance(node, ast.Assign):
        targets = [t.id for t in node.targets if isinstance(t, ast.Name)]
        names.update(prefix + target for target in targets)
      elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        names.add(prefix + node.name)
        if isinstance(node, ast.ClassDef):
          visit(node.body, f"{node.name}.")

  visit(ast.parse(path.read_text(encoding="utf-8")).body, "")
  return names


def _mentioned(document):
  """(path, name or "") of every `path/file.py:name` or `path/file.py`."""
  text = document.read_text(encoding="utf-8")
  return re.findall(r"`([\w./-]+\.py)(?::([\w.]+))?`", text)


def _find(document, path):
  # A bare name stands beside what was named before it: in the package.
  for folder in (_ROOT, _ROOT / "chain_jax", _ROOT / "chain_jax" / "data"):
    if (folder / path).is_file():
      return folder / path
  beside = document.parent / path
  return beside if beside.is_file() else None


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: path.name)
def test_every_file_and_function_mentioned_exists(document):
  missing = []
  for path, name in _mentioned(document):
    found = None if path == "utils.py" else _find(document, path)
    if path == "utils.py":  # Named as what there is none of.
      assert not list((_ROOT / "chain_jax").rglob("utils.py"))
    elif found is None or (name and name not in _names_in(found)):
      missing.append(f"{path}:{name}")
  assert not missing


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: path.name)
def test_every_config_field_mentioned_exists(document):
  text = document.read_text(encoding="utf-8")
  sections = "data|augment|model|loss|optimizer|train|evaluation"
  fields = set(re.findall(rf"`((?:{sections})(?:\.\w+)+)`", text))
  fields |= set(re.findall(rf"--config\.((?:{sections})(?:\.\w+)+)", text))
  fields = {field for field in fields if not field.endswith((".py", ".json"))}
  known = config_lib.field_names(config_lib.ExperimentConfig())
  assert fields <= set(known)


def _table_rows(document, header):
  """Cells of the rows under the table whose first column is `header`."""
  lines = document.read_text(encoding="utf-8").splitlines()
  start = next(i for i, line in enumerate(lines) if line.startswith(header))
  rows = []
  for line in lines[start + 2 :]:
    if not line.startswith("|"):
      break
    rows.append([cell.strip() for cell in line.strip("|").split("|")])
  assert rows
  return rows


def test_every_row_of_paper_to_code_names_code_and_a_test_that_exist():
  for row in _table_rows(_ROOT / "docs" / "paper_to_code.md", "| Idea |"):
    idea, where, tests, word = row
    assert idea and word
    for cell, folder in ((where, "chain_jax/"), (tests, "tests/")):
      names = re.findall(r"`([\w./]+\.py):([\w.]+)`", cell)
      assert names, f"{idea}: names nothing in {folder}"
      for path, name in names:
        assert path.startswith(folder)
        assert name in _names_in(_ROOT / path), f"{path}:{name}"


def test_walkthrough_gives_the_sizes_of_the_quickstart():
  config = main_flags.load_config(str(_ROOT / "configs" / "quickstart.py"))
  for size, field, value in _table_rows(
      _ROOT / "docs" / "walkthrough.md", "| Size |"
  ):
    actual = config_lib.field_value(config, field.strip("`"))
    assert int(value) == actual, size


def test_readme_lists_every_dataset_with_its_files():
  rows = _table_rows(_ROOT / "README.md", "| `data.dataset` |")
  assert sorted(row[0].strip("`") for row in rows) == sorted(
      config_lib.DATASETS
  )
