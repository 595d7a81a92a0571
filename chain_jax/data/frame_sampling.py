"""Which frames of its video each view shows: arithmetic on whole batches.

Written once for NumPy, where a host makes batches, and for jax.numpy, where a
device does (`xp`). Nothing is drawn here: the draws come in as uniform numbers.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Int64

SAMPLINGS = ("segments", "uniform", "consecutive")
# Length and place of the crop, place of the neighbouring frames, playback
# rate, place of the slow motion; then one draw a slot.
_WINDOW_DRAWS = 5


class ViewSettings(NamedTuple):
  """How views are sampled; see `sample_frame_indices`."""

  num_frames: int
  sampling: str = "segments"
  crop_fraction: tuple[float, float] = (1.0, 1.0)
  playback_rate: tuple[float, float] = (1.0, 1.0)


def draws_per_view(num_frames: int) -> int:
  """Counts the uniform draws that a view of `num_frames` slots takes."""
  return _WINDOW_DRAWS + num_frames


def sample_frame_indices(
    num_frames_in_video: Int[Any, "n"],
    draws: Float[Any, "n views num_draws"],
    *,
    num_frames: int,
    sampling: str = "segments",
    crop_fraction: tuple[float, float] = (1.0, 1.0),
    playback_rate: tuple[float, float] = (1.0, 1.0),
    xp: Any = np,
) -> tuple[Int32[Any, "n views slots"], Bool[Any, "n views slots"]]:
  """Chooses which frames each view shows, in their order, none twice.

  1. Crop. A window of the video, its length a fraction drawn from
     `crop_fraction`, its place drawn evenly. "consecutive" then narrows it to
     `num_frames` neighbouring frames, at a place drawn evenly.
  2. Playback rate r, drawn from `playback_rate` (log-uniform, so that twice
     and half as fast are equally likely in (1/2, 2)). At rate 1 the window
     fills all slots, or as many as it has frames. r > 1 plays faster: frames
     lie r times further apart, so 1 / r as many slots are filled. r < 1 is
     slow motion: the view covers only the share r of the window, at a place
     drawn evenly, with frames lying as much closer together as there are any.
  3. Choice. The window is cut into one segment a filled slot, equal up to one
     frame. "segments" draws a frame of each (TSN, arXiv:1608.00859),
     "uniform" takes its centre, "consecutive" its start.

  Slots that are not filled are padded: short videos, short windows and fast
  playback give views of unequal length, at least 2 frames long where the
  video and the view have 2.

  Args:
    num_frames_in_video: Of each video, >= 1.
    draws: Independent, uniform in [0, 1); `draws_per_view(num_frames)` a view.
    num_frames: Slots of a view, T; >= 1.
    sampling: One of `SAMPLINGS`.
    crop_fraction: Smallest and largest share of the video, 0 < low <= high
      <= 1; (1, 1) = no crop.
    playback_rate: Smallest and largest rate, 0 < low <= high; (1, 1) = off.
    xp: `numpy` or `jax.numpy`, whose arrays the others are.

  Returns:
    The frame of each slot, and which slots show one. A padded slot repeats
    the last frame's index.

  Raises:
    ValueError: If a setting breaks its rule.
  """
  _check_settings(sampling, crop_fraction, playback_rate)
  crop, place, run, speed, slow = (draws[..., i] for i in range(_WINDOW_DRAWS))
  length = xp.broadcast_to(num_frames_in_video[:, None], crop.shape)
  length = length.astype(xp.int32)
  fewest = xp.minimum(min(2, num_frames), length)
  low, high = crop_fraction
  wanted = _rounded((low + (high - low) * crop) * _real(length, crop), xp)
  start, length = _sub_window(0, length, wanted, fewest, place, xp)
  if sampling == "consecutive":
    start, length = _sub_window(start, length, num_frames, fewest, run, xp)
  low, high = playback_rate
  rate = low * (high / low) ** speed
  wanted = _rounded(_real(length, crop) * xp.minimum(rate, 1), xp)
  start, length = _sub_window(start, length, wanted, fewest, slow, xp)
  num_filled = _real(xp.minimum(num_frames, length), crop)
  num_filled = _rounded(num_filled / xp.maximum(rate, 1), xp)
  num_filled = xp.maximum(num_filled, fewest)[..., None]
  slots = xp.arange(num_frames, dtype=xp.int32)
  mask = slots < num_filled
  first = segment_edge(slots, length[..., None], num_filled)
  next_first = segment_edge(slots + 1, length[..., None], num_filled)
  if sampling == "segments":
    chosen = first + _below(next_first - first, draws[..., _WINDOW_DRAWS:], xp)
  else:
    middle = (first + next_first - 1) // 2
    chosen = middle if sampling == "uniform" else first
  chosen = start[..., None] + chosen
  # Frames rise, so the largest is the last one shown.
  last = xp.max(xp.where(mask, chosen, 0), axis=-1, keepdims=True)
  return xp.where(mask, chosen, last), mask


def plain_frame_indices(
    num_frames_in_video: Int[np.ndarray, "n"], *, num_frames: int
) -> tuple[Int32[np.ndarray, "n slots"], Bool[np.ndarray, "n slots"]]:
  """Chooses the frames that a video is exported by; nothing is drawn.

  Args:
    num_frames_in_video: Of each video, >= 1.
    num_frames: Slots of the view, T.

  Returns:
    All frames where there are at most T, else the centres of T segments, the
    earlier one of two; and which slots show one.

  >>> plain_frame_indices(np.array([6, 2]), num_frames=3)[0].tolist()
  [[0, 2, 4], [0, 1, 1]]
  """
  shape = (len(num_frames_in_video), 1, draws_per_view(num_frames))
  indices, mask = sample_frame_indices(
      num_frames_in_video,
      np.zeros(shape, np.float32),
      num_frames=num_frames,
      sampling="uniform",
  )
  return indices[:, 0], mask[:, 0]


def segment_edge(segment: Any, num_frames: Any, num_segments: Any) -> Any:
  """Returns the first frame of a segment; segments are equal up to one frame.

  None is empty as long as there are no more segments than frames.

  >>> [segment_edge(i, 7, 3) for i in range(4)]
  [0, 2, 4, 7]
  """
  return segment * num_frames // num_segments


def segment_edges(
    num_frames: int, num_segments: int
) -> Int64[np.ndarray, "segments_plus_1"]:
  """Cuts frames into segments of equal length, up to one frame.

  Segment i holds the frames `edges[i] .. edges[i + 1] - 1`.

  >>> segment_edges(7, 3).tolist()
  [0, 2, 4, 7]
  """
  return segment_edge(np.arange(num_segments + 1), num_frames, num_segments)


def segment_centres(
    edges: Int64[np.ndarray, "segments_plus_1"],
) -> Int64[np.ndarray, "segments"]:
  """Returns the middle frame of each segment, the earlier one of two.

  >>> segment_centres(np.array([0, 2, 4, 7])).tolist()
  [0, 2, 5]
  """
  return (edges[:-1] + edges[1:] - 1) // 2


def _check_settings(
    sampling: str,
    crop_fraction: tuple[float, float],
    playback_rate: tuple[float, float],
) -> None:
  if sampling not in SAMPLINGS:
    raise ValueError(
        f"`augment.sampling` must be one of {', '.join(SAMPLINGS)}, got"
        f" {sampling!r}."
    )
  if not 0 < crop_fraction[0] <= crop_fraction[1] <= 1:
    raise ValueError(
        "`augment.crop_fraction` must be (low, high) with 0 < low <= high <="
        f" 1, got {crop_fraction}; (1.0, 1.0) switches it off."
    )
  if not 0 < playback_rate[0] <= playback_rate[1] < np.inf:
    raise ValueError(
        "`augment.playback_rate` must be (low, high) with 0 < low <= high, got"
        f" {playback_rate}; (1.0, 1.0) switches it off."
    )


def _sub_window(
    start: Any, length: Any, wanted: Any, fewest: Any, draw: Any, xp: Any
) -> tuple[Any, Any]:
  """Places a window of `wanted` frames, or as many as fit, inside another."""
  shorter = xp.minimum(xp.maximum(wanted, fewest), length)
  return start + _below(length - shorter + 1, draw, xp), shorter


def _below(count: Any, draw: Any, xp: Any) -> Any:
  """Turns a uniform draw into one of the whole numbers below `count`."""
  # Below 2^24 frames not even float32's largest draw is rounded up to `count`.
  return (draw * _real(count, draw)).astype(xp.int32)


def _rounded(value: Any, xp: Any) -> Any:
  return xp.rint(value).astype(xp.int32)


def _real(count: Any, like: Any) -> Any:
  # Named: NumPy alone would turn int32 times float32 into float64.
  return count.astype(like.dtype)
