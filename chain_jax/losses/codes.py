"""Losses that make relaxed codes good codes: near +-1, balanced, distinct."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


def quantisation_loss(
    relaxed_codes: Float[Array, "*batch num_bits"],
) -> Float[Array, ""]:
  """Mean of `(|h| - 1)^2`: what taking the sign will change.

  Exactly 0 for straight-through codes, which are +-1 already.

  >>> print(quantisation_loss(jnp.array([[1.0, -0.5]])))
  0.125
  """
  relaxed_codes = relaxed_codes.astype(jnp.float32)
  return jnp.mean(jnp.square(jnp.abs(relaxed_codes) - 1.0))


def bit_balance_loss(
    relaxed_codes: Float[Array, "*batch num_bits"],
) -> Float[Array, ""]:
  """Mean over bits of the squared mean over the batch.

  0 where each bit is +1 as often as -1, 1 where all codes are the same. All
  axes but the last count as the batch.

  >>> print(bit_balance_loss(jnp.array([[1.0, 1.0], [1.0, -1.0]])))
  0.5
  """
  codes = _rows(relaxed_codes)
  return jnp.mean(jnp.square(jnp.mean(codes, axis=0)))


def decorrelation_loss(
    relaxed_codes: Float[Array, "*batch num_bits"],
) -> Float[Array, ""]:
  """Mean over bits of what each shares with the others.

  Of a bit, the sum of the squared off-diagonal entries of its row of
  `R^T R / n`, for codes `R` `[n, bits]`: a weight means the same at any length.

  The entries are second moments, not centred: two bits that are both always
  +1 count as equal, as they are. 0 where every two bits agree as often as
  they differ, `num_bits - 1` where all bits are equal or opposite. All axes
  but the last count as the batch.

  >>> print(decorrelation_loss(jnp.array([[1.0, 1.0], [-1.0, -1.0]])))
  1.0
  """
  codes = _rows(relaxed_codes)
  num_rows, num_bits = codes.shape
  moments = (
      jnp.matmul(codes.T, codes, precision=jax.lax.Precision.HIGHEST) / num_rows
  )
  off_diagonal = jnp.where(jnp.eye(num_bits, dtype=bool), 0.0, moments)
  return jnp.sum(jnp.square(off_diagonal)) / num_bits


def _rows(relaxed_codes):
  num_bits = relaxed_codes.shape[-1]
  return relaxed_codes.astype(jnp.float32).reshape(-1, num_bits)
