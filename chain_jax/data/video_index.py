"""Which frames a video file holds, when each is shown, and which to decode.

All of it is read from the packets of a file; no picture is decoded for it.

Times of a file are believed but for two things: what was put together of
several recordings starts anew in the middle, and a clock that was set anew
leaves an hour in which nothing is shown. Both are taken out, see
`continuous_times`.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from chain_jax.data import video_completeness
from chain_jax.data.video_completeness import VideoError

# Matroska and FLV round times to 1 ms. So the end of a frame counts as lying
# on the centre of a segment where it is no further than that away.
_SLACK_SECONDS = 1e-3
# No picture is shown for so long, if it is also longer than all that moves:
# 60 s of a still are common in slides and screen recordings.
_LONGEST_STILL_SECONDS = 60.0
_LONGEST_STILL_FRAMES = 10


class PacketIndex(NamedTuple):
  """The packets of a video stream, in the order of decoding.

  Attributes:
    pts: When each packet's frame is shown, in seconds, without jumps; None
      where the file's times are missing, repeat, or are known to be wrong.
    is_key: Where decoding can start.
    is_shown: False where an edit list hides a frame, or where its key frame
      is not there.
    end: When the last frame's time is over, in seconds.
    ticks: The times as they are stored, in the stream's time base; None where
      they are missing or wrong.
    is_first: The first key frame of each recording.
  """

  pts: Float64[np.ndarray, "packets"] | None
  is_key: Bool[np.ndarray, "packets"]
  is_shown: Bool[np.ndarray, "packets"]
  end: float
  ticks: Int64[np.ndarray, "packets"] | None = None
  is_first: Bool[np.ndarray, "packets"] | None = None

  @property
  def start(self) -> int:
    """The first packet that can be decoded; 0 where none says so."""
    return int(np.argmax(self.is_key))


class Run(NamedTuple):
  """Packets `start .. stop - 1`, to be decoded in one go."""

  start: int
  stop: int


def read_index(container: Any, stream: Any) -> PacketIndex:
  """Reads all packets of a video.

  Args:
    container: An `av.container.InputContainer` that was just opened.
    stream: Its video stream.

  Raises:
    VideoError: If no frame is there, a packet is marked as damaged, or the
      packets cover less than 90 % of the time that the file announces.
  """
  packets = []
  for packet in container.demux(stream):
    # In a transport stream it says that a counter jumped, as where two files
    # were joined; whether a picture was lost the decoder knows.
    if packet.is_corrupt and container.format.name != "mpegts":
      raise VideoError("damaged: one of its packets is broken")
    if packet.size:
      pts = packet.pts if _has_right_times(container, stream) else None
      flags = (packet.is_keyframe, not packet.is_discard)
      packets.append((pts, packet.duration or 0, *flags))
  if not packets:
    raise VideoError("no video frame is in it")
  pts, durations, is_key, is_shown = zip(*packets, strict=True)
  index = _make_index(
      None if None in pts else np.array(pts),
      np.array(durations),
      is_key=np.array(is_key),
      is_shown=np.array(is_shown),
      tick=float(stream.time_base),
  )
  video_completeness.check_complete(
      _seconds_found(index, stream), container, stream
  )
  return index


def _seconds_found(index: PacketIndex, stream: Any) -> float | None:
  """Returns how long a video's packets last, or None where that is open."""
  if index.pts is None:
    rate = stream.average_rate
    return len(index.is_key) / float(rate) if rate else None
  tick = float(stream.time_base)
  last = index.ticks.max() * tick + index.end - index.pts.max()
  # Some formats announce the length, some the time of the end.
  return float(max(last, last - index.ticks.min() * tick))


def _has_right_times(container: Any, stream: Any) -> bool:
  # AVI stores no times. FFmpeg derives them for MPEG-4, but not for these.
  codec = stream.codec_context.name
  return not (container.format.name == "avi" and codec in ("h264", "hevc"))


def _make_index(
    ticks: Int64[np.ndarray, "packets"] | None,
    durations: Int64[np.ndarray, "packets"],
    *,
    is_key: Bool[np.ndarray, "packets"],
    is_shown: Bool[np.ndarray, "packets"],
    tick: float,
) -> PacketIndex:
  if ticks is None or not is_key.any() or len(set(ticks)) < len(ticks):
    return PacketIndex(None, is_key, is_shown, float("nan"), ticks)
  is_first = _first_keys(ticks, is_key)
  recording = np.maximum(np.cumsum(is_first) - 1, 0)
  # A recording may start anywhere, but decoding only at a key frame.
  is_shown = is_shown & (ticks >= ticks[is_first][recording])
  is_shown[: is_key.argmax()] = False
  if not is_shown.any():
    raise VideoError("no video frame is to be shown")
  order = np.lexsort((ticks, recording))
  times, typical = continuous_times(ticks[order] * tick)
  pts = np.empty(len(ticks))
  pts[order] = times
  last = int(np.argmax(np.where(is_shown, pts, -np.inf)))
  lasting = durations[last] * tick
  if not 0 < lasting <= longest_still(np.diff(times)):
    lasting = typical
  end = float(pts[last] + lasting)
  return PacketIndex(pts, is_key, is_shown, end, ticks, is_first)


def _first_keys(
    ticks: Int64[np.ndarray, "packets"], is_key: Bool[np.ndarray, "packets"]
) -> Bool[np.ndarray, "packets"]:
  """Finds the first key frame, and those earlier than the one before them."""
  keys = np.flatnonzero(is_key)
  is_first = np.zeros(len(ticks), bool)
  is_first[keys[np.append(True, np.diff(ticks[keys]) < 0)]] = True
  return is_first


def missing_references(
    index: PacketIndex, runs: list[Run]
) -> tuple[Bool[np.ndarray, "packets"], Bool[np.ndarray, "packets"]]:
  """Finds pictures whose references are not decoded, which is no damage.

  What is stored after a key frame and shown before it builds on the group of
  pictures before: it is an orphan where decoding, or a recording, starts here.

  Args:
    index: Of all packets.
    runs: What is decoded.

  Returns:
    The orphans; and all pictures of a group with orphans, in which a decoder
    may miss references that it was told to forget.
  """
  places = np.arange(len(index.is_key))
  if index.pts is None:
    return places < 0, places < 0
  key = np.maximum.accumulate(np.where(index.is_key, places, 0))
  is_start = index.is_first.copy()
  is_start[[run.start for run in runs]] = True
  is_orphan = is_start[key] & (index.pts < index.pts[key])
  return is_orphan, np.isin(key, key[is_orphan])


def continuous_times(
    times: Float64[np.ndarray, "frames"],
) -> tuple[Float64[np.ndarray, "frames"], float]:
  """Takes jumps out of the times of frames.

  A step back, or one longer than `longest_still`, becomes a typical step.

  Args:
    times: In seconds, in the order in which frames are shown.

  Returns:
    The times, from the same first one on, strictly increasing; and the
    typical step between two frames, in seconds.

  >>> continuous_times(np.array([0.0, 1, 2, 7202, 7203, 1]))[0].tolist()
  [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
  >>> continuous_times(np.array([0.0, 9.0, 9.5]))[0].tolist()  # A still.
  [0.0, 9.0, 9.5]
  """
  steps = np.diff(times)
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


def plan_runs(
    index: PacketIndex, wanted: Int64[np.ndarray, "wanted"]
) -> list[Run]:
  """Finds the least that must be decoded to see some frames.

  Args:
    index: With times.
    wanted: Packets whose frames are to be seen; with a key frame before each.

  Returns:
    Runs in order, apart from each other, each from a key frame on. What is
    shown before a key frame but stored after it may need the frames before,
    too, so it belongs to the run of an earlier key frame.

  >>> index = PacketIndex(
  ...     pts=np.array([0.0, 2, 1, 4, 3, 5]),
  ...     is_key=np.array([True, False, False, True, False, False]),
  ...     is_shown=np.ones(6, bool),
  ...     end=6.0,
  ... )
  >>> plan_runs(index, np.array([1, 5]))
  [Run(start=0, stop=2), Run(start=3, stop=6)]
  >>> plan_runs(index, np.array([2, 1]))
  [Run(start=0, stop=3)]
  >>> plan_runs(index, np.array([4]))  # Stored after the key frame at 4.
  [Run(start=0, stop=5)]
  """
  runs: list[Run] = []
  for packet in np.unique(wanted):
    until = slice(packet + 1)
    earlier = index.is_key[until] & (index.pts[until] <= index.pts[packet])
    start = int(np.flatnonzero(earlier)[-1])
    while runs and start < runs[-1].stop:
      start = min(start, runs.pop().start)
    runs.append(Run(start, int(packet) + 1))
  return runs
