"""From frames to tokens that know their neighbours: a temporal transformer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float

# A frame shorter than this is taken as all zero and stays so.
_SMALLEST_NORM = 1e-12
# Wavelengths of the positions, from 2 pi to 2 pi * this: arXiv:1706.03762.
_LONGEST_WAVELENGTH = 10_000.0
# Masked scores: finite, so that a row with no valid key gives no NaN.
_MASKED_SCORE = -1e9


class FrameStandardizer(nn.Module):
  """Brings frame features to zero mean and unit scale, per dimension.

  The variables `mean` and `scale` (float32 `[dim]`, collection
  "statistics") start at 0 and 1; whoever trains sets them once from training
  frames. They are no parameters: no gradient reaches them.

  Attributes:
    l2_normalise: Divide each frame by its Euclidean norm first. `mean` and
      `scale` then describe the normalised frames.
    dtype: Of the result; the arithmetic is in float32.
  """

  l2_normalise: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
      self,
      frames: Float[Array, "*batch frames dim"],
      frame_mask: Bool[Array, "*batch frames"],
  ) -> Float[Array, "*batch frames dim"]:
    """Returns `(frames - mean) * scale`, and exactly 0 where masked."""
    dim = frames.shape[-1]
    mean = self.variable("statistics", "mean", jnp.zeros, (dim,))
    scale = self.variable("statistics", "scale", jnp.ones, (dim,))
    frames = frames.astype(jnp.float32)
    if self.l2_normalise:
      norm = jnp.sqrt(jnp.sum(jnp.square(frames), axis=-1, keepdims=True))
      frames = frames / jnp.maximum(norm, _SMALLEST_NORM)
    frames = (frames - mean.value) * scale.value
    # Not a product with the mask: padding may hold NaN, and NaN * 0 is NaN.
    frames = jnp.where(frame_mask[..., None], frames, 0.0)
    return frames.astype(self.dtype)


def sinusoidal_positions(
    num_slots: int, width: int
) -> Float[np.ndarray, "num_slots width"]:
  """Returns sines, then cosines, of each slot at `width // 2` wavelengths.

  Args:
    num_slots: How many input slots there are.
    width: Of the tokens; even.

  Returns:
    float32, each value in [-1, 1].

  Source: arXiv:1706.03762, Sec. 3.5. Differs: all sines come before all
  cosines, which is the same up to the order of dimensions.

  >>> sinusoidal_positions(2, 2).round(4).tolist()
  [[0.0, 1.0], [0.8414999842643738, 0.5403000116348267]]
  """
  rates = _LONGEST_WAVELENGTH ** (-np.arange(0, width, 2) / width)
  angles = np.arange(num_slots)[:, None] * rates
  return np.concatenate([np.sin(angles), np.cos(angles)], -1).astype(np.float32)


class SelfAttention(nn.Module):
  """Multi-head self-attention in which no token sees a padded one.

  Attributes:
    num_heads: Divides the width of the tokens.
    branch_init_scale: Variance scale of the output projection at
      initialisation; 0 starts it at zero.
    dtype: Of the computation; parameters are float32.
  """

  num_heads: int
  branch_init_scale: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
      self,
      tokens: Float[Array, "num_tokens width"],
      frame_mask: Bool[Array, "rows frames"],
  ) -> Float[Array, "num_tokens width"]:
    """Returns what each token gathers from the valid tokens of its row.

    Tokens come as `[rows * frames, width]`, row by row.
    """
    rows, frames = frame_mask.shape
    width = tokens.shape[-1]
    head_dim = width // self.num_heads
    settings = dict(dtype=self.dtype, param_dtype=jnp.float32)
    qkv = nn.Dense(3 * width, name="qkv", **settings)(tokens)
    # Head by head, so that heads can be split over devices.
    qkv = qkv.reshape(rows, frames, self.num_heads, 3, head_dim)
    # [rows, heads, frames, head_dim] each: as plain batched products these
    # run at twice the speed of one einsum on the strided array (XLA CPU).
    query, key, value = jnp.transpose(qkv, (3, 0, 2, 1, 4))
    scores = jnp.matmul(query, key.swapaxes(-1, -2)).astype(jnp.float32)
    scores = jnp.where(
        frame_mask[:, None, None, :], scores / np.sqrt(head_dim), _MASKED_SCORE
    )
    attention = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
    gathered = jnp.matmul(attention, value).swapaxes(1, 2)
    return nn.Dense(
        width,
        kernel_init=_branch_init(self.branch_init_scale),
        name="out",
        **settings,
    )(gathered.reshape(rows * frames, width))


class EncoderBlock(nn.Module):
  """One pre-norm block: attention, then an MLP, each added to its input.

  Attributes:
    num_heads: Of the attention.
    mlp_dim: Hidden width of the MLP.
    dropout_rate: Share of each branch's output set to 0 in training.
    deterministic: Switches dropout off.
    branch_init_scale: Variance scale of both branches' last layers at
      initialisation; at 0 the block starts as the identity.
    dtype: Of the computation; parameters are float32.
  """

  num_heads: int
  mlp_dim: int
  dropout_rate: float = 0.0
  deterministic: bool = True
  branch_init_scale: float = 0.0
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
      self,
      tokens: Float[Array, "num_tokens width"],
      frame_mask: Bool[Array, "rows frames"],
  ) -> tuple[Float[Array, "num_tokens width"], None]:
    """Returns the new tokens, and None as `nn.scan` asks for a pair."""
    settings = dict(dtype=self.dtype, param_dtype=jnp.float32)
    dropout = nn.Dropout(self.dropout_rate, deterministic=self.deterministic)

    branch = nn.LayerNorm(name="attention_norm", **settings)(tokens)
    branch = SelfAttention(
        self.num_heads,
        branch_init_scale=self.branch_init_scale,
        dtype=self.dtype,
        name="attention",
    )(branch, frame_mask)
    tokens = tokens + dropout(branch)

    branch = nn.LayerNorm(name="mlp_norm", **settings)(tokens)
    branch = nn.Dense(self.mlp_dim, name="mlp_in", **settings)(branch)
    branch = nn.gelu(branch, approximate=True)
    branch = nn.Dense(
        tokens.shape[-1],
        kernel_init=_branch_init(self.branch_init_scale),
        name="mlp_out",
        **settings,
    )(branch)
    return tokens + dropout(branch), None


class TemporalEncoder(nn.Module):
  """Adds the position of its slot to each frame and mixes the valid frames.

  The position is that of the input slot, never the frame's true index: the
  frame-order task asks for that index, so the input must not hold it.

  Attributes:
    depth: Number of blocks, run by `nn.scan`: their parameters are stacked
      along a leading axis of this length. 0 leaves only the last norm.
    num_heads: Of the attention; divides the width of the tokens.
    mlp_dim: Hidden width of the blocks' MLPs.
    dropout_rate: Share of each branch's output set to 0 in training.
    position_scale: Multiplies the positions. Small, so that at
      initialisation the frames and not the slots decide the code.
    branch_init_scale: See `EncoderBlock`.
    remat: Keep only the input of each block for the backward pass, and
      compute the block again: less memory, more time, the same numbers.
    dtype: Of the computation; parameters are float32.
  """

  depth: int
  num_heads: int
  mlp_dim: int
  dropout_rate: float = 0.0
  position_scale: float = 1.0
  branch_init_scale: float = 0.0
  remat: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
      self,
      tokens: Float[Array, "rows frames width"],
      frame_mask: Bool[Array, "rows frames"],
      *,
      deterministic: bool,
  ) -> Float[Array, "rows frames width"]:
    """Mixes the frames of each row; no valid token depends on a padded one.

    Args:
      tokens: Projected frames, in the order the encoder is to see them.
      frame_mask: False where the slot is padding.
      deterministic: Switches dropout off.

    Returns:
      Layer-normalised tokens of type `dtype`; those of padded slots mean
      nothing.
    """
    width = tokens.shape[-1]
    positions = self.position_scale * sinusoidal_positions(
        tokens.shape[-2], width
    )
    tokens = tokens.astype(self.dtype) + jnp.asarray(positions, self.dtype)
    # The blocks see one long list of tokens: a gradient of a dense layer that
    # sums over two axes costs XLA a transposed copy of its input.
    flat = tokens.reshape(-1, width)  # [rows * frames, width]
    if self.depth > 0:
      flat, _ = self._blocks(deterministic)(flat, frame_mask)
    norm = nn.LayerNorm(
        dtype=self.dtype, param_dtype=jnp.float32, name="final_norm"
    )
    return norm(flat).reshape(tokens.shape)

  def _blocks(self, deterministic: bool) -> nn.Module:
    # Matrix products are kept for the backward pass and all else is computed
    # again: cheaper than writing it to memory and reading it back.
    policies = jax.checkpoint_policies
    block = nn.remat(
        EncoderBlock,
        # It guards against merging, which a scan rules out anyway.
        prevent_cse=False,
        policy=(
            policies.nothing_saveable if self.remat else policies.dots_saveable
        ),
    )
    blocks = nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=nn.broadcast,
        length=self.depth,
    )
    return blocks(
        num_heads=self.num_heads,
        mlp_dim=self.mlp_dim,
        dropout_rate=self.dropout_rate,
        deterministic=deterministic,
        branch_init_scale=self.branch_init_scale,
        dtype=self.dtype,
        name="blocks",
    )


def _branch_init(scale: float) -> nn.initializers.Initializer:
  if scale == 0:
    return nn.initializers.zeros
  return nn.initializers.variance_scaling(scale, "fan_in", "truncated_normal")
