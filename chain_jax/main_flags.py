"""Flags of `main`: finds the config file and says plainly what is wrong."""

import difflib
import importlib.util
import os
import sys
from typing import Any

from absl import flags

from chain_jax import command_line, errors
from chain_jax import config as config_lib

_REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def parse(arguments: list[str]) -> None:
  """Parses `sys.argv` into the defined flags.

  Args:
    arguments: The program's name first.

  Raises:
    InputError: On an unknown flag, a misspelt field (the nearest is named), a
      wrong type, or a config file that is not there.
    SystemExit: After `--help`.
  """
  if {"--help", "-h", "-help"} & set(arguments):
    print(sys.modules["__main__"].__doc__)
    print(flags.FLAGS.main_module_help())
    raise SystemExit(0)
  arguments = command_line.expand_home(_joined(arguments))
  arguments = [_resolved(argument) for argument in arguments]
  _check_fields(arguments)
  try:
    rest = flags.FLAGS(arguments)
  except (flags.Error, ValueError, TypeError, AttributeError) as error:
    raise errors.InputError(f"{error} (see --help)") from error
  if len(rest) > 1:
    raise errors.InputError(
        f"arguments must be --flags, got {rest[1]!r}; see --help."
    )


def _joined(arguments: list[str]) -> list[str]:
  """Writes "--config", "FILE" as the one word "--config=FILE"."""
  joined = []
  for word in arguments:
    last = joined[-1] if joined else ""
    is_bare = last in ("-config", "--config") or last.startswith("--config.")
    if is_bare and "=" not in last and not word.startswith("--"):
      joined[-1] = f"{last}={word}"
    else:
      joined.append(word)
  return joined


def _resolved(argument: str) -> str:
  """Looks a config file up in the current folder, then beside the package."""
  name, _, value = argument.partition("=")
  if name.lstrip("-") != "config":
    return argument
  path, colon, variant = value.partition(":")
  for folder in (os.curdir, _REPOSITORY):
    found = os.path.join(folder, path)
    if os.path.isfile(found):
      _check_file(found, *([variant] if colon else []))
      return f"{name}={found}{colon}{variant}"
  raise errors.InputError(
      f"--config must name a file, {path!r} is neither in the current folder"
      f" nor beside the package; there are {', '.join(_known_configs())}."
  )


def _check_file(path: str, *arguments: str) -> None:
  """Runs a config file once before the flags do, to name it where it fails."""
  try:
    config = load_config(path, *arguments)
  except Exception as error:  # The file is the user's code: it may do all.
    raise errors.InputError(
        f"{path}: `get_config` must return an ExperimentConfig, but"
        f" {type(error).__name__}: {error}; see configs/quickstart.py."
    ) from error
  if not isinstance(config, config_lib.ExperimentConfig):
    raise errors.InputError(
        f"{path}: `get_config` must return an ExperimentConfig, got a"
        f" {type(config).__name__}; see configs/quickstart.py."
    )


def _known_configs() -> list[str]:
  folder = os.path.join(_REPOSITORY, "configs")
  if not os.path.isdir(folder):
    return ["none"]
  return sorted(
      f"configs/{name}" for name in os.listdir(folder) if name.endswith(".py")
  )


def _check_fields(arguments: list[str]) -> None:
  """Names the nearest field where an override is misspelt."""
  known = config_lib.field_names(config_lib.ExperimentConfig())
  for argument in arguments:
    name = argument.lstrip("-").partition("=")[0]
    if not name.startswith(("config.", "noconfig.")):
      continue
    name = name.partition(".")[2]
    if name not in known:
      raise errors.InputError(
          f"the config has no field `{name}`; {_nearest(name, known)}"
      )


def _nearest(name: str, known: list[str]) -> str:
  by_last = {field.rpartition(".")[2]: field for field in known}
  near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
  near += [
      by_last[match]
      for match in difflib.get_close_matches(
          name.rpartition(".")[2], by_last, n=1
      )
  ]
  return f"did you mean `{near[0]}`?" if near else "see chain_jax/config.py."


def expand_home(config: config_lib.ExperimentConfig) -> None:
  """Turns "~" in the paths that a config file gives into the home folder."""
  data, train = config.data, config.train
  data.root = os.path.expanduser(data.root)
  data.prepared.segments_root = os.path.expanduser(data.prepared.segments_root)
  train.checkpoint_folder = os.path.expanduser(train.checkpoint_folder)


def load_config(path: str, *arguments: str) -> config_lib.ExperimentConfig:
  """Runs `get_config` of a config file, as `--config=PATH:ARGUMENT` does."""
  spec = importlib.util.spec_from_file_location("config_file", path)
  module: Any = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(*arguments)
