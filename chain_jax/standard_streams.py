"""Standard output and error that no reader, disk or terminal can break.

Text that a terminal's encoding lacks is escaped; a stream that was closed from
the start, or whose reader has left, takes what is printed and drops it.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any


class ReaderLeft(Exception):
  """No failure: who reads standard output, such as `head`, has had enough."""


@contextlib.contextmanager
def made_safe(*, goes_on_unread: bool) -> Iterator[None]:
  """Makes both streams safe for the block.

  Args:
    goes_on_unread: Whether the block goes on when nobody reads its output; if
      not, what prints there raises `ReaderLeft`. Any other failure to print
      there, such as a full disk's, is an OSError that names standard output.
  """
  _open_what_is_closed()
  before = sys.stdout, sys.stderr
  sys.stdout = _safe(sys.stdout, goes_on_unread=goes_on_unread)
  sys.stderr = _safe(sys.stderr, goes_on_unread=True, may_fail=False)
  try:
    yield
  finally:
    with contextlib.suppress(OSError, ReaderLeft):
      sys.stdout.flush()
    sys.stdout, sys.stderr = before


def _open_what_is_closed() -> None:
  """Keeps files opened later from becoming where others print."""
  while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
    os.set_inheritable(descriptor, True)
  os.close(descriptor)
  for name in ("stdout", "stderr"):
    if getattr(sys, name) is None:
      setattr(sys, name, open(os.devnull, "w", errors="backslashreplace"))


def _safe(stream: Any, **settings: bool) -> Any:
  """Returns a stream to the same place; another program's stays as it is."""
  if stream not in (sys.__stdout__, sys.__stderr__):
    return stream
  stream.flush()
  raw = _SafeFile(stream.fileno(), **settings)
  return io.TextIOWrapper(
      # Unbuffered, as with PYTHONUNBUFFERED, where the stream was.
      raw if stream.write_through else io.BufferedWriter(raw),
      encoding=stream.encoding,
      errors="backslashreplace",
      line_buffering=stream.line_buffering,
      write_through=stream.write_through,
  )


class _SafeFile(io.FileIO):
  """A stream's file; once it cannot be written it is no file any more."""

  def __init__(
      self, descriptor: int, *, goes_on_unread: bool, may_fail: bool = True
  ) -> None:
    super().__init__(descriptor, "w", closefd=False)
    self._goes_on_unread = goes_on_unread
    self._may_fail = may_fail

  def write(self, data: Any) -> int | None:
    try:
      return super().write(data)
    except OSError as error:
      reason = error
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, self.fileno())
    os.close(nowhere)
    if isinstance(reason, BrokenPipeError):
      if not self._goes_on_unread:
        raise ReaderLeft from reason
    elif self._may_fail:
      raise OSError(reason.errno, reason.strerror, "standard output")
    return len(data)
