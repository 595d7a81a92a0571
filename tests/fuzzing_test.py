"""The fuzzer finds what it looks for."""

import os
import time

import fuzzing
import numpy as np
import pytest

from chain_jax import errors


def _fail(path):
  if path.read_bytes() != b"a" * 50:
    raise KeyError("a bug")


def _crash(path):
  if path.read_bytes() != b"a" * 50:
    os.abort()


def _fill(path):
  if path.read_bytes() != b"a" * 50:
    np.ones(2**30 + 2**28, np.uint8)


def _hang(path):
  if path.read_bytes() != b"a" * 50:
    time.sleep(60)


def _refuse(path):
  if path.read_bytes() != b"a" * 50:
    raise errors.InputError("no")


@pytest.fixture
def source(tmp_path):
  path = tmp_path / "a.bin"
  path.write_bytes(b"a" * 50)
  return path


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (_fail, "copy 0: Traceback"),
        (_crash, "copy 0: -6"),
        (_fill, "copy 0: took 1"),
        (_hang, "copy 0 hangs"),
    ],
)
def test_each_fault_is_found_and_numbered(
    tmp_path, source, monkeypatch, read, words
):
  monkeypatch.setattr(fuzzing, "_MOST_SECONDS", 4.0)
  with pytest.raises(AssertionError, match=words):
    fuzzing.check(read, [source], tmp_path, seconds=30)


def test_a_refusal_is_no_fault(tmp_path, source):
  assert fuzzing.check(_refuse, [source], tmp_path, seconds=0.3) > 10


def test_one_file_of_a_folder_is_damaged(tmp_path):
  for name in ("b", "c/d"):
    path = tmp_path / "source" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a" * 50)
  damaged = set()
  for seed in range(20):
    target = tmp_path / "target"
    rng = np.random.default_rng(seed)
    fuzzing.write_mutant(tmp_path / "source", target, rng)
    for name in ("b", "c/d"):
      file = target / name
      if not file.exists() or file.read_bytes() != b"a" * 50:
        damaged.add(name)
  assert damaged == {"b", "c/d"}
