"""Checksums of arrays, computed where they lie, equal on any mesh."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Shaped, UInt32

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def of_leaves(tree: Any) -> dict[str, int]:
  """Returns a checksum of every array of a tree, by its path.

  Args:
    tree: Arrays on the devices, in any sharding, of at most 4 bytes an
      element.

  Returns:
    Numbers below 2^32. They depend on the values alone: every device sums what
    it holds, modulo 2^32, so that no order or split changes a bit.

  >>> of_leaves({"step": jnp.array(2, jnp.int32)})
  {"['step']": 3}
  """
  paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
  leaves = jax.tree.leaves(tree)
  found = np.asarray(_make_sums(leaves[0].sharding)(leaves))
  return {
      jax.tree_util.keystr(path): int(number)
      for path, number in zip(paths, found, strict=True)
  }


@functools.lru_cache(maxsize=8)
def _make_sums(sharding: jax.sharding.Sharding) -> Callable[..., jax.Array]:
  """Makes the jitted sums, whole on every process, for arrays of one mesh."""
  whole = sharding
  if isinstance(sharding, NamedSharding):
    whole = NamedSharding(sharding.mesh, P())
  return jax.jit(
      lambda leaves: jnp.stack([_sum(leaf) for leaf in leaves]),
      out_shardings=whole,
  )


def _sum(values: Shaped[Array, "..."]) -> UInt32[Array, ""]:
  """Sums bits times odd weights: any one flipped bit changes the sum."""
  if values.dtype == bool:
    values = values.astype(jnp.uint8)
  unsigned = _UNSIGNED[values.dtype.itemsize]
  bits = jax.lax.bitcast_convert_type(values, unsigned).astype(jnp.uint32)
  position = jnp.zeros(values.shape, jnp.uint32)
  for axis in range(values.ndim):
    stride = jnp.uint32(math.prod(values.shape[axis + 1 :]) % 2**32)
    position += stride * jax.lax.broadcasted_iota(
        jnp.uint32, values.shape, axis
    )
  # An odd constant near 2^32 / golden ratio spreads the positions: Knuth, 6.4.
  weights = (position * jnp.uint32(2654435761)) | 1
  # One more, so that zeros count too: a longer or shorter array differs.
  return jnp.sum((bits + 1) * weights, dtype=jnp.uint32)
