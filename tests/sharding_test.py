"""Where arrays lie: rows stay in order, whatever the number of devices."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from chain_jax import errors, factories, sharding, train_state
from chain_jax.models.backbones import vgg16


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_a_mesh_spreads_the_batch_over_all_devices_given(num_devices):
  devices = jax.devices()[:num_devices]
  mesh = sharding.make_mesh(devices)
  assert dict(mesh.shape) == {"data": num_devices, "model": 1}
  assert list(mesh.devices.flat) == devices
  assert sharding.data_size(mesh) == num_devices


def test_neighbouring_devices_share_the_wide_layers():
  mesh = sharding.make_mesh(model_parallel=2)
  assert dict(mesh.shape) == {"data": 4, "model": 2}
  ids = [[device.id for device in row] for row in mesh.devices]
  assert ids == [[0, 1], [2, 3], [4, 5], [6, 7]]


@dataclasses.dataclass(frozen=True)
class _Device:
  process_index: int
  id: int
  platform: str = "tpu"


def _hosts(*counts):
  # In an order that a machine with a torus might list them in.
  rows = [
      _Device(host, 10 * host + place)
      for host, count in enumerate(counts)
      for place in range(count)
  ]
  return rows[::2] + rows[1::2]


def test_devices_stand_host_by_host_whatever_order_the_machine_lists_them_in():
  grid = sharding.make_mesh(_hosts(4, 4), model_parallel=2).devices
  assert [device.process_index for device in grid.flat] == [0] * 4 + [1] * 4
  assert [device.id for device in grid.flat] == [0, 1, 2, 3, 10, 11, 12, 13]


@pytest.mark.parametrize("model_parallel", [3, 4, 8])
def test_no_layer_is_shared_between_hosts(model_parallel):
  with pytest.raises(errors.InputError) as caught:
    sharding.make_mesh(_hosts(2, 2, 2, 2), model_parallel=model_parallel)
  line = str(caught.value)
  assert "`sharding.model_parallel`" in line
  assert f"the 2 devices of a host, got {model_parallel}" in line


def _shapes(**changes):
  config = tiny.tiny_config(
      model__hash_hidden_dim=24, model__frame_deviations=True, **changes
  )
  optimizer = factories.make_optimizer(config.optimizer, lambda step: 0.1)
  model = train_state.make_model(config.model)
  initialise = factories.make_initialiser(config, model, optimizer)
  return jax.eval_shape(initialise, 0)


# By hand: [layers, width 16, 3 * 16] and so on, one axis halved.
_HALVED = {
    "['blocks']['attention']['qkv']['kernel']": (1, 16, 24),
    "['blocks']['attention']['qkv']['bias']": (1, 24),
    "['blocks']['attention']['out']['kernel']": (1, 8, 16),
    "['blocks']['mlp_in']['kernel']": (1, 16, 8),
    "['blocks']['mlp_in']['bias']": (1, 8),
    "['blocks']['mlp_out']['kernel']": (1, 8, 16),
    "['projection']['kernel']": (12, 16),
    "['deviation_projection']['kernel']": (12, 16),
    "['hash_layer']['hidden']['kernel']": (16, 12),
    "['hash_layer']['hidden']['bias']": (12,),
}


def test_wide_layers_are_split_and_their_moments_with_them():
  shapes, mesh = _shapes(), sharding.make_mesh(model_parallel=2)
  places = sharding.parameter_shardings(shapes, mesh)
  whole = dict(_named(shapes, lambda leaf: leaf.shape))
  found = {
      name: place.shard_shape(whole[name])
      for name, place in _named(places, lambda place: place)
  }
  split = {name: part for name, part in found.items() if part != whole[name]}
  # Each once as a parameter and once in both moments of AdamW.
  assert len(split) == 3 * len(_HALVED)
  for ending, part in _HALVED.items():
    named = [value for name, value in split.items() if name.endswith(ending)]
    assert named == [part] * 3, ending


def test_the_decoder_is_split_as_the_encoder_is():
  config = tiny.tiny_config(
      loss__reconstruction=1.0, model__decoder_width=12, model__decoder_depth=1
  )
  optimizer = factories.make_optimizer(config.optimizer, lambda step: 0.1)
  model = factories.make_model(config)
  initialise = factories.make_initialiser(config, model, optimizer)
  shapes = jax.eval_shape(initialise, 0).params["decoder"]
  places = sharding.parameter_shardings(
      shapes, sharding.make_mesh(model_parallel=2)
  )
  whole = dict(_named(shapes, lambda leaf: leaf.shape))
  found = {
      name: place.shard_shape(whole[name])
      for name, place in _named(places, lambda place: place)
  }
  split = {name: part for name, part in found.items() if part != whole[name]}
  # By hand, of width 12: one axis of each is halved.
  blocks = "['mixer']['blocks']"
  assert split == {
      f"{blocks}['attention']['qkv']['kernel']": (1, 12, 18),
      f"{blocks}['attention']['qkv']['bias']": (1, 18),
      f"{blocks}['attention']['out']['kernel']": (1, 6, 12),
      f"{blocks}['mlp_in']['kernel']": (1, 12, 24),
      f"{blocks}['mlp_in']['bias']": (1, 24),
      f"{blocks}['mlp_out']['kernel']": (1, 24, 12),
  }


def _named(tree, value):
  return [
      (jax.tree_util.keystr(path), value(leaf))
      for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  ]


def test_a_layer_that_the_devices_do_not_divide_stays_whole():
  mesh = sharding.make_mesh(model_parallel=4)
  shapes = {"projection": {"kernel": jax.ShapeDtypeStruct((6, 8), "float32")}}
  place = sharding.parameter_shardings(shapes, mesh)["projection"]["kernel"]
  assert place.is_fully_replicated


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


def test_a_wide_backbone_gives_the_same_features_when_devices_share_it():
  model = vgg16.VGG16(block_widths=(4,), block_depths=(1,), feature_dim=6)
  rng = np.random.default_rng(0)
  images = rng.random((2, 8, 8, 3), np.float32)
  variables = jax.jit(model.init)(jax.random.key(0), images)
  expected = jax.jit(model.apply)(variables, images)
  mesh = sharding.make_mesh(model_parallel=2)
  shared = jax.device_put(
      variables, sharding.parameter_shardings(variables, mesh)
  )
  kernel = shared["params"]["classifier_0"]["kernel"]
  assert {part.data.shape for part in kernel.addressable_shards} == {(64, 3)}
  actual = jax.jit(model.apply)(shared, images)
  # Sums of 64 products in float32, in another order perhaps.
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
