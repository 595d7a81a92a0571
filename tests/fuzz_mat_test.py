"""Damaged MATLAB files end in a line, whatever the damage."""

import fuzzing
import numpy as np
import scipy.io
import scipy.sparse

from chain_jax.data import field_files


def _write(folder):
  matrix = np.eye(5, dtype=np.uint8)[np.arange(30) % 5]
  sparse = scipy.sparse.csc_array(matrix.astype(np.float64))
  for name, labels in {"dense": matrix, "sparse": sparse}.items():
    for kind, settings in {
        "5": {},
        "packed": {"do_compression": True},
        "4": {"format": "4"},
    }.items():
      path = folder / f"{name} {kind}.mat"
      scipy.io.savemat(path, {"labels": labels, "b": "text"}, **settings)
      yield path


def _read(path):
  field_files.read_label_matrix(path, key="labels")


def test_a_damaged_matrix_reads_or_is_refused(tmp_path, fuzz_seconds):
  sources = list(_write(tmp_path))
  assert fuzzing.check(_read, sources, tmp_path, seconds=fuzz_seconds)
