"""Imports run one way; files and functions stay small enough to follow."""

import ast
import importlib
import pathlib
import re
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_FILES = {
    ".".join(file.relative_to(_ROOT).with_suffix("").parts): file
    for file in sorted((_ROOT / "chain_jax").rglob("*.py"))
    if file.name != "__init__.py"
}


def _imports(file):
  """Names the package's own modules that a file imports, also inside."""
  found = set()
  for node in ast.walk(ast.parse(file.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      found.add(node.module)
      found |= {f"{node.module}.{alias.name}" for alias in node.names}
  return found & _FILES.keys()


_GRAPH = {name: _imports(file) for name, file in _FILES.items()}


def _reachable(name):
  seen, waiting = set(), [name]
  while waiting:
    for other in _GRAPH[waiting.pop()] - seen:
      seen.add(other)
      waiting.append(other)
  return seen


def _short(names):
  return {name.removeprefix("chain_jax.") for name in names}


@pytest.mark.parametrize("name", _FILES)
def test_a_module_imports_and_is_in_no_cycle(name):
  importlib.import_module(name)
  assert name not in _reachable(name)


_NUMERICS = [
    name
    for name in _FILES
    if name.startswith(("chain_jax.losses.", "chain_jax.models."))
    or name.rpartition(".")[2]
    in (
        "codes",
        "retrieval_metrics",
        "ranking",
        "hamming",
        "code_health",
        "baselines",
    )
]


@pytest.mark.parametrize("name", _NUMERICS)
def test_numerics_know_no_config_no_mesh_and_no_process(name):
  outer = {"config", "config_rules", "sharding", "run", "main", "train_loop"}
  assert not _short(_reachable(name)) & outer
  assert "process_index" not in _FILES[name].read_text()


# Each row may import what stands to its right, never to its left.
_ORDER = ["main", "run", "train_loop", "train_step", "train_state", "config"]


def test_the_main_story_is_imported_one_way():
  for place, name in enumerate(_ORDER):
    above = set(_ORDER[:place])
    assert not _short(_reachable(f"chain_jax.{name}")) & above


@pytest.mark.parametrize("name", ["data.sources", "data.augment", "codes"])
def test_data_and_codes_know_nothing_of_training(name):
  reached = _short(_reachable(f"chain_jax.{name}"))
  assert not {part for part in reached if part.startswith(("train", "models"))}


def test_offline_commands_import_no_jax():
  program = (
      "import sys, chain_jax.evaluate, chain_jax.search;"
      "print([m for m in ('jax', 'flax', 'optax', 'grain') if m in sys.modules])"
  )
  printed = subprocess.run(
      [sys.executable, "-c", program],
      capture_output=True,
      text=True,
      check=True,
  ).stdout
  assert printed.strip() == "[]"


@pytest.mark.parametrize("name", _FILES)
def test_a_file_is_under_300_lines_and_its_functions_under_40(name):
  text = _FILES[name].read_text()
  assert len(text.splitlines()) <= 300
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.FunctionDef):
      assert _code_lines(node) <= 40, node.name


def _code_lines(function):
  """Counts the lines of a body without its docstring."""
  body = function.body[1:] if ast.get_docstring(function) else function.body
  if not body:
    return 0
  return body[-1].end_lineno - body[0].lineno + 1


def test_no_tracked_file_names_a_machine():
  listed = subprocess.run(
      ["git", "ls-files"], cwd=_ROOT, capture_output=True, text=True
  )
  if listed.returncode:
    pytest.skip("not a git checkout")
  absolute = re.compile(r"(?<![\w.])/(home|root|Users|work|farm|mnt)/")
  for file in listed.stdout.splitlines():
    if file.endswith((".py", ".md", ".toml")) and "architecture" not in file:
      assert not absolute.search((_ROOT / file).read_text()), file


@pytest.mark.parametrize(
    "file", sorted((_ROOT / "benchmarks").glob("*.py")), ids=lambda f: f.stem
)
def test_a_benchmark_parses_and_says_what_it_times(file):
  assert ast.get_docstring(ast.parse(file.read_text()))
