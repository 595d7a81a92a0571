"""Where arrays lie: one mesh of all devices, the batch split over it."""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

DATA_AXIS = "data"


def make_mesh(devices: list[Any] | None = None) -> Mesh:
  """Makes a mesh with the one axis `data` over all devices of all hosts.

  Args:
    devices: The devices to use; all, when None.

  Returns:
    The mesh. Its axis is Auto: the compiler places what is not annotated.
  """
  devices = jax.devices() if devices is None else devices
  return jax.make_mesh(
      (len(devices),),
      (DATA_AXIS,),
      axis_types=(AxisType.Auto,),
      devices=devices,
  )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Splits the leading axis over the devices."""
  return NamedSharding(mesh, P(DATA_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
  """Keeps a whole copy on every device: all parameters, so far."""
  return NamedSharding(mesh, P())


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
