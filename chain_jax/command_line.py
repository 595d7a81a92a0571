"""How every offline command reads its flags and reports their misuse."""

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from chain_jax import errors
from chain_jax.errors import InputError


class _ShowTracebacks(argparse.Action):

  def __call__(self, *_: object) -> None:
    errors.show_tracebacks()


class CommandParser(argparse.ArgumentParser):
  """An `ArgumentParser` whose usage errors are one line, as all our errors.

  Parse inside `errors.run_command`: bad usage raises `InputError`, exit code 2.
  """

  def __init__(self, *, module: str, description: str, example: str):
    """Takes the module run by `python -m`, what it does, one example."""
    super().__init__(
        prog=f"python -m {module}",
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    self.add_argument(
        "--traceback",
        action=_ShowTracebacks,
        nargs=0,
        help="on an error, show where in the code it came from",
    )

  def add_number(self, name: str, default: int | float, what: str) -> None:
    """Adds a flag for a number of the default's type, and says its default."""
    self.add_argument(
        f"--{name}",
        type=type(default),
        default=default,
        metavar="N" if isinstance(default, int) else "SHARE",
        help=f"{what} (default: %(default)s)",
    )

  def parse_known_args(
      self, args: Sequence[str] | None = None, namespace: Any = None
  ) -> tuple[Any, list[str]]:
    """Parses as every parser does; "~" is the home folder."""
    words = expand_home(sys.argv[1:] if args is None else args)
    return super().parse_known_args(words, namespace)

  def error(self, message: str) -> NoReturn:
    """Raises the complaint instead of printing usage and leaving."""
    raise InputError(f"{message}; see {self.prog} --help.")


def expand_home(words: Sequence[str]) -> list[str]:
  """Turns "~" at the start of an argument's value into the home folder.

  Shells do so at the start of a word alone, not behind "=".

  >>> expand_home(["--top_k=1", "--query=a~"])
  ['--top_k=1', '--query=a~']
  """
  expanded = []
  for word in words:
    name, sign, value = word.partition("=")
    if sign and name.startswith("-"):
      expanded.append(f"{name}={os.path.expanduser(value)}")
    else:
      expanded.append(os.path.expanduser(word))
  return expanded


def check_output_file(output: str | None) -> None:
  """Raises `InputError` early when `--output` has no folder to land in."""
  if output is None:
    return
  path = pathlib.Path(output)
  if path.exists() and not path.is_file():
    raise InputError(
        f"`--output` must be a file, got {output}, which is something else;"
        " give a new name."
    )
  if not path.absolute().parent.is_dir():
    raise InputError(
        f"`--output` must be in a folder that exists, got {output}; make"
        f" {path.absolute().parent} first."
    )
