"""Which frames of a video a view shows."""

import numpy as np
from jaxtyping import Bool, Int64

SAMPLINGS = ("segments", "uniform", "consecutive")


def sample_frame_indices(
    num_frames_in_video: int,
    *,
    num_frames: int,
    sampling: str,
    crop_fraction: tuple[float, float] = (1.0, 1.0),
    playback_rate: tuple[float, float] = (1.0, 1.0),
    rng: np.random.Generator,
) -> tuple[Int64[np.ndarray, "view_frames"], Bool[np.ndarray, "view_frames"]]:
  """Draws which frames one view shows, in their order, none twice.

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
    num_frames_in_video: >= 1.
    num_frames: Slots of the view, T; >= 1.
    sampling: One of `SAMPLINGS`.
    crop_fraction: Smallest and largest share of the video, 0 < low <= high
      <= 1; (1, 1) = no crop.
    playback_rate: Smallest and largest rate, 0 < low <= high; (1, 1) = off.
    rng: Gives all draws.

  Returns:
    The frame of each slot, and which slots show one. A padded slot repeats
    the last frame's index.

  Raises:
    ValueError: If a setting breaks its rule.
  """
  _check_settings(sampling, crop_fraction, playback_rate)
  fewest = min(2, num_frames_in_video, num_frames)
  wanted = round(rng.uniform(*crop_fraction) * num_frames_in_video)
  start, length = _sub_window(0, num_frames_in_video, wanted, fewest, rng)
  if sampling == "consecutive":
    start, length = _sub_window(start, length, num_frames, fewest, rng)
  rate = np.exp(rng.uniform(*np.log(playback_rate)))
  wanted = round(length * min(1, rate))
  start, length = _sub_window(start, length, wanted, fewest, rng)
  num_filled = min(num_frames, length)
  num_filled = max(round(num_filled / max(1, rate)), fewest)
  edges = start + segment_edges(length, num_filled)
  if sampling == "segments":
    chosen = rng.integers(edges[:-1], edges[1:])
  else:
    chosen = segment_centres(edges) if sampling == "uniform" else edges[:-1]
  indices = np.full(num_frames, chosen[-1], np.int64)
  indices[:num_filled] = chosen
  return indices, np.arange(num_frames) < num_filled


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
    start: int,
    length: int,
    wanted: int,
    fewest: int,
    rng: np.random.Generator,
) -> tuple[int, int]:
  """Draws a window of `wanted` frames, or as many as fit, inside another."""
  shorter = min(max(wanted, fewest), length)
  return start + int(rng.integers(length - shorter + 1)), shorter


def segment_edges(
    num_frames: int, num_segments: int
) -> Int64[np.ndarray, "segments_plus_1"]:
  """Cuts frames into segments of equal length, up to one frame.

  Segment i holds the frames `edges[i] .. edges[i + 1] - 1`; none is empty as
  long as there are no more segments than frames.

  >>> segment_edges(7, 3).tolist()
  [0, 2, 4, 7]
  """
  return np.arange(num_segments + 1) * num_frames // num_segments


def segment_centres(
    edges: Int64[np.ndarray, "segments_plus_1"],
) -> Int64[np.ndarray, "segments"]:
  """Returns the middle frame of each segment, the earlier one of two.

  >>> segment_centres(np.array([0, 2, 4, 7])).tolist()
  [0, 2, 5]
  """
  return (edges[:-1] + edges[1:] - 1) // 2
