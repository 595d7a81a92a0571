"""What happens to the features of a view, on the devices.

Which frames a view shows is decided in `frame_sampling.py`; here the stored
numbers become features and, in training, change in space. Pixels are gone by
then, so this is a stand-in: a stored variant (crop, flip) where a video has
some, else mixing of neighbours, noise and dropout. What CVRL
(arXiv:2008.03800) asks of spatial augmentation holds here too: one draw serves
all frames of a view, for a draw per frame would change what the view tells
about time.

All draws are made for the global batch from one key, so they do not depend on
which device holds a row.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Num

from chain_jax.data import records


class FeatureAugmentation(NamedTuple):
  """How features change in training; 0 switches a part off."""

  noise_std: float = 0.0
  dropout_rate: float = 0.0
  mix_max: float = 0.0


def to_features(
    frames: Num[Array, "*batch slots dim"],
    frame_mask: Bool[Array, "*batch slots"],
    scaling: records.Scaling,
) -> Float32[Array, "*batch slots dim"]:
  """Turns stored frames into features; 0 in padded slots.

  Args:
    frames: As stored: uint8, float16 or float32.
    frame_mask: True where a slot shows a frame.
    scaling: What stored numbers mean.

  Returns:
    stored * scale + offset, in float32.
  """
  features = frames.astype(jnp.float32) * scaling.scale + scaling.offset
  # Not a product with the mask: a stored 0 means the offset, and padding may
  # hold anything.
  return jnp.where(frame_mask[..., None], features, 0.0)


def make_views(
    rng: jax.Array,
    frames: Num[Array, "batch views slots dim"],
    frame_mask: Bool[Array, "batch views slots"],
    scaling: records.Scaling,
    augmentation: FeatureAugmentation,
) -> Float32[Array, "batch views slots dim"]:
  """Makes the views that training sees out of stored frames.

  Each view is changed by draws of its own: mixing, then noise, then dropout.

  Args:
    rng: A key; with the shapes it alone decides the draws.
    frames: As stored.
    frame_mask: True where a slot shows a frame; these slots come first.
    scaling: What stored numbers mean.
    augmentation: How features change.

  Returns:
    Features, 0 in padded slots.
  """
  noise_std, dropout_rate, mix_max = augmentation
  mix_rng, noise_rng, dropout_rng = jax.random.split(rng, 3)
  features = to_features(frames, frame_mask, scaling)
  features = mix_neighbours(mix_rng, features, frame_mask, mix_max=mix_max)
  features = add_noise(noise_rng, features, frame_mask, noise_std=noise_std)
  return drop_features(dropout_rng, features, dropout_rate=dropout_rate)


def draw_visible(
    rng: jax.Array,
    frame_mask: Bool[Array, "*batch slots"],
    *,
    mask_fraction: float,
) -> Bool[Array, "*batch slots"]:
  """Draws which frames of each view the encoder sees.

  Args:
    rng: A key; with the shape it alone decides the draw.
    frame_mask: True where a slot shows a frame.
    mask_fraction: Share of a view's frames to hide, in [0, 1), to the nearest
      frame; one is left to see in any case.

  Returns:
    True where a frame is seen; False where it is hidden, or padding. Each
    choice of that many frames of a view has the same chance.

  Source: random masking of arXiv:2111.06377, Sec. 3, of whole frames as in
  ConMH, AAAI 2023. Differs: padding is no frame.
  """
  scores = jax.random.uniform(rng, frame_mask.shape)
  scores = jnp.where(frame_mask, scores, 2.0)
  order = jnp.argsort(scores, axis=-1, stable=True)
  rank = jnp.argsort(order, axis=-1, stable=True)  # Of a slot among its view's.
  num_frames = jnp.sum(frame_mask, axis=-1, keepdims=True)
  num_hidden = jnp.round(mask_fraction * num_frames).astype(jnp.int32)
  num_hidden = jnp.minimum(num_hidden, num_frames - 1)
  return frame_mask & (rank >= num_hidden)


def mix_neighbours(
    rng: jax.Array,
    features: Float32[Array, "batch views slots dim"],
    frame_mask: Bool[Array, "batch views slots"],
    *,
    mix_max: float,
) -> Float32[Array, "batch views slots dim"]:
  """Blends each frame with the one before or after it in the view.

  Each frame becomes (1 - a) of itself and a of its neighbour, a uniform in
  [0, `mix_max`], either side equally likely: one side alone would tell the
  direction of time. Features stay in the convex hull of the view's frames; a
  frame alone in its view stays as it is.

  Args:
    rng: Gives one weight and one side a frame.
    features: Of whole views, 0 in padded slots.
    frame_mask: True where a slot shows a frame; these slots come first.
    mix_max: Largest weight of a neighbour, 0 to 1; 0 = off.
  """
  if mix_max == 0 or features.shape[-2] < 2:
    return features
  weight_rng, side_rng = jax.random.split(rng)
  weights = jax.random.uniform(weight_rng, frame_mask.shape, maxval=mix_max)
  takes_earlier = jax.random.bernoulli(side_rng, shape=frame_mask.shape)
  slots = jnp.arange(features.shape[-2])
  num_shown = jnp.sum(frame_mask, axis=-1, keepdims=True)
  takes_earlier = (slots > 0) & (takes_earlier | (slots >= num_shown - 1))
  earlier = jnp.roll(features, 1, axis=-2)
  later = jnp.roll(features, -1, axis=-2)
  neighbours = jnp.where(takes_earlier[..., None], earlier, later)
  is_mixed = frame_mask & (num_shown > 1)
  weights = jnp.where(is_mixed, weights, 0.0)[..., None]
  return features + weights * (neighbours - features)


def add_noise(
    rng: jax.Array,
    features: Float32[Array, "batch views slots dim"],
    frame_mask: Bool[Array, "batch views slots"],
    *,
    noise_std: float,
) -> Float32[Array, "batch views slots dim"]:
  """Shifts all frames of a view by one Gaussian vector.

  Args:
    rng: Gives one draw a view and dimension.
    features: Of whole views, 0 in padded slots.
    frame_mask: True where a slot shows a frame; other slots stay 0.
    noise_std: Standard deviation, in units of the root mean square of the
      view's features; 0 = off.
  """
  if noise_std == 0:
    return features
  batch, views, _, dim = features.shape
  num_values = jnp.sum(frame_mask, axis=-1) * dim  # [batch, views]
  mean_square = jnp.sum(jnp.square(features), axis=(-2, -1)) / num_values
  noise = jax.random.normal(rng, (batch, views, 1, dim))
  noise *= noise_std * jnp.sqrt(mean_square)[..., None, None]
  return features + jnp.where(frame_mask[..., None], noise, 0.0)


def drop_features(
    rng: jax.Array,
    features: Float32[Array, "batch views slots dim"],
    *,
    dropout_rate: float,
) -> Float32[Array, "batch views slots dim"]:
  """Sets the same dimensions to 0 in all frames of a view.

  Args:
    rng: Gives one draw a view and dimension.
    features: Of whole views.
    dropout_rate: Chance of each dimension, 0 <= rate < 1; 0 = off. The others
      are divided by 1 - rate, which keeps the expected value.
  """
  if dropout_rate == 0:
    return features
  batch, views, _, dim = features.shape
  kept_share = 1 - dropout_rate
  kept = jax.random.bernoulli(rng, kept_share, (batch, views, 1, dim))
  return features * (kept / kept_share)
