"""Finds the nearest codes; FAISS inside, ties always by gallery position.

python -m chain_jax.search --gallery=CODE_DIR --query=CODE_DIR --top_k=10
python -m chain_jax.search --gallery=CODE_DIR --video FILE FOLDER ...
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence

from chain_jax import codes, command_line, errors, whole_files
from chain_jax.codes import CodeSet
from chain_jax.errors import InputError
from chain_jax.nearest import search_codes

_EXAMPLE = (
    "python -m chain_jax.search --gallery=runs/ucf101/codes/gallery"
    " --query=runs/ucf101/codes/query --top_k=10 --output=neighbours.jsonl"
)


def neighbours(
    query: CodeSet, gallery: CodeSet, *, top_k: int
) -> Iterator[dict[str, object]]:
  """Searches one code set in another.

  Args:
    query: Codes to search with.
    gallery: Codes to search in.
    top_k: How many neighbours per query.

  Yields:
    Per query its "id" and "neighbours": "id" and "distance" in bits each,
    nearest first.

  Raises:
    InputError: As `search_codes`.
  """
  positions, distances = search_codes(query.packed, gallery.packed, top_k=top_k)
  for query_id, row, row_distances in zip(
      query.ids, positions, distances, strict=True
  ):
    yield {
        "id": str(query_id),
        "neighbours": [
            {"id": str(gallery.ids[position]), "distance": int(distance)}
            for position, distance in zip(row, row_distances, strict=True)
        ],
    }


def _make_parser() -> argparse.ArgumentParser:
  parser = command_line.CommandParser(
      module="chain_jax.search",
      description="Finds the nearest codes of every query by Hamming distance.",
      example=_EXAMPLE,
  )
  parser.add_argument(
      "--gallery", help="codes to search in", metavar="CODE_DIR", required=True
  )
  parser.add_argument(
      "--query", help="codes to search with", metavar="CODE_DIR"
  )
  _add_video_flags(parser)
  parser.add_argument(
      "--top_k",
      type=int,
      default=10,
      metavar="K",
      help="neighbours per query (default: %(default)s)",
  )
  parser.add_argument(
      "--output",
      metavar="FILE",
      help="write one JSON object a query here instead of printing",
  )
  return parser


def _run(arguments: Sequence[str]) -> None:
  flags = _make_parser().parse_args(arguments)
  command_line.check_output_file(flags.output)
  if bool(flags.query) == bool(flags.video):
    raise InputError("give either --query or --video; see --help.")
  gallery = codes.read_code_directory(flags.gallery)
  if flags.video:
    query, num_left_out = _encode(flags, gallery)
  else:
    query, num_left_out = codes.read_code_directory(flags.query), 0
  found = neighbours(query, gallery, top_k=flags.top_k)
  if flags.output:
    _write(flags.output, found)
  else:
    _print(found)
  if flags.strict and num_left_out:
    raise InputError(
        "--strict allows nothing to be left out of --video, got"
        f" {num_left_out}, listed above; mend or remove these."
    )


def _encode(flags: argparse.Namespace, gallery: CodeSet) -> tuple[CodeSet, int]:
  """Encodes the videos; counts what was left out, and lists it."""
  for name, least in (("timeout_seconds", 1), ("num_workers", 0)):
    if not least <= getattr(flags, name) <= 10**6:
      raise InputError(
          f"--{name} must be {least} to {10**6}, got {getattr(flags, name)}."
      )
  # Deferred: it needs jax, and searching with codes does not.
  from chain_jax import video_encoder

  query, left_out, remarks = video_encoder.encode_videos(
      flags.video,
      gallery_path=flags.gallery,
      gallery=gallery,
      workdir=flags.workdir,
      weights=flags.weights,
      num_workers=flags.num_workers,
      timeout_seconds=float(flags.timeout_seconds),
  )
  for line in remarks:
    print(f"note: {line}", file=sys.stderr)
  for name, reason in left_out:
    print(f"left out: {name}: {reason}", file=sys.stderr)
  return query, len(left_out)


def _print(found: Iterable[dict]) -> None:
  for each in found:
    print(each["id"])
    for neighbour in each["neighbours"]:
      print(f"  {neighbour['distance']:>4}  {neighbour['id']}")


def _write(output: str, found: Iterable[dict]) -> None:
  # Through links: what is replaced is the file, never the link to it.
  path = pathlib.Path(output).resolve()
  with errors.writing(output), whole_files.written_whole(path) as partial:
    with open(partial, "w", encoding="utf-8") as file:
      for each in found:
        file.write(json.dumps(each, ensure_ascii=False) + "\n")


def _add_video_flags(parser: command_line.CommandParser) -> None:
  parser.add_argument(
      "--video",
      nargs="+",
      metavar="FILE",
      help="videos to search with, or folders of them; needs the extra [video]",
  )
  parser.add_argument(
      "--workdir",
      metavar="DIR",
      help="with --video: of the run that made the gallery (default: the folder"
      " that the gallery's codes lie in)",
  )
  parser.add_argument(
      "--weights",
      metavar="FILE",
      help="with --video: of the backbone that the gallery was prepared with"
      " (default: that file, where it lay then)",
  )
  for name, default, what in (
      ("timeout_seconds", 60, "with --video: one may take so long to decode"),
      ("num_workers", 2, "with --video: processes; 0 has no time limits"),
  ):
    parser.add_number(name, default, what)
  parser.add_argument(
      "--strict",
      action="store_true",
      help="with --video: exit with code 2 if one had to be left out",
  )


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  given = sys.argv[1:] if arguments is None else arguments
  return errors.run_command(lambda: _run(given))


if __name__ == "__main__":
  sys.exit(main())
