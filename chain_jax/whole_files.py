"""Files that appear whole or not at all, whoever else writes them."""

import contextlib
import fcntl
import itertools
import json
import os
import pathlib
import shutil
import socket
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO

from chain_jax import errors

_SUFFIX = ".partial"
# Of the largest that is read, the manifest of a preparation, 100 bytes a video.
_MOST_JSON_BYTES = 2**28
# What goes through JSON by itself, or shows it, ends at 1000.
_MOST_JSON_LEVELS = 100


def partial_name(path: pathlib.Path) -> pathlib.Path:
  """Names the file to write before it takes the name `path`.

  It lies in the same folder, and no other process of any machine uses it: two
  jobs may make the same file at one time.
  """
  writer = f"{socket.gethostname()}-{os.getpid()}"
  return path.with_name(f".{path.name}.{writer}{_SUFFIX}")


@contextlib.contextmanager
def written_whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives another name to write under, and then the file its own.

  Args:
    path: Of the file; replaced when the block ends without an error.

  Yields:
    The name to write under.
  """
  partial = partial_name(path)
  try:
    yield partial
    put_in_place(partial, path)
  finally:
    partial.unlink(missing_ok=True)


@contextlib.contextmanager
def partial_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Makes a folder to write files in before they are put in their place."""
  partial = partial_name(path)
  partial.mkdir(exist_ok=True)
  try:
    yield partial
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def write_json(
    path: pathlib.Path, content: dict[str, Any], *, indent: int | None = None
) -> None:
  """Writes a JSON file whole or not at all."""
  with written_whole(path) as partial:
    # A path that is no UTF-8 is told by surrogates, which JSON can spell.
    with open(
        partial, "w", encoding="utf-8", errors="backslashreplace"
    ) as file:
      json.dump(content, file, ensure_ascii=False, indent=indent)
      file.write("\n")


def read_json(path: pathlib.Path, *, must_be: str, way_out: str) -> dict:
  """Reads a JSON object, whoever wrote it.

  Args:
    path: The file, in UTF-8.
    must_be: What it must be, for the error.
    way_out: What to do where it is not.

  Raises:
    InputError: If it cannot be read, is larger than 256 MiB, is no JSON,
      something else than an object, or lists in lists a hundred deep.
  """
  with errors.reading(path, must_be=must_be, way_out=way_out):
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
      raise ValueError("it is no file")
    if status.st_size > _MOST_JSON_BYTES:
      raise ValueError(f"{status.st_size} bytes are too many")
    content = json.loads(path.read_text("utf-8"))
    if not isinstance(content, dict):
      raise ValueError(f"it holds {type(content).__name__}, no object")
    _check_depth(content)
    return content


def _check_depth(content: dict) -> None:
  level: list[Any] = [content]
  for _ in range(_MOST_JSON_LEVELS):
    inside = [
        each.values() if isinstance(each, dict) else each for each in level
    ]
    level = [
        each
        for each in itertools.chain.from_iterable(inside)
        if isinstance(each, (dict, list))
    ]
  if level:
    raise ValueError(f"it is nested deeper than {_MOST_JSON_LEVELS} levels")


def put_in_place(partial: pathlib.Path, path: pathlib.Path) -> None:
  """Renames a file once it is down on the disk."""
  flush(partial)
  os.replace(partial, path)


def flush(path: pathlib.Path) -> None:
  """Waits until a file, or the names in a folder, are down on the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def remove_leftovers(folder: pathlib.Path) -> None:
  """Removes what killed processes left half-written."""
  for leftover in folder.glob(f".*{_SUFFIX}"):
    if leftover.is_dir():
      shutil.rmtree(leftover, ignore_errors=True)
    else:
      leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
  """Waits until no other process is in a block of the same lock.

  Args:
    path: Of the lock's file, in a folder that exists. It stays; the lock ends
      with the block, or with the process.
  """
  with open(path, "ab") as file:
    # Some file systems have no locks: what is done there is done unlocked.
    with contextlib.suppress(OSError):
      fcntl.flock(file, fcntl.LOCK_EX)
    yield


@contextlib.contextmanager
def held_alone(path: pathlib.Path, *, refusal: str) -> Iterator[None]:
  """Keeps a lock that nobody waits for: a second holder is refused at once.

  It ends with the block, which removes the file, or with the process, however
  that ends. Where a file system has no locks, nobody is refused.

  Args:
    path: Of the lock's file, in a folder that exists; it names the holder.
    refusal: What to tell the second one.

  Raises:
    RunError: If another process, or another block of this one, holds it.
  """
  with errors.writing(path):
    file = _lock_now(path, refusal)
  with file:
    with contextlib.suppress(OSError):  # The name alone has no room.
      os.truncate(file.fileno(), 0)
      name = f"process {os.getpid()} on {socket.gethostname()}"
      os.write(file.fileno(), name.encode())
    try:
      yield
    finally:
      path.unlink(missing_ok=True)


def _lock_now(path: pathlib.Path, refusal: str) -> BinaryIO:
  while True:
    file = open(path, "a+b")
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      holder = file.read(200).decode(errors="replace") or "another process"
      file.close()
      raise errors.RunError(f"{refusal} ({holder}).") from None
    except OSError:
      return file
    # The holder before may have removed this file after it was opened here.
    with contextlib.suppress(FileNotFoundError):
      if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
        return file
    file.close()
