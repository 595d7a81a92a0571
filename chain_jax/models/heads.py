"""Heads of the two local tasks: frame order and scene changes."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float


class FrameOrderHead(nn.Module):
  """Guesses the true index of each frame of a shuffled view.

  One linear layer, shared by all slots, with as many classes as there are
  slots: its parameters belong to one number of frames.

  Attributes:
    dtype: Of the computation; parameters are float32.
  """

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
      self, tokens: Float[Array, "batch frames width"]
  ) -> Float[Array, "batch frames frames"]:
    """Returns float32 logits: `[b, s, c]` scores "slot s shows frame c"."""
    num_frames = tokens.shape[-2]
    logits = nn.Dense(
        num_frames, dtype=self.dtype, param_dtype=jnp.float32, name="logits"
    )(tokens)
    return logits.astype(jnp.float32)


class SceneChangeHead(nn.Module):
  """Tells whether the scene changes between two adjacent frames.

  It sees the sum and the absolute difference of the two tokens, so that, as
  the question is, its answer is the same with time reversed.

  Attributes:
    hidden_dim: Width of the one hidden layer.
    dtype: Of the computation; parameters are float32.
  """

  hidden_dim: int = 64
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
      self, tokens: Float[Array, "*batch frames width"]
  ) -> Float[Array, "*batch frames-1"]:
    """Returns float32 logits: `[.., i]` is of the pair `(i, i + 1)`."""
    settings = dict(dtype=self.dtype, param_dtype=jnp.float32)
    before, after = tokens[..., :-1, :], tokens[..., 1:, :]
    pair = jnp.concatenate([before + after, jnp.abs(before - after)], axis=-1)
    hidden = nn.gelu(nn.Dense(self.hidden_dim, name="hidden", **settings)(pair))
    logits = nn.Dense(1, name="logit", **settings)(hidden)
    return logits[..., 0].astype(jnp.float32)
