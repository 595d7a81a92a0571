"""Damages files at random and reads each in a process that is watched."""

import contextlib
import multiprocessing
import pathlib
import re
import resource
import shutil
import struct
import time
import traceback

import numpy as np

from chain_jax import errors

# What a file below 1 MB may cost, whatever is in it.
_MOST_SECONDS = 10.0
_MOST_BYTES = 2**30
# Values that length fields and counters are made of when they go wrong.
_ODD = [0, 1, 0x7F, 0x80, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1]
_ODD += [2**40, 2**63 - 1, 2**64 - 1]


def mutate(data, rng):
  """Damages bytes in one to four places, or cuts them off."""
  data = bytearray(data)
  for _ in range(rng.integers(1, 5)):
    if not data:
      break
    place = int(rng.integers(len(data)))
    # Headers lie at both ends, and are where damage tells most.
    if rng.random() < 0.5:
      place = int(min(place, rng.integers(1, 513)))
    elif rng.random() < 0.3:
      place = int(max(place, len(data) - rng.integers(1, 1025)))
    length = int(rng.integers(1, 65))
    how = rng.integers(7)
    if how == 0:
      data[place] ^= 1 << int(rng.integers(8))
    elif how == 1:
      data[place] = int(rng.integers(256))
    elif how == 2:
      packed = struct.pack("<Q", _ODD[rng.integers(len(_ODD))])
      size = int(rng.choice([1, 2, 4, 8]))
      packed = packed[:size][:: int(rng.choice([1, -1]))]
      data[place : place + size] = packed
    elif how == 3:
      del data[place : place + length]
    elif how == 4:
      data[place:place] = data[place : place + length]
    elif how == 5:
      data[place : place + length] = rng.bytes(length)
    elif rng.random() < 0.3:
      del data[place:]
  return bytes(data)


def write_mutant(source, target, rng):
  """Copies a file, or a folder, and damages one file of it."""
  shutil.rmtree(target, ignore_errors=True)
  target.unlink(missing_ok=True)
  if source.is_file():
    target.write_bytes(mutate(source.read_bytes(), rng))
    return
  shutil.copytree(source, target)
  files = sorted(file for file in target.rglob("*") if file.is_file())
  chosen = files[rng.integers(len(files))]
  if rng.random() < 0.05:
    chosen.unlink()
  else:
    chosen.write_bytes(mutate(chosen.read_bytes(), rng))


def check(read, sources, folder, *, seconds):
  """Reads damaged copies until the time is over.

  Args:
    read: `read(path)`, picklable; may raise the errors that users see.
    sources: Files or folders to damage, all of one suffix.
    folder: Where the copies are written.
    seconds: How long.

  Returns:
    How many copies were read.

  Raises:
    AssertionError: If one made a traceback, a crash, a hang or a large
      process; it names the number of the copy, which repeats it.
  """
  context = multiprocessing.get_context("spawn")
  number = context.Value("q", -1)
  since = context.Value("d", 0.0)
  receiver, sender = context.Pipe(duplex=False)
  arguments = (read, sources, folder, seconds, number, since, sender)
  worker = context.Process(target=_work, args=arguments)
  worker.start()
  sender.close()
  try:
    while worker.is_alive():
      worker.join(0.2)
      began = since.value  # Read once: it becomes 0 at any moment.
      busy = time.monotonic() - began if began else 0.0
      assert busy < _MOST_SECONDS, f"copy {number.value} hangs"
    with contextlib.suppress(EOFError):  # It had nothing to say.
      assert not (fault := receiver.recv()), f"copy {number.value}: {fault}"
    assert worker.exitcode == 0, f"copy {number.value}: {worker.exitcode}"
  finally:
    worker.kill()
    worker.join()
  return number.value + 1


def _work(read, sources, folder, seconds, number, since, sender):
  target = pathlib.Path(folder) / f"mutant{sources[0].suffix}"
  read_one(read, sources[0])  # Imports, and all that is done once.
  before = _peak_bytes()
  end = time.monotonic() + seconds
  while time.monotonic() < end:
    number.value += 1
    rng = np.random.default_rng(number.value)
    write_mutant(sources[number.value % len(sources)], target, rng)
    since.value = time.monotonic()
    fault = read_one(read, target)
    since.value = 0.0
    grown = _peak_bytes() - before
    if fault is None and grown > _MOST_BYTES:
      fault = f"took {grown >> 20} MiB"
    if fault is not None:
      sender.send(fault)
      return


def read_one(read, path):
  """Reads a file; returns the traceback that no user may see, or None."""
  try:
    read(path)
  except (errors.InputError, errors.RunError):
    return None
  except BaseException:
    return traceback.format_exc()
  return None


def _peak_bytes():
  """The most that this process, or one of its children, has held."""
  # `ru_maxrss` of a process starts at what its parent held.
  status = pathlib.Path("/proc/self/status").read_text()
  own = int(re.search(r"VmHWM:\s+(\d+)", status)[1])
  children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
  return max(own, children) * 1024
