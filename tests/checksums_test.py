"""Checksums name the bits of an array, wherever its parts lie."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from chain_jax import checksums, sharding

_DTYPES = [np.float32, np.int32, np.uint8, np.bool_, ml_dtypes.bfloat16]


def _values(dtype, shape=(4, 6)):
  return (np.random.default_rng(3).random(shape) * 200).astype(dtype)


def _slow_checksum(values):
  """Adds up in Python's integers, one element after the other."""
  values = np.ascontiguousarray(values)
  size = values.dtype.itemsize
  total = 0
  for position, one in enumerate(values.reshape(-1)):
    bits = int.from_bytes(one.tobytes(), "little") % 2 ** (8 * size)
    total += (bits + 1) * (position * 2654435761 % 2**32 | 1)
  return total % 2**32


@pytest.mark.parametrize("dtype", _DTYPES)
def test_a_checksum_is_the_weighted_sum_of_the_bits(dtype):
  values = _values(dtype)
  found = checksums.of_leaves({"a": jnp.asarray(values), "b": jnp.float32(1)})
  assert found["['a']"] == _slow_checksum(values)
  assert found["['b']"] == _slow_checksum(np.float32(1))


@pytest.mark.parametrize("model_parallel", [1, 2, 4])
@pytest.mark.parametrize("spec", [P(), P("model"), P("data", "model")])
def test_a_checksum_is_the_same_on_any_mesh(model_parallel, spec):
  values = _values(np.float32, (8, 8))
  mesh = sharding.make_mesh(model_parallel=model_parallel)
  placed = jax.device_put(values, NamedSharding(mesh, spec))
  assert checksums.of_leaves([placed])["[0]"] == _slow_checksum(values)


@settings(max_examples=50, deadline=None)
@given(place=st.integers(0, 23), bit=st.integers(0, 31))
def test_any_one_flipped_bit_changes_it(place, bit):
  values = _values(np.float32)
  before = checksums.of_leaves([jnp.asarray(values)])
  values.reshape(-1).view(np.uint32)[place] ^= np.uint32(2**bit)
  assert checksums.of_leaves([jnp.asarray(values)]) != before


def test_swapped_rows_and_another_length_change_it():
  values = _values(np.float32)
  found = {
      checksums.of_leaves([jnp.asarray(one)])["[0]"]
      for one in (values, values[::-1], np.zeros(4), np.zeros(5))
  }
  assert len(found) == 4
