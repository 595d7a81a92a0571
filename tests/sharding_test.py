"""Where arrays lie: rows stay in order, whatever the number of devices."""

import jax
import numpy as np
import pytest

from chain_jax import sharding


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_a_mesh_has_one_axis_over_the_devices_given(num_devices):
  devices = jax.devices()[:num_devices]
  mesh = sharding.make_mesh(devices)
  assert dict(mesh.shape) == {"data": num_devices}
  assert list(mesh.devices.flat) == devices


def test_a_mesh_takes_all_devices_unless_told():
  assert sharding.make_mesh().size == jax.device_count() == 8


@pytest.mark.parametrize("num_devices", [1, 4, 8])
def test_rows_lie_on_the_devices_in_order(num_devices):
  mesh = sharding.make_mesh(jax.devices()[:num_devices])
  rows = np.arange(16, dtype=np.int32)
  placed = sharding.to_global({"rows": rows}, mesh)["rows"]
  np.testing.assert_array_equal(np.asarray(placed), rows, strict=True)
  by_device = {
      shard.device: np.asarray(shard.data)
      for shard in placed.addressable_shards
  }
  for device, expected in zip(
      mesh.devices.flat, np.split(rows, num_devices), strict=True
  ):
    np.testing.assert_array_equal(by_device[device], expected, strict=True)


def test_a_batch_is_split_in_the_order_of_devices_and_so_of_hosts():
  # Devices come host by host, so host 0's rows are the first of the batch.
  indices = sharding.batch_sharding(sharding.make_mesh()).devices_indices_map(
      (8,)
  )
  starts = [indices[device][0].start or 0 for device in jax.devices()]
  assert starts == list(range(8))


def test_a_replicated_array_is_whole_on_every_device():
  mesh = sharding.make_mesh()
  array = jax.device_put(np.arange(3), sharding.replicated(mesh))
  assert len(array.addressable_shards) == 8
  for shard in array.addressable_shards:
    np.testing.assert_array_equal(np.asarray(shard.data), np.arange(3))


def test_the_compiler_may_multiply_split_rows():
  # Under an Explicit axis this product raises a ShardingTypeError.
  mesh = sharding.make_mesh()
  rows = sharding.to_global(np.eye(8, dtype=np.float32), mesh)
  product = jax.jit(lambda u: u @ u.T)(rows)
  np.testing.assert_array_equal(np.asarray(product), np.eye(8))
