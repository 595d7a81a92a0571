"""How every offline command reads its flags and reports their misuse."""

import argparse
import pathlib
from typing import NoReturn

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

  def error(self, message: str) -> NoReturn:
    """Raises the complaint instead of printing usage and leaving."""
    raise InputError(f"{message}; see {self.prog} --help.")


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
