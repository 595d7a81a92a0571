"""When frames are on screen, and which of them stand for a video.

Times of a file are believed but for two things: what was put together of
several recordings starts anew in the middle, and a clock that was set anew
leaves an hour in which nothing is shown. Both are taken out.
"""

import numpy as np
from jaxtyping import Float64, Int64

# Matroska and FLV round times to 1 ms. So the end of a frame counts as lying
# on the centre of a segment where it is no further than that away.
_SLACK_SECONDS = 1e-3
# No picture is shown for so long, if it is also longer than all that moves:
# 60 s of a still are common in slides and screen recordings.
_LONGEST_STILL_SECONDS = 60.0
_LONGEST_STILL_FRAMES = 10
_MOST_STEPS_BACK = 0.1


def continuous_times(
    times: Float64[np.ndarray, "frames"],
) -> tuple[Float64[np.ndarray, "frames"], float]:
  """Takes jumps out of the times of frames.

  A step back, or one longer than `longest_still`, becomes a typical step.
  Times of which more than a tenth of the steps lead back say nothing.

  Args:
    times: In seconds, in the order in which frames are shown.

  Returns:
    The times, from the same first one on, strictly increasing; and the
    typical step between two frames, in seconds.

  >>> continuous_times(np.array([0.0, 1, 2, 7202, 7203]))[0].tolist()
  [0.0, 1.0, 2.0, 3.0, 4.0]
  >>> continuous_times(np.array([0.0, 9.0, 9.5]))[0].tolist()  # A still.
  [0.0, 9.0, 9.5]
  """
  steps = np.diff(times)
  if (steps <= 0).sum() > _MOST_STEPS_BACK * len(steps):
    return times[0] + np.arange(float(len(times))), 1.0
  is_jump = (steps <= 0) | (steps > longest_still(steps))
  typical = float(np.median(steps[~is_jump])) if (~is_jump).any() else 1.0
  steps = np.where(is_jump, typical, steps)
  return times[0] + np.concatenate([[0.0], np.cumsum(steps)]), typical


def longest_still(steps: Float64[np.ndarray, "steps"]) -> float:
  """Returns what a picture may last, in seconds; beyond, the clock jumped.

  Args:
    steps: Between frames, in seconds.
  """
  forward = steps[steps > 0]
  if not len(forward):
    return _LONGEST_STILL_SECONDS
  moving = forward[forward <= _LONGEST_STILL_SECONDS].sum()
  typical = _LONGEST_STILL_FRAMES * np.median(forward)
  return float(max(_LONGEST_STILL_SECONDS, moving, typical))


def choose_frames(
    times: Float64[np.ndarray, "frames"], *, end: float, num_frames: int
) -> Int64[np.ndarray, "chosen"]:
  """Chooses the frames on screen at the centres of equal segments of time.

  Where one frame ends and the next begins at the centre, the earlier one is
  taken. A frame that lasts over several segments is taken for each of them,
  as a copy of the video at a constant rate would show it that often.

  Args:
    times: When each frame begins, in seconds, increasing.
    end: When the last one ends.
    num_frames: How many to choose; fewer where the same video at a constant
      rate, that of the shortest steps, would have fewer.

  Returns:
    Positions in `times`, not decreasing.

  >>> choose_frames(np.arange(8.0), end=8.0, num_frames=2).tolist()
  [1, 5]
  >>> choose_frames(np.array([0.0, 7.0, 7.5]), end=8.0, num_frames=3).tolist()
  [0, 0, 0]
  >>> choose_frames(np.array([0.0, 1.0]), end=2.0, num_frames=25).tolist()
  [0, 1]
  """
  begins = np.append(times[1:], end)
  # One odd step between hundreds does not make a faster video.
  shortest = np.quantile(begins - times, 0.1, method="higher") + _SLACK_SECONDS
  count = max(len(times), int((end - times[0]) / shortest))
  count = min(num_frames, count)
  segment = (end - times[0]) / count
  centres = times[0] + (np.arange(count) + 0.5) * segment - _SLACK_SECONDS
  chosen = np.searchsorted(begins, centres)
  return np.minimum(chosen, len(times) - 1).astype(np.int64)
