"""From encoded frames back to features: guesses of the frames not seen."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float

from chain_jax.models import encoder

# Of a block's MLP, in widths of the decoder: 4 as in ConMH and in MAE.
_MLP_RATIO = 4
# Deviation of the mask token at initialisation: arXiv:2111.06377's code.
_MASK_TOKEN_STD = 0.02


class FrameDecoder(nn.Module):
  """Guesses each frame's feature from the encoded frames that were visible.

  Encoded frames -> linear; one learned token in every other slot -> blocks
  with positions -> linear. Without dropout, and its blocks do not start as
  the identity: what it says of a hidden frame comes from visible ones from
  the first step on.

  Attributes:
    width: Of its tokens; even, a multiple of `num_heads`.
    depth: Number of transformer blocks, >= 0.
    num_heads: Of the attention.
    remat: Trade time for memory in the backward pass.
    dtype: Of the computation; parameters are float32.

  Source: masked auto-encoder, arXiv:2111.06377, Sec. 3; of frames in ConMH,
  AAAI 2023.
  """

  width: int = 192
  depth: int = 2
  num_heads: int = 4
  remat: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
      self,
      tokens: Float[Array, "rows frames width"],
      visible_mask: Bool[Array, "rows frames"],
      frame_mask: Bool[Array, "rows frames"],
      *,
      feature_dim: int,
  ) -> Float[Array, "rows frames {feature_dim}"]:
    """Guesses the features of all slots.

    Args:
      tokens: Of the encoder, which attended to visible frames only.
      visible_mask: True where a token may be used.
      frame_mask: False where a slot is padding; such slots are not asked.
      feature_dim: Width of a frame's feature.

    Returns:
      Standardised features, float32; those of padded slots mean nothing.
    """
    settings = dict(dtype=self.dtype, param_dtype=jnp.float32)
    encoded = nn.Dense(self.width, name="input", **settings)(tokens)
    mask_token = self.param(
        "mask_token",
        nn.initializers.normal(_MASK_TOKEN_STD),
        (self.width,),
        jnp.float32,
    )
    slots = jnp.where(
        visible_mask[..., None], encoded, mask_token.astype(self.dtype)
    )
    mixed = encoder.TemporalEncoder(
        depth=self.depth,
        num_heads=self.num_heads,
        mlp_dim=_MLP_RATIO * self.width,
        branch_init_scale=1.0,
        remat=self.remat,
        dtype=self.dtype,
        name="mixer",
    )(slots, frame_mask, deterministic=True)
    guess = nn.Dense(feature_dim, name="output", **settings)(mixed)
    return guess.astype(jnp.float32)
