"""From tokens to hash logits, and to their relaxed codes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float

RELAXATIONS = ("tanh", "straight_through")
POOLINGS = ("pool_then_hash", "hash_then_mean")
# Of the hidden layer: 0.1 in HHCH, the nearest published code.
_HIDDEN_DROPOUT_RATE = 0.1


class HashOutput(NamedTuple):
  """What the hash layer says of each video; both float32.

  The exported code is the sign of `hash_logits`, +1 at 0.0. The losses work
  on `relaxed_codes`, in [-1, 1].
  """

  hash_logits: Float[Array, "*batch num_bits"]
  relaxed_codes: Float[Array, "*batch num_bits"]


def masked_mean(
    tokens: Float[Array, "*batch frames dim"],
    frame_mask: Bool[Array, "*batch frames"],
) -> Float[Array, "*batch dim"]:
  """Averages the valid frames in float32; a row without any gives 0.

  >>> tokens = jnp.array([[1.0], [3.0], [jnp.nan]])
  >>> print(masked_mean(tokens, jnp.array([True, True, False])))
  [2.]
  """
  valid = frame_mask[..., None]
  total = jnp.sum(jnp.where(valid, tokens, 0.0), axis=-2, dtype=jnp.float32)
  count = jnp.sum(valid, axis=-2, dtype=jnp.float32)
  return total / jnp.maximum(count, 1.0)


def straight_through_sign(
    hash_logits: Float[Array, "*shape"],
) -> Float[Array, "*shape"]:
  """Returns exactly +1 or -1 (+1 at 0.0), with the gradient of tanh.

  The gradient of tanh instead of a clipped identity: it fades instead of
  stopping, so that a bit far on one side can still be brought back.

  Source: arXiv:1308.3432, Sec. 4, with tanh in place of the identity.

  >>> print(straight_through_sign(jnp.array([-0.5, -0.0, 3.0])))
  [-1.  1.  1.]
  """
  smooth = jnp.tanh(hash_logits)
  sign = jnp.where(hash_logits >= 0, 1.0, -1.0).astype(smooth.dtype)
  # The bracket is exactly 0; sign + (smooth - sign) would be off by an ulp.
  return sign + (smooth - jax.lax.stop_gradient(smooth))


def check_settings(
    *,
    num_bits: int,
    hidden_dim: int,
    relaxation: str,
    pooling: str,
    detail_share: float = 0.0,
    prefix: str = "",
) -> None:
  """Checks the settings of a `HashLayer`.

  Args:
    num_bits: See `HashLayer`.
    hidden_dim: See there, as the next two.
    relaxation: See there.
    pooling: See there.
    detail_share: Of the bits, in [0, 1).
    prefix: Stands before the name of `hidden_dim` and the next two in an error.

  Raises:
    ValueError: If one is out of range; names the field.
  """
  if num_bits < 8 or num_bits % 8:
    raise ValueError(
        f"`num_bits` must be a positive multiple of 8, got {num_bits}; try"
        f" {max(8, 8 * round(num_bits / 8))}."
    )
  if not 0 <= detail_share < 1:
    raise ValueError(
        f"`detail_share` must be in [0, 1), got {detail_share}; 0 means no"
        " detail bits."
    )
  if hidden_dim < 0:
    raise ValueError(
        f"`{prefix}hidden_dim` must be >= 0, got {hidden_dim}; 0 means one"
        " linear layer."
    )
  for field, value, choices in (
      ("relaxation", relaxation, RELAXATIONS),
      ("pooling", pooling, POOLINGS),
  ):
    if value not in choices:
      names = " or ".join(f'"{choice}"' for choice in choices)
      raise ValueError(
          f'`{prefix}{field}` must be {names}, got "{value}"; use one of them.'
      )


class DetailBits(nn.Module):
  """Projects frames on directions that nothing learns.

  The variables `directions` (float32 `[dim, num_bits]`) and `offsets`
  (`[num_bits]`), of the collection "statistics", are random and 0 at first;
  whoever trains sets them once (`data/detail_bits.py`).
  """

  num_bits: int

  @nn.compact
  def __call__(
      self, frames: Float[Array, "*rows dim"]
  ) -> Float[Array, "*rows num_bits"]:
    """Returns `frames @ directions - offsets`, float32."""
    shape = (frames.shape[-1], self.num_bits)
    directions = self.variable(
        "statistics",
        "directions",
        lambda: nn.initializers.lecun_normal()(self.make_rng("params"), shape),
    )
    offsets = self.variable("statistics", "offsets", jnp.zeros, shape[1:])
    projected = jnp.matmul(
        frames.astype(jnp.float32), directions.value, precision="highest"
    )
    return projected - offsets.value


class HashLayer(nn.Module):
  """Turns the tokens of a video into `num_bits` numbers whose signs are bits.

  Attributes:
    num_bits: Code length; a positive multiple of 8.
    num_detail_bits: How many bits, the last ones, are `DetailBits` of the
      frames instead of being hashed from the tokens; fewer than `num_bits`.
    hidden_dim: 0 for one linear layer; else linear to this width, relu,
      dropout, linear.
    relaxation: "tanh", or "straight_through" (`straight_through_sign`).
    pooling: "pool_then_hash" averages the valid tokens and hashes the mean.
      "hash_then_mean" hashes every frame and averages their relaxed codes;
      `hash_logits` and `relaxed_codes` are then both that average.
    normalise_bits: Bring the logits of one video to zero mean and unit
      variance over its bits, but for detail bits, without affine parameters,
      before the relaxation. `hash_logits` are then the normalised ones.
    dtype: Of the linear layers; the rest is in float32.
  """

  num_bits: int
  num_detail_bits: int = 0
  hidden_dim: int = 0
  relaxation: str = "tanh"
  pooling: str = "pool_then_hash"
  normalise_bits: bool = True
  dtype: Any = jnp.float32

  def __post_init__(self):
    check_settings(
        num_bits=self.num_bits,
        hidden_dim=self.hidden_dim,
        relaxation=self.relaxation,
        pooling=self.pooling,
    )
    super().__post_init__()

  @nn.compact
  def __call__(
      self,
      tokens: Float[Array, "*batch frames width"],
      frames: Float[Array, "*batch frames dim"],
      frame_mask: Bool[Array, "*batch frames"],
      *,
      deterministic: bool,
  ) -> HashOutput:
    """Hashes each video.

    Args:
      tokens: Encoded frames, float32 or bfloat16.
      frames: What they encode; detail bits are read off them.
      frame_mask: False where a frame is padding; such frames count for
        nothing.
      deterministic: Switches dropout off.

    Returns:
      Hash logits and relaxed codes `[*batch, num_bits]`.
    """
    relax = jnp.tanh if self.relaxation == "tanh" else straight_through_sign
    if self.pooling == "pool_then_hash":
      pooled = [masked_mean(rows, frame_mask) for rows in (tokens, frames)]
      logits = self._logits(*pooled, deterministic)
      return HashOutput(logits, relax(logits))
    frame_codes = relax(self._logits(tokens, frames, deterministic))
    mean_codes = masked_mean(frame_codes, frame_mask)
    return HashOutput(mean_codes, mean_codes)

  def _logits(
      self,
      embedding: Float[Array, "*rows width"],
      frame: Float[Array, "*rows dim"],
      deterministic: bool,
  ) -> Float[Array, "*rows num_bits"]:
    settings = dict(dtype=self.dtype, param_dtype=jnp.float32)
    if self.hidden_dim > 0:
      embedding = nn.Dense(self.hidden_dim, name="hidden", **settings)(
          embedding
      )
      embedding = nn.Dropout(_HIDDEN_DROPOUT_RATE, deterministic=deterministic)(
          nn.relu(embedding)
      )
    num_learned_bits = self.num_bits - self.num_detail_bits
    logits = nn.Dense(num_learned_bits, name="bits", **settings)(embedding)
    logits = logits.astype(jnp.float32)
    if self.normalise_bits:
      logits = nn.LayerNorm(use_bias=False, use_scale=False)(logits)
    if not self.num_detail_bits:
      return logits
    details = DetailBits(self.num_detail_bits, name="detail_bits")(frame)
    return jnp.concatenate([logits, details], axis=-1)
