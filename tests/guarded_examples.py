"""What may happen to a process that reads a file; imports little."""

import os
import signal
import sys

import numpy as np

from chain_jax.errors import InputError


def answer(path, number):
  print("a library that prints")
  return {
      "number": number,
      "none": None,
      "text": np.array(["é", "ab"]),
      "empty": np.zeros((0, 3)),
      "swapped": np.arange(6, dtype=">i2").reshape(2, 3).T,
      "imported": sorted({"jax", "pytest", "__main__"} & set(sys.modules)),
      "main": getattr(sys.modules["__main__"], "__file__", None),
  }


def crash(path):
  os.kill(os.getpid(), signal.SIGSEGV)


def leave(path):
  os._exit(3)


def hang(path):
  while True:
    pass


def stall(path):
  signal.pause()


def fill(path):
  return {"sum": int(np.ones(2**29, np.uint8).sum())}


def refuse(path):
  raise InputError(f"{path} must be another, got this; take that.")


def fail(path):
  raise KeyError("a bug\nin a library")


def half_an_answer(path):
  os.write(1, b"x")
  # The pipe of the answer is the first descriptor that was free.
  os.write(3, b'{"arrays": [["a", "<f8", [9]]]}\n123')
  os._exit(0)
