"""Log-sum-exp of each row's negatives, blocks of rows passed around a ring.

Every device keeps its own rows and sees each other device's once a pass. No
device holds the global batch, nor more than one tile of logits.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Float32

from chain_jax.losses import contrastive_tiles as tiles


def ring_log_negatives(
    vectors: Float32[Array, "batch 2 dim"],
    *,
    mesh: Mesh,
    axis: str,
    tile_size: int,
) -> Float32[Array, "batch 2"]:
  """Computes log(sum(exp(v . n))) over the views n of all other videos.

  Args:
    vectors: Two views of each video of the global batch; their inner products
      are the logits. The batch is split over `axis`, or will be.
    mesh: Its other axes hold copies.
    axis: Of the mesh; its devices must divide the batch.
    tile_size: Rows and columns of a tile of logits, > 0.

  Returns:
    One value a view, split as the batch, with an exact gradient.

  Source: a ring of devices for a contrastive loss, arXiv:2410.17243, Sec. 3.
  Differs: symmetric logits, so each row's gradient is made at home and no
  gradients travel.
  """
  return _ring(vectors, mesh, axis, tile_size)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _ring(vectors, mesh, axis, tile_size):
  def on_device(vectors, videos):
    rows = tiles.make_block(vectors, videos, tile_size)
    running = _pass_around(
        lambda running, columns: tiles.add_log_sum(running, rows, columns),
        tiles.start_log_sum(rows),
        rows,
        axis,
    )
    return tiles.from_tiles(tiles.log_sum(running), vectors.shape[:2])

  # The videos' numbers travel too: no device needs to know its place.
  return _on_each_device(on_device, mesh, axis)(
      vectors, tiles.video_indices(vectors)
  )


def _ring_forward(vectors, mesh, axis, tile_size):
  log_negatives = _ring(vectors, mesh, axis, tile_size)
  return log_negatives, (vectors, log_negatives)


def _ring_backward(mesh, axis, tile_size, saved, slopes):
  vectors, log_negatives = saved

  def on_device(vectors, videos, log_negatives, slopes):
    rows = tiles.make_block(vectors, videos, tile_size)
    cotangents = tiles.make_cotangents(log_negatives, slopes, tile_size)
    gradient = _pass_around(
        lambda gradient, columns: tiles.add_gradient(
            gradient, rows, cotangents, *columns
        ),
        jnp.zeros_like(rows.vectors),
        (rows, cotangents),
        axis,
    )
    return tiles.from_tiles(gradient, vectors.shape)

  gradient = _on_each_device(on_device, mesh, axis)(
      vectors, tiles.video_indices(vectors), log_negatives, slopes
  )
  return (gradient,)


_ring.defvjp(_ring_forward, _ring_backward)


def _on_each_device(
    function: Callable[..., Array], mesh: Mesh, axis: str
) -> Callable[..., Array]:
  return jax.shard_map(
      function,
      mesh=mesh,
      in_specs=P(axis),
      out_specs=P(axis),
      axis_names={axis},
  )


def _pass_around(
    add_block: Callable[[Any, Any], Any], carry: Any, block: Any, axis: str
) -> Any:
  """Folds every device's block into the carry, the own one first."""
  num_devices = jax.lax.axis_size(axis)
  to_next = [(i, (i + 1) % num_devices) for i in range(num_devices)]

  def step(_, state):
    carry, block = state
    # Sent before it is used: the next block travels while this one is added.
    coming = jax.lax.ppermute(block, axis, to_next)
    return add_block(carry, block), coming

  carry, block = jax.lax.fori_loop(0, num_devices - 1, step, (carry, block))
  return add_block(carry, block)
