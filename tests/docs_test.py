"""The documents keep their word: commands run, links lead, names exist."""

import ast
import functools
import os
import re
import runpy
import subprocess
import sys

import documented_commands
import documented_inputs
import documented_launch
import pytest
import setuptools

from chain_jax import config as config_lib
from chain_jax import errors, main_flags
from chain_jax.models.backbones import loading

_ROOT = documented_commands.ROOT
_DOCUMENTS = documented_commands.DOCUMENTS
_COMMANDS = documented_commands.commands()
_RUN = [command for command in _COMMANDS if documented_commands.runs(command)]
_SETUP = [
    command for command in _COMMANDS if not documented_commands.runs(command)
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
  """Where the commands run, with all that they read."""
  for name, extra in (("av", "video"), ("pebble", "video")):
    pytest.importorskip(name, reason=f"the extra [{extra}] is not installed")
  folder = tmp_path_factory.mktemp("workspace")
  documented_inputs.write_inputs(folder)
  return folder


@pytest.fixture(scope="module")
def outcomes(workspace):
  """Runs every command in order, in one workspace; what each printed."""
  return {
      command: subprocess.run(
          [
              *documented_commands.python(command.words),
              *documented_commands.shrunk(command.words),
          ],
          cwd=workspace,
          env=documented_commands.environment(),
          stdin=subprocess.DEVNULL,
          capture_output=True,
          text=True,
          timeout=300,
      )
      for command in _RUN
  }


# A dozen runs of JAX take two minutes on two cores.
@pytest.mark.slow
@pytest.mark.parametrize("command", _RUN, ids=documented_commands.name)
def test_a_command_in_the_documents_runs(command, outcomes):
  done = outcomes[command]
  assert done.returncode == 0, done.stderr
  module = documented_commands.module_of(command.words)
  if module in ("chain_jax.main", "chain_jax.evaluate"):
    methods = ["chain"]
    methods += ["itq", "lsh"] if module == "chain_jax.main" else []
    rows = [line.split()[0] for line in done.stdout.splitlines() if line]
    assert "mAP@100" in done.stdout and set(methods) <= set(rows)
  elif module == "chain_jax.search":
    # An id, then ten neighbours, for each of the 16 queries or for the video.
    num_queries = 1 if "--video=query.mp4" in command.words else 16
    assert len(done.stdout.splitlines()) == num_queries * 11
  elif module == "chain_jax.prepare":
    assert _PREPARED.search(done.stdout), done.stdout
  elif module not in documented_commands.SHRUNK_BENCHMARKS:
    flags = [word.partition("=")[0] for word in command.words[3:]]
    known = set(re.findall(r"--\w+", done.stdout))
    assert {flag for flag in flags if flag.startswith("--")} <= known


# How a preparation ends; with --task another job has the last word.
_PREPARED = re.compile(
    r"this dataset is complete|the job that does the last one|shards of"
    r" synthetic videos"
)


@pytest.mark.slow
def test_the_video_that_is_searched_with_is_the_first_found(outcomes):
  (found,) = (
      outcomes[command].stdout
      for command in _RUN
      if "--video=query.mp4" in command.words
  )
  distance, video = found.splitlines()[1].split()
  assert (distance, video) == ("0", "class0/v_class0_g18_c01.mp4")


@pytest.mark.slow
def test_the_program_in_the_data_document_reads_what_was_prepared(
    workspace, outcomes
):
  text = (_ROOT / "docs" / "data.md").read_text(encoding="utf-8")
  (program,) = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
  done = subprocess.run(
      [sys.executable, "-c", _TFDS_AGREES.format(program=program)],
      cwd=workspace,
      env=documented_commands.environment(),
      capture_output=True,
      text=True,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == "they agree"


_TFDS_AGREES = """{program}
import numpy as np
# 4 / 255 and 4 / 512 - 2: google/youtube-8m, utils.Dequantize.
expected = by_tfds[0]["frames"] * (4 / 255) + (4 / 512 - 2)
np.testing.assert_allclose(features, expected, rtol=1e-6, atol=1e-6)
assert by_tfds[0]["id"].decode() == train.ids[0]
print("they agree")
"""


def _pip_target(words):
  """The SPEC of ".venv/bin/pip install --editable SPEC", or None."""
  install = (".venv/bin/pip", "install", "--editable")
  return words[3] if words[:3] == install and len(words) == 4 else None


@pytest.mark.parametrize("command", _SETUP, ids=documented_commands.name)
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
  elif documented_commands.module_of(words) == "pytest":
    assert all((_ROOT / word).exists() for word in words[3:])
  elif words[0] in ("mkdir", "cd"):
    assert not any(word.startswith(("/", "~")) for word in words[1:])
  elif words[0] == "curl":
    _check_download(" ".join(words))
  elif words[:2] == ("python", "-c"):
    _check_weights_program(words[2])
  elif words[0] in (".venv/bin/ruff", ".venv/bin/pyink"):
    tool = words[0].rpartition("/")[2]
    assert re.search(rf'/{tool}" .*{re.escape(words[-1])}$', ci, re.MULTILINE)
  elif documented_launch.is_launch(words):
    documented_launch.check(words)
  else:
    pytest.fail(
        f"{documented_commands.name(command)}: no test knows this kind of command"
    )


def _check_download(line):
  """Checks against the line that a run without data prints, and the release."""
  config = (_ROOT / "configs" / "yt8m.py").read_text(encoding="utf-8")
  found = re.fullmatch(
      r"curl data\.yt8m\.org/download\.py \| partition=(\S+) mirror=us python3",
      line,
  )
  assert found, f"{line}: not the release's own command"
  assert "curl data.yt8m.org/download.py |" in config
  # Segments are partition 3, research.google.com/youtube8m/download.html.
  assert found[1] == "3/frame/validate" or f"partition={found[1]}" in config


def _check_weights_program(program):
  """Checks that it is what the error for missing weights says."""
  said = []
  for name in ("vgg16", "resnet50"):
    with pytest.raises(errors.InputError) as raised:
      loading.load_backbone(name, None)
    said.append(f'python -c "{program}"' in str(raised.value))
  assert any(said), program


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
