"""Damaged HDF5 files end in a line, whatever the damage."""

import functools

import fuzzing
import h5py
import numpy as np

from chain_jax.data import feature_files
from chain_jax.data.hdf5_source import Hdf5Source

_LAYOUTS = {
    "contiguous": {},
    "a chunk a video": {"chunks": (1, 3, 4), "compression": "gzip"},
    "chunks across videos": {"chunks": (4, 2, 3), "shuffle": True},
}


def _write(folder):
  rng = np.random.default_rng(0)
  for layout, settings in _LAYOUTS.items():
    for version in ("earliest", "latest"):
      path = folder / f"{layout}, {version}.h5"
      with h5py.File(path, "w", libver=version) as file:
        features = rng.random((7, 3, 4)).astype(np.float16)
        file.create_dataset("feats", data=features, **settings)
        ids = [f"video {row}" for row in range(7)]
        file["ids"] = ids if version == "latest" else np.array(ids, "S")
        file["labels"] = np.arange(7)
      yield path


def _read(open_file, path):
  source = open_file(path)
  for row in range(len(source)):
    source.read_frames(row)


def _open_source(path):
  return Hdf5Source(path, labels=None)


def test_a_damaged_set_reads_or_is_refused(tmp_path, fuzz_seconds):
  sources = list(_write(tmp_path))
  read = functools.partial(_read, _open_source)
  assert fuzzing.check(read, sources, tmp_path, seconds=fuzz_seconds)


def test_a_damaged_file_to_prepare_reads_or_is_refused(tmp_path, fuzz_seconds):
  sources = list(_write(tmp_path))
  read = functools.partial(_read, feature_files.open_feature_file)
  assert fuzzing.check(read, sources, tmp_path, seconds=fuzz_seconds)
