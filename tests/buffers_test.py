"""Memory is used again when nobody refers to it, and never before."""

import jax
import numpy as np
import pytest

from chain_jax.data import buffers

_SHAPE = (3, 700, 1024)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
  monkeypatch.setattr(buffers, "_waiting", {})


def _address(array):
  return array.__array_interface__["data"][0]


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_memory_that_is_free_serves_the_next_array(dtype):
  first = buffers.empty(_SHAPE, np.dtype(dtype))
  assert first.shape == _SHAPE and first.dtype == dtype
  assert first.flags.writeable and first.flags.c_contiguous
  address = _address(first)
  del first
  again = buffers.empty(_SHAPE, np.dtype(dtype))
  assert _address(again) == address


@pytest.mark.parametrize(
    "keep",
    [
        lambda array: array,
        lambda array: array[1:2, ::2],
        lambda array: array.reshape(-1)[5:].view(np.uint8),
        lambda array: memoryview(array),
        jax.numpy.asarray,
    ],
    ids=["itself", "slice", "view", "memoryview", "jax"],
)
def test_memory_that_anything_refers_to_is_left_alone(keep):
  array = buffers.empty(_SHAPE, np.dtype(np.float32))
  array[:] = 7
  kept = keep(array)
  expected = np.array(kept)
  del array
  other = buffers.empty(_SHAPE, np.dtype(np.float32))
  other[:] = 9
  np.testing.assert_array_equal(np.asarray(kept), expected, strict=True)


def test_only_a_few_pieces_wait():
  arrays = [buffers.empty(_SHAPE, np.dtype(np.uint8)) for _ in range(9)]
  del arrays
  (waiting,) = buffers._waiting.values()
  assert len(waiting) == 4


def test_small_arrays_are_left_to_numpy():
  buffers.empty((10,), np.dtype(np.float32))
  assert not buffers._waiting
