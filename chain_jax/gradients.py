"""Gradients of a loss on the whole batch, in one round or in several."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from chain_jax import sharding

# (params, part of the batch, rng) -> what the model says of each row.
Apply = Callable[[Any, Any, jax.Array], Any]
# (params, what the model says of all rows, batch) -> (loss, metrics).
Loss = Callable[[Any, Any, Any], tuple[jax.Array, dict[str, jax.Array]]]


def num_rounds(
    *, batch_size: int, num_parts: int, device_batch_size: int
) -> int:
  """Returns in how many rounds a batch goes through the model.

  Args:
    batch_size: Of the whole batch.
    num_parts: Parts that it is split into over devices; divides it.
    device_batch_size: Rows a part may hold in a round; 0 = all.

  >>> num_rounds(batch_size=64, num_parts=2, device_batch_size=10)
  4
  """
  rows = batch_size // num_parts
  if not device_batch_size:
    return 1
  return next(
      rounds
      for rounds in range(1, rows + 1)
      if rows % rounds == 0 and rows // rounds <= device_batch_size
  )


def make_gradients(
    apply: Apply, loss: Loss, *, rounds: int, mesh: Mesh
) -> Callable[..., Any]:
  """Makes (params, batch, rng) -> (gradients, metrics).

  With several rounds only the activations of one are held. First the model
  runs without gradients, round by round, and the loss is taken on all its
  answers: each row meets all others, as in one round. Then each round runs
  again and passes its part of the answers' gradient on to the parameters.
  Dropout draws anew for each round; without it the gradients are those of one
  round.

  Args:
    apply: Answers of a row must depend on no other row.
    loss: Of the whole batch.
    rounds: Divides the rows that each part of the mesh holds.
    mesh: The batch is split over its axis `data`.

  Source: GradCache, arXiv:2101.06983, Sec. 3.2; here for all terms.
  """
  if rounds > 1:
    return _in_rounds(apply, loss, rounds, mesh)

  def whole(params: Any, batch: Any, rng: jax.Array) -> Any:
    return loss(params, apply(params, batch, rng), batch)

  return jax.grad(whole, has_aux=True)


def _in_rounds(
    apply: Apply, loss: Loss, rounds: int, mesh: Mesh
) -> Callable[..., Any]:

  def split(tree: Any) -> Any:
    # Row r goes to round r % rounds: each device keeps the rows it has.
    def one(rows: jax.Array) -> jax.Array:
      parts = rows.reshape(-1, rounds, *rows.shape[1:]).swapaxes(0, 1)
      return jax.lax.with_sharding_constraint(
          parts, sharding.rounds_sharding(mesh)
      )

    return jax.tree.map(one, tree)

  def merge(tree: Any) -> Any:
    def one(parts: jax.Array) -> jax.Array:
      rows = parts.swapaxes(0, 1).reshape(-1, *parts.shape[2:])
      return jax.lax.with_sharding_constraint(
          rows, sharding.batch_sharding(mesh)
      )

    return jax.tree.map(one, tree)

  def gradients(params: Any, batch: Any, rng: jax.Array) -> Any:
    parts, rngs = split(batch), jax.random.split(rng, rounds)
    answers = jax.lax.map(lambda part: apply(params, *part), (parts, rngs))
    (direct, wanted), metrics = jax.grad(loss, argnums=(0, 1), has_aux=True)(
        params, merge(answers), batch
    )

    def add_round(total: Any, given: Any) -> tuple[Any, None]:
      part, part_rng, cotangent = given
      _, pull_back = jax.vjp(lambda p: apply(p, part, part_rng), params)
      return jax.tree.map(jnp.add, total, pull_back(cotangent)[0]), None

    total, _ = jax.lax.scan(add_round, direct, (parts, rngs, split(wanted)))
    return total, metrics

  return gradients
