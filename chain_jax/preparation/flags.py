"""The flags that all kinds of preparation share."""

import argparse
import os
import pathlib
import re

from chain_jax import command_line
from chain_jax.errors import InputError
from chain_jax.preparation.engine import How
from chain_jax.preparation.split_rule import SplitRule


def make_parser(
    kind: str,
    *,
    description: str,
    example: str,
    shares: SplitRule,
    num_workers: int = 2,
) -> command_line.CommandParser:
  """Makes the parser of one kind, with the shared flags.

  Args:
    kind: The word after `chain_jax.prepare`.
    description: What it does.
    example: One command line.
    shares: Defaults of the flags about splits.
    num_workers: Default of its flag.
  """
  parser = command_line.CommandParser(
      module=f"chain_jax.prepare {kind}",
      description=description,
      example=f"python -m chain_jax.prepare {kind} {example}",
  )
  parser.add_argument(
      "--output",
      required=True,
      metavar="DIR",
      type=path,
      help="folder of the dataset; the same command goes on with one begun",
  )
  _add_split_flags(parser, shares)
  _add_how_flags(parser, num_workers)
  return parser


def path(text: str) -> pathlib.Path:
  """Reads a path; a shell leaves the ~ in --flag=~/folder as it is."""
  return pathlib.Path(os.path.expanduser(text))


def _add_split_flags(
    parser: command_line.CommandParser, shares: SplitRule
) -> None:
  for name, what in (
      ("query_share", "of the videos, to search with"),
      ("gallery_share", "of videos of --input, to search in"),
      ("validation_share", "of the videos to learn from, held out"),
  ):
    parser.add_number(name, getattr(shares, name), what)
  parser.add_argument(
      "--group_pattern",
      default=shares.group_pattern,
      metavar="REGEX",
      help="videos in whose ids its group 1 is equal share a split",
  )
  parser.add_argument(
      "--query_pattern",
      default=shares.query_pattern,
      metavar="REGEX",
      help="videos in whose ids it is found are queries",
  )


def _add_how_flags(
    parser: command_line.CommandParser, num_workers: int
) -> None:
  parser.add_number(
      "num_workers",
      num_workers,
      "processes; 0 works in one, without time limits",
  )
  parser.add_argument(
      "--task",
      type=_task,
      default=(0, 1),
      metavar="I/N",
      help="do only the I-th of N equal parts of the work, I from 0: one job of"
      " an array; the last one to end finishes the dataset",
  )
  parser.add_argument(
      "--runner",
      default="",
      metavar="NAME",
      help="of Apache Beam, such as DirectRunner, DataflowRunner, SparkRunner",
  )
  parser.add_argument(
      "--runner_options",
      default="",
      metavar="FLAGS",
      help="of Beam's pipeline, as one text",
  )
  parser.add_argument(
      "--strict",
      action="store_true",
      help="exit with code 2 if anything had to be skipped",
  )


def _task(text: str) -> tuple[int, int]:
  found = re.fullmatch(r"(\d+)/(\d+)", text)
  if not found or not int(found[1]) < int(found[2]):
    raise argparse.ArgumentTypeError(
        f"must be I/N with 0 <= I < N, got {text!r}; try 0/1"
    )
  return int(found[1]), int(found[2])


def split_rule(flags: argparse.Namespace) -> SplitRule:
  """Reads the flags about splits.

  Raises:
    InputError: If a share or a pattern is outside its rule.
  """
  rule = SplitRule(*(getattr(flags, name) for name in SplitRule._fields))
  rule.check()
  return rule


def how(flags: argparse.Namespace) -> How:
  """Reads the flags about where the work is done."""
  if flags.num_workers < 0:
    raise InputError(f"--num_workers must be >= 0, got {flags.num_workers}.")
  return How(*(getattr(flags, name) for name in How._fields))
