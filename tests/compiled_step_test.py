"""A step compiled for devices that are there, and for some that are not."""

import importlib.util

import jax
import pytest
from tiny import tiny_config

from chain_jax import (
    compiled_program,
    compiled_step,
    errors,
    modelled_step,
    sharding,
)

_NEEDS_LIBTPU = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="needs the libtpu wheel: pip install libtpu",
)


@pytest.fixture(scope="module")
def on_cpu():
  config = tiny_config(loss__frame_order=0.0, augment__mix_max=0.0)
  return compiled_step.compile_step(config, jax.devices()[:4])


def test_gradients_are_summed_over_the_devices(on_cpu):
  counts = compiled_program.count_collectives(on_cpu.movement)
  config = tiny_config()
  mesh = sharding.make_mesh(jax.devices()[:1])
  state = compiled_step.abstract_inputs(config, mesh)[0]
  params = sum(4 * leaf.size for leaf in jax.tree.leaves(state.params))
  # At least every parameter's gradient, in float32, is summed once.
  assert counts["all-reduce"][1] >= params
  assert all(one.group_size == 4 for one in on_cpu.movement.collectives)


def _num_bytes(tree):
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def test_memory_is_that_of_state_and_batch_and_more(on_cpu):
  # Parameters and two moments of Adam in float32, a quarter of the batch.
  config = tiny_config()
  mesh = sharding.make_mesh(jax.devices()[:4])
  state, batch = compiled_step.abstract_inputs(config, mesh)
  expected = _num_bytes(state) + _num_bytes(batch) / 4
  # Small arrays are padded; an unused one is left out.
  assert on_cpu.argument_bytes == pytest.approx(expected, rel=0.02)
  assert on_cpu.temp_bytes > 0


def test_devices_that_cannot_share_the_batch_are_refused_in_a_line():
  with pytest.raises(errors.InputError, match="got 30; try 28") as caught:
    compiled_step.compile_step(
        tiny_config(train__batch_size=30), jax.devices()[:4]
    )
  assert "\n" not in str(caught.value)


def test_without_the_wheel_the_way_out_is_named(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(errors.InputError, match="pip install libtpu"):
    compiled_step.describe_devices("v5e:2x2")


def test_a_failure_of_the_compiler_is_not_called_a_lack_of_memory(monkeypatch):
  def fail(*_):
    raise jax.errors.JaxRuntimeError("INTERNAL: a bug\nand a long story")

  monkeypatch.setattr(compiled_step, "trace_step", fail)
  with pytest.raises(errors.RunError, match="INTERNAL: a bug$"):
    compiled_step.compile_step(tiny_config(), jax.devices()[:1])


@pytest.mark.tpu_compile
@_NEEDS_LIBTPU
class TestForTpu:

  def test_a_small_step_compiles_and_fits(self):
    devices = compiled_step.describe_devices("v5e:2x2")
    step = compiled_step.compile_step(tiny_config(), devices)
    assert (step.num_devices, step.device_kind) == (4, "TPU v5 lite")
    assert modelled_step.fits(step)
    assert 0 < step.memory_bytes < 2**30
    assert "all-reduce" in compiled_program.count_collectives(step.movement)

  def test_a_batch_that_is_too_large_is_said_not_to_fit(self):
    config = tiny_config(data__feature_dim=65536, data__num_frames=64)
    # 256 videos a chip of 2 x 64 x 65536 float32: 8.6 GB before the first
    # operation, which cannot be done in place.
    config.train.batch_size = 1024
    devices = compiled_step.describe_devices("v5e:2x2")
    step = compiled_step.compile_step(config, devices)
    assert step.too_large.startswith("needs ")
    assert step.too_large.endswith(" of 15.75G")
    assert not modelled_step.fits(step)

  def test_a_chip_of_two_cores_is_one_device(self):
    assert len(compiled_step.describe_devices("v4:2x2x4")) == 16

  @pytest.mark.parametrize("topology", ["v9:2x2", "v5e:3x5", "v5e", ""])
  def test_an_unknown_slice_is_refused_and_known_ones_named(self, topology):
    with pytest.raises(errors.InputError, match="v5e:16x16") as caught:
      compiled_step.describe_devices(topology)
    assert "\n" not in str(caught.value)

  @pytest.mark.parametrize("topology", compiled_step.KNOWN_TOPOLOGIES)
  def test_every_known_slice_is_there(self, topology):
    shape = topology.partition(":")[2].split("x")
    num_chips = 1
    for length in shape:
      num_chips *= int(length)
    assert len(compiled_step.describe_devices(topology)) == num_chips
