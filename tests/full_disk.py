"""Fills a small disk, for the tests of what happens then."""

import contextlib


def fill(folder, *, leaving):
  """Writes `filler`, to the last byte but so many."""
  with open(folder / "filler", "wb", buffering=0) as file:
    with contextlib.suppress(OSError):
      while file.write(b"x" * 4096):
        pass
    file.truncate(max(0, file.tell() - leaving))
