"""The whole model: two views of a video in, codes and local answers out."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float, Int

from chain_jax.models import (
    chain_settings,
    decoder,
    deviations,
    encoder,
    hashing,
    heads,
)


class ChainOutput(NamedTuple):
  """What the model says of a batch; all float32.

  Attributes:
    hash_logits: Their signs are the codes of both views.
    relaxed_codes: In [-1, 1]; what the losses on codes work on.
    frame_order_logits: `[b, s, c]` scores "slot s of the shuffled view 0
      shows frame c"; None if nothing was shuffled.
    scene_change_logits: `[b, v, i]` scores a change between frames i, i + 1.
    frame_errors: Squared error of each frame's guess by the decoder, mean
      over its dimensions; None without a decoder. An error a frame, not the
      guesses: those are as large as the batch.
  """

  hash_logits: Float[Array, "batch 2 num_bits"]
  relaxed_codes: Float[Array, "batch 2 num_bits"]
  frame_order_logits: Float[Array, "batch frames frames"] | None
  scene_change_logits: Float[Array, "batch 2 frames-1"]
  frame_errors: Float[Array, "batch 2 frames"] | None = None


class ChainModel(nn.Module):
  """Frame features -> standardise -> project -> encoder -> hash layer, heads.

  Attributes:
    num_bits: Code length; a positive multiple of 8.
    detail_share: Share of the bits, the last ones, that are not learnt but
      keep details of the frames (`hashing.DetailBits`); rounded down to whole
      bytes. In [0, 1).
    frame_deviations: Let tokens also tell how far each dimension of a frame is
      from its mean over the view (`deviations.squared_deviations`).
    width: Of the tokens; even, a multiple of `num_heads`.
    depth: Number of transformer blocks, >= 0.
    num_heads: Of the attention.
    mlp_dim: Hidden width of the blocks' MLPs.
    dropout_rate: Of the blocks' branches, in [0, 1).
    l2_normalise: Divide each frame by its Euclidean norm first.
    hash_hidden_dim: Hidden width of the hash layer; 0 for one linear layer.
    hash_relaxation: "tanh" or "straight_through".
    hash_pooling: "pool_then_hash" or "hash_then_mean".
    normalise_bits: Standardise the logits of a video over its bits.
    position_scale: Multiplies the sinusoidal positions.
    branch_init_scale: Variance scale of the last layer of each residual
      branch at initialisation. At 0 the encoder starts by passing on the
      projected frames, so that untrained codes are those of a random
      projection of the mean frame.
    reconstructs: Have a decoder that guesses frames. Without one there are
      no parameters of it either.
    decoder_width: Of its tokens; even, a multiple of `num_heads`.
    decoder_depth: Number of its blocks, >= 0.
    remat: Trade time for memory in the encoder's backward pass.
    dtype: Of the computation: "float32", "bfloat16" or such a jnp type.
      Parameters and outputs are float32 in any case.

  Initialise it with views of the final number of frames: the frame-order
  head has one class a frame. `encode` takes any number of frames.
  """

  num_bits: int = 64
  detail_share: float = 0.0
  frame_deviations: bool = False
  width: int = 256
  depth: int = 2
  num_heads: int = 4
  mlp_dim: int = 1024
  dropout_rate: float = 0.0
  l2_normalise: bool = False
  hash_hidden_dim: int = 0
  hash_relaxation: str = "tanh"
  hash_pooling: str = "pool_then_hash"
  normalise_bits: bool = True
  position_scale: float = 1.0
  branch_init_scale: float = 0.0
  reconstructs: bool = False
  decoder_width: int = 192
  decoder_depth: int = 2
  remat: bool = False
  dtype: Any = "float32"

  def __post_init__(self):
    chain_settings.check(self)
    hashing.check_settings(
        num_bits=self.num_bits,
        detail_share=self.detail_share,
        hidden_dim=self.hash_hidden_dim,
        relaxation=self.hash_relaxation,
        pooling=self.hash_pooling,
        prefix="hash_",
    )
    super().__post_init__()

  @property
  def num_detail_bits(self) -> int:
    """How many bits of a code, the last ones, are not learnt."""
    # 0.1 of 80 bits are 8, though 0.1 is a little off.
    return 8 * int(self.num_bits * self.detail_share / 8 + 1e-9)

  def setup(self):
    """Names the parts; their names are the keys of the parameters."""
    dtype = jnp.dtype(self.dtype)
    self.standardizer = encoder.FrameStandardizer(self.l2_normalise, dtype)
    dense = functools.partial(
        nn.Dense, self.width, dtype=dtype, param_dtype=jnp.float32
    )
    self.projection = dense()
    if self.frame_deviations:
      self.deviation_projection = dense(use_bias=False)
    self.encoder = encoder.TemporalEncoder(
        depth=self.depth,
        num_heads=self.num_heads,
        mlp_dim=self.mlp_dim,
        dropout_rate=self.dropout_rate,
        position_scale=self.position_scale,
        branch_init_scale=self.branch_init_scale,
        remat=self.remat,
        dtype=dtype,
    )
    self.hash_layer = hashing.HashLayer(
        num_bits=self.num_bits,
        num_detail_bits=self.num_detail_bits,
        hidden_dim=self.hash_hidden_dim,
        relaxation=self.hash_relaxation,
        pooling=self.hash_pooling,
        normalise_bits=self.normalise_bits,
        dtype=dtype,
    )
    self.frame_order_head = heads.FrameOrderHead(dtype=dtype)
    self.scene_change_head = heads.SceneChangeHead(dtype=dtype)
    if self.reconstructs:
      self.decoder = decoder.FrameDecoder(
          width=self.decoder_width,
          depth=self.decoder_depth,
          num_heads=self.num_heads,
          remat=self.remat,
          dtype=dtype,
      )

  def __call__(
      self,
      views: Float[Array, "batch 2 frames dim"],
      frame_mask: Bool[Array, "batch 2 frames"],
      frame_permutation: Int[Array, "batch frames"] | None,
      visible_mask: Bool[Array, "batch 2 frames"] | None = None,
      *,
      deterministic: bool,
  ) -> ChainOutput:
    """Runs both views and, if asked to, view 0 with its frames shuffled.

    Args:
      views: Frame features of two views of each video.
      frame_mask: False where a frame is padding.
      frame_permutation: Slot s of the shuffled view shows frame
        `frame_permutation[:, s]` of view 0. None skips the shuffled view.
      visible_mask: False where a frame is hidden from its view's code, or
        padding. None hides nothing. The shuffled view hides nothing either.
      deterministic: Switches dropout off; else `apply` needs a "dropout"
        stream where a rate is above 0.

    Returns:
      See `ChainOutput`.
    """
    if frame_permutation is None and self.is_initializing():
      batch, _, num_frames, _ = views.shape
      frame_permutation = jnp.tile(jnp.arange(num_frames), (batch, 1))
    if visible_mask is None:
      visible_mask = frame_mask
    frames = self.standardizer(views, frame_mask)
    tokens, mask = self._project(frames, visible_mask), visible_mask
    if frame_permutation is not None:
      # Shuffled before positions are added: positions tell slots, not frames.
      shuffled = _shuffle(tokens[:, 0], frame_mask[:, 0], frame_permutation)
      tokens, mask = _append_view(tokens, mask, *shuffled)
    tokens = self._encode_views(tokens, mask, deterministic)
    hashed = self.hash_layer(
        tokens[:, :2], frames, visible_mask, deterministic=deterministic
    )
    order_logits = errors = None
    if frame_permutation is not None:
      order_logits = self.frame_order_head(tokens[:, 2])
    if self.reconstructs:
      errors = self._frame_errors(
          tokens[:, :2], visible_mask, frames, frame_mask
      )
    return ChainOutput(
        hash_logits=hashed.hash_logits,
        relaxed_codes=hashed.relaxed_codes,
        frame_order_logits=order_logits,
        scene_change_logits=self.scene_change_head(tokens[:, :2]),
        frame_errors=errors,
    )

  def encode(
      self,
      frames: Float[Array, "batch frames dim"],
      frame_mask: Bool[Array, "batch frames"],
  ) -> Float[Array, "batch num_bits"]:
    """Returns the hash logits of single views, always without dropout."""
    frames = self.standardizer(frames, frame_mask)
    tokens = self.encoder(
        self._project(frames, frame_mask), frame_mask, deterministic=True
    )
    hashed = self.hash_layer(tokens, frames, frame_mask, deterministic=True)
    return hashed.hash_logits

  def _project(
      self,
      frames: Float[Array, "*batch frames dim"],
      visible_mask: Bool[Array, "*batch frames"],
  ) -> Float[Array, "*batch frames width"]:
    tokens = self.projection(frames)
    if self.frame_deviations:
      deviation = deviations.squared_deviations(frames, visible_mask)
      tokens += self.deviation_projection(deviation)
    return tokens

  def _encode_views(
      self,
      tokens: Float[Array, "batch views frames width"],
      frame_mask: Bool[Array, "batch views frames"],
      deterministic: bool,
  ) -> Float[Array, "batch views frames width"]:
    # The batch stays the leading axis, so that a batch in shards stays so.
    rows = tokens.reshape(-1, *tokens.shape[2:])
    row_mask = frame_mask.reshape(-1, frame_mask.shape[-1])
    encoded = self.encoder(rows, row_mask, deterministic=deterministic)
    return encoded.reshape(tokens.shape)

  def _frame_errors(
      self,
      tokens: Float[Array, "batch 2 frames width"],
      visible_mask: Bool[Array, "batch 2 frames"],
      frames: Float[Array, "batch 2 frames dim"],
      frame_mask: Bool[Array, "batch 2 frames"],
  ) -> Float[Array, "batch 2 frames"]:
    rows = (tokens, visible_mask, frame_mask)
    guesses = self.decoder(
        *(array.reshape(-1, *array.shape[2:]) for array in rows),
        feature_dim=frames.shape[-1],
    )
    target = jax.lax.stop_gradient(frames.astype(jnp.float32))
    return jnp.mean(jnp.square(guesses.reshape(frames.shape) - target), axis=-1)


def _shuffle(
    tokens: Float[Array, "batch frames width"],
    frame_mask: Bool[Array, "batch frames"],
    frame_permutation: Int[Array, "batch frames"],
) -> tuple[Float[Array, "batch frames width"], Bool[Array, "batch frames"]]:
  return (
      jnp.take_along_axis(tokens, frame_permutation[..., None], axis=1),
      jnp.take_along_axis(frame_mask, frame_permutation, axis=1),
  )


def _append_view(
    tokens: Float[Array, "batch 2 frames width"],
    mask: Bool[Array, "batch 2 frames"],
    view_tokens: Float[Array, "batch frames width"],
    view_mask: Bool[Array, "batch frames"],
) -> tuple[Float[Array, "batch 3 frames width"], Bool[Array, "batch 3 frames"]]:
  return (
      jnp.concatenate([tokens, view_tokens[:, None]], axis=1),
      jnp.concatenate([mask, view_mask[:, None]], axis=1),
  )
