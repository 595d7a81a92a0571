"""Where arrays lie: a mesh of all devices, the batch and wide layers split."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from chain_jax.errors import InputError

DATA_AXIS = "data"
MODEL_AXIS = "model"

# The end of a parameter's name -> which of its axes is split over `model`;
# what is not here is whole on every device. Of two layers in a row the first
# is split by its outputs and the second by its inputs, so that the devices
# meet only in the second's sum: arXiv:1909.08053, Sec. 3. Parameters of the
# blocks have the scanned layer as their first axis.
_SPLIT_AXES = {
    ("blocks", "attention", "qkv", "kernel"): 2,
    ("blocks", "attention", "qkv", "bias"): 1,
    ("blocks", "attention", "out", "kernel"): 1,
    ("blocks", "mlp_in", "kernel"): 2,
    ("blocks", "mlp_in", "bias"): 1,
    ("blocks", "mlp_out", "kernel"): 1,
    # The features are whole on every device, so no one waits for them.
    ("projection", "kernel"): 0,
    ("deviation_projection", "kernel"): 0,
    ("hash_layer", "hidden", "kernel"): 1,
    ("hash_layer", "hidden", "bias"): 0,
    # VGG-16: 103 of its 117 million parameters.
    ("classifier_0", "kernel"): 1,
    ("classifier_0", "bias"): 0,
}


def make_mesh(
    devices: list[Any] | None = None, *, model_parallel: int = 1
) -> Mesh:
  """Makes a mesh with the axes `data` and `model` over all devices.

  Args:
    devices: The devices to use; those of all hosts, when None.
    model_parallel: Devices that share one copy of the wide layers; they are
      neighbours of one host.

  Returns:
    The mesh. Devices stand in it host by host, so that a host's rows of a
    batch follow each other, whatever the machine. Its axes are Auto: the
    compiler places what is not annotated.

  Raises:
    InputError: If `model_parallel` does not divide the devices of a host.
  """
  devices = jax.devices() if devices is None else devices
  devices = sorted(devices, key=lambda one: (one.process_index, one.id))
  hosts = [one.process_index for one in devices]
  if any(hosts.count(host) % model_parallel for host in set(hosts)):
    raise InputError(
        "`sharding.model_parallel` must divide the"
        f" {hosts.count(hosts[0])} devices of a host, got {model_parallel}; 1"
        " keeps the whole model on every device."
    )
  grid = np.array(devices).reshape(-1, model_parallel)
  return Mesh(
      grid, (DATA_AXIS, MODEL_AXIS), axis_types=(AxisType.Auto, AxisType.Auto)
  )


def data_size(mesh: Mesh) -> int:
  """Returns into how many parts a batch is split."""
  return mesh.shape[DATA_AXIS]


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Splits the leading axis over `data`."""
  return NamedSharding(mesh, P(DATA_AXIS))


def rounds_sharding(mesh: Mesh) -> NamedSharding:
  """Splits the second axis over `data`: the first is the rounds of a step."""
  return NamedSharding(mesh, P(None, DATA_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
  """Keeps a whole copy on every device."""
  return NamedSharding(mesh, P())


def parameter_shardings(tree: Any, mesh: Mesh) -> Any:
  """Decides by name and shape where each array of a state lies.

  An optimizer's moments have the names of their parameters and lie with
  them. An axis that the devices do not divide stays whole.

  Args:
    tree: Arrays or their shapes, under the names of the parameters.
    mesh: The mesh.

  Returns:
    The tree with a `NamedSharding` for each array.
  """
  return jax.tree_util.tree_map_with_path(
      lambda path, leaf: _sharding(path, leaf.shape, mesh), tree
  )


def constrain(tree: Any, mesh: Mesh) -> Any:
  """Tells the compiler, inside jit, where the arrays of a state lie."""
  return jax.tree.map(
      jax.lax.with_sharding_constraint, tree, parameter_shardings(tree, mesh)
  )


def _sharding(
    path: tuple[Any, ...], shape: tuple[int, ...], mesh: Mesh
) -> NamedSharding:
  name = tuple(str(getattr(part, "key", "")) for part in path)
  for ending, axis in _SPLIT_AXES.items():
    if name[-len(ending) :] == ending:
      if shape[axis] % mesh.shape[MODEL_AXIS] == 0:
        return NamedSharding(mesh, P(*[None] * axis, MODEL_AXIS))
  return replicated(mesh)


def to_global(host_rows: Any, mesh: Mesh) -> Any:
  """Joins the rows of every host into global arrays.

  Args:
    host_rows: A tree of numpy arrays, this host's rows of each.
    mesh: The mesh.

  Returns:
    The tree with global `jax.Array`s, split over `data`.
  """
  sharding = batch_sharding(mesh)
  return jax.tree.map(
      lambda rows: jax.make_array_from_process_local_data(sharding, rows),
      host_rows,
  )
