"""One video -> two views, drawn independently of each other.

Time: which frames a view shows (`sample_frame_indices`). Space: what happens
to the features of the frames shown. Pixels are gone by then, so this is a
stand-in: a stored variant (crop, flip) where the video has some, else noise,
dropout and mixing of neighbours. What CVRL (arXiv:2008.03800) asks of spatial
augmentation holds here too: one draw serves all frames of a view, for a draw
per frame would change what the view tells about time.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Num

from chain_jax.data.frame_sampling import (
    sample_frame_indices,
    segment_centres,
    segment_edges,
)
from chain_jax.data.records import plain_frames, to_float32


class Views(NamedTuple):
  """Two views of one video.

  Attributes:
    frames: Features; 0 in padded slots.
    mask: True where a slot shows a frame; these slots come first.
  """

  frames: Float32[np.ndarray, "2 view_frames dim"]
  mask: Bool[np.ndarray, "2 view_frames"]


def video_rng(seed: int, *, epoch: int, video: int) -> np.random.Generator:
  """Makes the generator of one video's views in one epoch.

  It depends on these three numbers alone, so views do not change with hosts,
  workers or restarts. Philox is a counter under a key: (seed, epoch) is the
  key, and each video counts in a range of its own.
  """
  return np.random.Generator(
      np.random.Philox(
          key=np.array([seed % 2**64, epoch], np.uint64),
          counter=np.array([0, 0, 0, video], np.uint64),
      )
  )


def mix_neighbours(
    frames: Float32[np.ndarray, "num_frames dim"],
    *,
    mix_max: float,
    rng: np.random.Generator,
) -> Float32[np.ndarray, "num_frames dim"]:
  """Blends each frame with the one before or after it in the view.

  Each frame becomes (1 - a) of itself and a of its neighbour, a uniform in
  [0, `mix_max`], either side equally likely: one side alone would tell the
  direction of time. Features stay in the convex hull of the view's frames.

  Args:
    frames: Of one view, without padding.
    mix_max: Largest weight of a neighbour, 0 to 1; 0 = off.
    rng: Gives one weight and one side a frame.
  """
  num_frames = len(frames)
  if mix_max == 0 or num_frames < 2:
    return frames
  weights = rng.uniform(0, mix_max, num_frames).astype(np.float32)
  rows = np.arange(num_frames)
  neighbours = rows + np.where(rng.random(num_frames) < 0.5, -1, 1)
  neighbours[0], neighbours[-1] = 1, num_frames - 2
  # Not a matrix product: BLAS threads of many workers get in each other's way.
  mixed = frames[neighbours]
  mixed -= frames
  mixed *= weights[:, None]
  mixed += frames
  return mixed


def add_noise(
    frames: Float32[np.ndarray, "num_frames dim"],
    *,
    noise_std: float,
    rng: np.random.Generator,
) -> Float32[np.ndarray, "num_frames dim"]:
  """Shifts all frames of a view by one Gaussian vector.

  Args:
    frames: Of one view, without padding.
    noise_std: Standard deviation, in units of the root mean square of
      `frames`; 0 = off.
    rng: Gives one draw a dimension.
  """
  if noise_std == 0:
    return frames
  root_mean_square = np.sqrt(np.einsum("td,td->", frames, frames) / frames.size)
  noise = rng.standard_normal(frames.shape[-1], dtype=np.float32)
  return frames + noise * np.float32(noise_std * root_mean_square)


def drop_features(
    frames: Float32[np.ndarray, "num_frames dim"],
    *,
    dropout_rate: float,
    rng: np.random.Generator,
) -> Float32[np.ndarray, "num_frames dim"]:
  """Sets the same dimensions to 0 in all frames of a view.

  Args:
    frames: Of one view, without padding.
    dropout_rate: Chance of each dimension, 0 <= rate < 1; 0 = off. The others
      are divided by 1 - rate, which keeps the expected value.
    rng: Gives one draw a dimension.
  """
  if dropout_rate == 0:
    return frames
  kept = rng.random(frames.shape[-1], dtype=np.float32) >= dropout_rate
  return frames * (kept * np.float32(1 / (1 - dropout_rate)))


def make_views(
    frames: Num[np.ndarray, "num_frames_in_video *variants dim"],
    rng: np.random.Generator,
    *,
    num_frames: int,
    sampling: str = "segments",
    crop_fraction: tuple[float, float] = (1.0, 1.0),
    playback_rate: tuple[float, float] = (1.0, 1.0),
    noise_std: float = 0.0,
    dropout_rate: float = 0.0,
    mix_max: float = 0.0,
) -> Views:
  """Draws two views of one video, each by itself from the same distribution.

  Args:
    frames: As stored; float or uint8.
    rng: Gives all draws: first those of view 0, then those of view 1.
    num_frames: Slots of a view, T.
    sampling: See `sample_frame_indices`, as for the next two.
    crop_fraction: Share of the video that a view looks at.
    playback_rate: How much faster than usual a view runs.
    noise_std: See `add_noise`; where the video has more than one stored
      variant, one of these is drawn instead of this and the next two.
    dropout_rate: See `drop_features`.
    mix_max: See `mix_neighbours`.
  """
  views = np.zeros((2, num_frames, frames.shape[-1]), np.float32)
  masks = np.zeros((2, num_frames), np.bool_)
  for view, mask in zip(views, masks, strict=True):
    indices, mask[:] = sample_frame_indices(
        len(frames),
        num_frames=num_frames,
        sampling=sampling,
        crop_fraction=crop_fraction,
        playback_rate=playback_rate,
        rng=rng,
    )
    shown = indices[mask]
    if frames.ndim == 3 and frames.shape[1] > 1:
      variant = rng.integers(frames.shape[1])
      view[mask] = to_float32(frames[shown, variant])
      continue
    features = to_float32(plain_frames(frames)[shown])
    features = mix_neighbours(features, mix_max=mix_max, rng=rng)
    features = add_noise(features, noise_std=noise_std, rng=rng)
    features = drop_features(features, dropout_rate=dropout_rate, rng=rng)
    view[: len(shown)] = features
  return Views(views, masks)


def plain_view(
    frames: Num[np.ndarray, "num_frames_in_video *variants dim"],
    *,
    num_frames: int,
) -> tuple[
    Float32[np.ndarray, "view_frames dim"], Bool[np.ndarray, "view_frames"]
]:
  """Takes the view that a video is exported by; nothing is drawn.

  Args:
    frames: As stored; of variants, number 0 counts.
    num_frames: Slots of the view, T.

  Returns:
    All frames where there are at most T, else the centres of T segments; and
    which slots show one.

  >>> frames, mask = plain_view(np.arange(6.0).reshape(6, 1), num_frames=3)
  >>> frames[:, 0].tolist(), mask.tolist()
  ([0.0, 2.0, 4.0], [True, True, True])
  """
  num_filled = min(num_frames, len(frames))
  shown = segment_centres(segment_edges(len(frames), num_filled))
  view = np.zeros((num_frames, frames.shape[-1]), np.float32)
  view[:num_filled] = to_float32(plain_frames(frames)[shown])
  return view, np.arange(num_frames) < num_filled
