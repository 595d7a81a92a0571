"""Label matrices in MATLAB files that are damaged, or larger than they look."""

import io
import struct
import zlib

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from chain_jax import guarded
from chain_jax.data import field_files
from chain_jax.errors import InputError


@pytest.fixture
def path(tmp_path):
  return tmp_path / "l.mat"


def _read(path):
  return field_files.read_label_matrix(path, key="labels")


def _refused(path, match):
  with pytest.raises(InputError, match=match) as caught:
    _read(path)
  assert str(path) in str(caught.value)


def _saved(matrix):
  file = io.BytesIO()
  scipy.io.savemat(file, {"labels": matrix})
  return bytearray(file.getvalue())


def test_a_small_file_that_unpacks_to_much_is_refused(path, monkeypatch):
  monkeypatch.setattr(guarded, "_LEAST_MEMORY_BYTES", 2**20)
  matrix = np.zeros((4000, 10000), np.uint8)
  matrix[0, 0] = 1
  data = _saved(matrix)
  packed = zlib.compress(memoryview(data)[128:], 9)
  assert data[144] == 9  # The class of the matrix: uint8.
  path.write_bytes(data[:128] + struct.pack("<II", 15, len(packed)) + packed)
  assert path.stat().st_size < 4 * 10**4
  _refused(path, r"needs more than \d\d MiB of memory")


def test_as_many_labels_as_memory_does_not_hold_are_refused(path):
  # 20 MB unpacked, and 16 bytes a label.
  matrix = np.ones((2000, 10000), np.uint8)
  scipy.io.savemat(path, {"labels": matrix}, do_compression=True)
  assert path.stat().st_size < 10**5
  _refused(path, r"needs more than \d\d MiB of memory")


def _sparse(shape=(5, 3)):
  return scipy.sparse.csc_array(
      (np.ones(3), ([1, 4, 2], [1, 1, 2])), shape=shape
  )


def test_rows_of_a_sparse_matrix_that_are_not_there_are_refused(path):
  data = _saved(_sparse())
  rows = struct.pack("<3i", 1, 4, 2)
  assert data.count(rows) == 1
  path.write_bytes(data.replace(rows, struct.pack("<3i", 1, 4, 2**30)))
  _refused(path, "could not be read")


@pytest.mark.parametrize("shape", [(5, 2**31 - 1), (2**31 - 1, 3)])
def test_a_sparse_matrix_of_endless_size_is_refused(path, shape):
  if shape[1] > 3:  # The ends of so many columns would fill the file.
    data = _saved(_sparse())
    dims = struct.pack("<2i", 5, 3)
    place = data.rindex(dims)  # Before them, the class and the size.
    data[place : place + 8] = struct.pack("<2i", *shape)
    path.write_bytes(data)
  else:
    path.write_bytes(_saved(_sparse(shape)))
  _refused(path, "could not be read")


@pytest.mark.parametrize("order", "<>")
def test_a_matlab_4_file_is_read(path, order):
  matrix = np.array([[0, 1], [1, 1], [0, 0]], np.float64)
  header = struct.pack(f"{order}5i", 1000 * (order == ">"), 3, 2, 0, 7)
  values = matrix.astype(f"{order}f8").tobytes(order="F")
  path.write_bytes(header + b"labels\0" + values)
  labels = _read(path)
  assert [labels.of(row).tolist() for row in range(3)] == [[1], [0, 1], []]


def test_a_sparse_matrix_with_zeros_in_it_is_read(path):
  matrix = _sparse()
  matrix.data[1] = 0
  scipy.io.savemat(path, {"labels": matrix})
  labels = _read(path)
  assert [labels.of(row).tolist() for row in range(5)] == [[], [1], [2], [], []]
  assert labels.num_classes == 3


@pytest.mark.parametrize(
    "value", [{"a": 1}, np.array([[1, "a"]], object), "text"], ids=str
)
def test_what_is_no_matrix_of_numbers_is_refused(path, value):
  scipy.io.savemat(path, {"labels": value})
  _refused(path, "must be a matrix of numbers")
