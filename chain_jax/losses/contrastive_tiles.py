"""Log-sum-exp of each row's negatives, one tile of logits at a time.

Neither pass keeps a logit: the forward pass holds a running log-sum-exp a row,
the backward pass computes every tile again. Memory grows with the rows.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float32, Int

# Below any logit but finite: differences of two of it are no NaN.
_LOWEST = -1e30
_NO_VIDEO = -1  # Of the rows that fill up the last tile.


class Block(NamedTuple):
  """Rows in tiles; a row is one view of one video."""

  vectors: Float32[Array, "tiles tile dim"]
  videos: Int[Array, "tiles tile"]  # Whose view; -1 where there is none.


class RunningLogSum(NamedTuple):
  """The log-sum-exp of the logits seen so far: `highest + log(total)`."""

  highest: Float32[Array, "*rows"]
  total: Float32[Array, "*rows"]


class Cotangents(NamedTuple):
  """What a block's gradient needs beside its vectors."""

  log_negatives: Float32[Array, "tiles tile"]
  slopes: Float32[Array, "tiles tile"]  # d loss / d log_negatives


def tiled_log_negatives(
    vectors: Float32[Array, "batch 2 dim"], *, tile_size: int
) -> Float32[Array, "batch 2"]:
  """Computes log(sum(exp(v . n))) over the views n of all other videos.

  Args:
    vectors: Two views of each video; their inner products are the logits.
    tile_size: Rows and columns of a tile of logits, > 0.

  Returns:
    One value a view, with an exact gradient; right on any number of devices,
    meant for one.

  Source: the running log-sum-exp of arXiv:1805.02867, Alg. 3; recomputing
  the logits of a contrastive loss, arXiv:2410.17243, Sec. 3.
  """
  return _tiled(vectors, tile_size)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _tiled(vectors, tile_size):
  block = make_block(vectors, video_indices(vectors), tile_size)
  running = add_log_sum(start_log_sum(block), block, block)
  return from_tiles(log_sum(running), vectors.shape[:2])


def _tiled_forward(vectors, tile_size):
  log_negatives = _tiled(vectors, tile_size)
  return log_negatives, (vectors, log_negatives)


def _tiled_backward(tile_size, saved, slopes):
  vectors, log_negatives = saved
  block = make_block(vectors, video_indices(vectors), tile_size)
  cotangents = make_cotangents(log_negatives, slopes, tile_size)
  gradient = add_gradient(
      jnp.zeros_like(block.vectors), block, cotangents, block, cotangents
  )
  return (from_tiles(gradient, vectors.shape),)


_tiled.defvjp(_tiled_forward, _tiled_backward)


def video_indices(
    vectors: Float32[Array, "batch 2 dim"],
) -> Int[Array, "batch 2"]:
  """Numbers the video of each view by its row of the batch."""
  return jax.lax.broadcasted_iota(jnp.int32, vectors.shape[:2], 0)


def make_block(
    vectors: Float32[Array, "batch 2 dim"],
    videos: Int[Array, "batch 2"],
    tile_size: int,
) -> Block:
  """Lays the views out in equal tiles of at most `tile_size` rows."""
  return Block(
      _to_tiles(vectors, tile_size),
      _to_tiles(videos, tile_size, fill=_NO_VIDEO),
  )


def make_cotangents(
    log_negatives: Float32[Array, "batch 2"],
    slopes: Float32[Array, "batch 2"],
    tile_size: int,
) -> Cotangents:
  """Lays what the forward pass gave out in the tiles of `make_block`."""
  return Cotangents(
      _to_tiles(log_negatives, tile_size), _to_tiles(slopes, tile_size)
  )


def start_log_sum(rows: Block) -> RunningLogSum:
  """Returns the log-sum-exp of nothing, one for each row."""
  # From the rows, not from a shape: under shard_map it varies as they do.
  zero = jnp.zeros_like(rows.vectors[..., 0])
  return RunningLogSum(zero + _LOWEST, zero)


def add_log_sum(
    running: RunningLogSum, rows: Block, columns: Block
) -> RunningLogSum:
  """Adds the logits of all rows with all columns, tile by tile."""

  def add_tile(running, row_tile, column_tile):
    logits = _tile_logits(row_tile, column_tile)
    highest = jnp.maximum(running.highest, jnp.max(logits, axis=-1))
    scaled = running.total * jnp.exp(running.highest - highest)
    new = jnp.sum(jnp.exp(logits - highest[:, None]), axis=-1)
    return RunningLogSum(highest, scaled + new)

  return _for_each_tile(add_tile, running, rows, columns)


def log_sum(running: RunningLogSum) -> Float32[Array, "tiles tile"]:
  """Returns the log-sum-exp so far."""
  return running.highest + jnp.log(running.total)


def add_gradient(
    gradient: Float32[Array, "tiles tile dim"],
    rows: Block,
    row_cotangents: Cotangents,
    columns: Block,
    column_cotangents: Cotangents,
) -> Float32[Array, "tiles tile dim"]:
  """Adds what these columns contribute to the gradient of the rows.

  A logit counts for its row and, by symmetry, for its column. With both here
  a row's gradient is made where the row is, and nothing is sent back.

  Args:
    gradient: So far.
    rows: The vectors that the gradient is of.
    row_cotangents: Of the rows.
    columns: Any block of vectors.
    column_cotangents: Of the columns.

  Returns:
    The gradient with this block's part.
  """

  def add_tile(gradient, row_tile, column_tile):
    (row, row_cotangent), (column, column_cotangent) = row_tile, column_tile
    logits = _tile_logits(row, column)
    slope = _share(logits, jax.tree.map(lambda x: x[:, None], row_cotangent))
    slope += _share(logits, column_cotangent)
    return gradient + _matmul(slope, column.vectors)

  return _for_each_tile(
      add_tile, gradient, (rows, row_cotangents), (columns, column_cotangents)
  )


def from_tiles(values: Float32[Array, "tiles tile *"], shape: Any) -> Array:
  """Undoes the layout of `make_block`: `shape` is [batch, 2, ...]."""
  flat = values.reshape(-1, *shape[2:])
  return flat[: 2 * shape[0]].reshape(shape)


def _to_tiles(values, tile_size, fill=0):
  flat = values.reshape(-1, *values.shape[2:])  # [batch * 2, ...]
  num_tiles = -(-len(flat) // tile_size)
  # Equal tiles: fewer rows of padding than tiles.
  tile = -(-len(flat) // num_tiles)
  padding = [(0, num_tiles * tile - len(flat))] + [(0, 0)] * (flat.ndim - 1)
  padded = jnp.pad(flat, padding, constant_values=fill)
  return padded.reshape(num_tiles, tile, *flat.shape[1:])


def _for_each_tile(add_tile, carry, rows, columns):
  def add_columns(_, row_tile):
    carry_tile, row = row_tile

    def add_column(carry_tile, column):
      return add_tile(carry_tile, row, column), None

    return None, jax.lax.scan(add_column, carry_tile, columns)[0]

  return jax.lax.scan(add_columns, None, (carry, rows))[1]


def _tile_logits(rows, columns):
  logits = _matmul(rows.vectors, columns.vectors.T)
  row, column = rows.videos[:, None], columns.videos[None]
  is_negative = (row != column) & (row >= 0) & (column >= 0)
  return jnp.where(is_negative, logits, -np.inf)


def _share(logits, cotangents):
  """Slope of the loss at each logit through one log-sum-exp."""
  return cotangents.slopes * jnp.exp(logits - cotangents.log_negatives)


def _matmul(left, right):
  # HIGHEST: accelerators would otherwise round the factors to bfloat16.
  return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)
