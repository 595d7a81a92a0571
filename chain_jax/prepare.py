"""Turns raw input into a dataset folder, once.

python -m chain_jax.prepare youtube8m|features|videos|demo --output=DIR ...
"""

import importlib
import sys
from collections.abc import Sequence

from chain_jax import errors
from chain_jax.errors import InputError

_KINDS = {
    "youtube8m": "YouTube-8M frame-level TFRecord shards",
    "features": "frame features in HDF5, npz or npy files",
    "videos": "a folder of video files",
    "demo": "makes synthetic YouTube-8M shards to try the first one on",
}
_USAGE = "\n".join(
    [
        "usage: python -m chain_jax.prepare KIND --output=DIR [flags]",
        "",
        "Turns raw input into a dataset folder that training reads by row; KIND",
        "says what the input is:",
        "",
        *(f"  {kind:<10} {what}" for kind, what in _KINDS.items()),
        "",
        "example:",
        "  python -m chain_jax.prepare videos --input=clips --output=data/clips"
        " --backbone=random",
        "",
        "`python -m chain_jax.prepare KIND --help` lists the flags of a kind.",
    ]
)


def _run(arguments: Sequence[str]) -> None:
  kind, *rest = arguments or ["--help"]
  if kind in ("-h", "--help"):
    print(_USAGE)
    return
  if kind not in _KINDS:
    raise InputError(
        f"the kind of input must be one of {', '.join(_KINDS)}, got {kind!r};"
        " see python -m chain_jax.prepare --help."
    )
  # One kind needs PyAV, another h5py: none imports what it does not use.
  importlib.import_module(f"chain_jax.preparation.{kind}").run(rest)


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  given = sys.argv[1:] if arguments is None else arguments
  return errors.run_command(lambda: _run(given), goes_on_unread=True)


if __name__ == "__main__":
  sys.exit(main())
