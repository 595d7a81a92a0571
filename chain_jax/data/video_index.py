"""Which frames a video file holds, when each is shown, and which to decode.

All of it is read from the packets of a file; no picture is decoded for it.
"""

import re
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

# A file that holds less of the time it announces was cut off.
_SMALLEST_SHARE = 0.9
# Matroska and FLV round times to 1 ms. So the end of a frame counts as lying
# on the centre of a segment where it is no further than that away.
_SLACK_SECONDS = 1e-3


class VideoError(ValueError):
  """A file cannot be turned into frames; the text is a short reason."""


class PacketIndex(NamedTuple):
  """The packets of a video stream, in the order of decoding.

  Attributes:
    pts: When each packet's frame is shown, in seconds; None where the file's
      times are missing, repeat, or are known to be wrong.
    is_key: Where decoding can start.
    is_shown: False where an edit list hides a frame, or where its key frame
      is not there.
    end: When the last frame's time is over, in seconds.
  """

  pts: Float64[np.ndarray, "packets"] | None
  is_key: Bool[np.ndarray, "packets"]
  is_shown: Bool[np.ndarray, "packets"]
  end: float


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
    if packet.is_corrupt:
      raise VideoError("damaged: one of its packets is broken")
    if packet.size:
      pts = packet.pts if _has_right_times(container, stream) else None
      flags = (packet.is_keyframe, not packet.is_discard)
      packets.append((pts, packet.duration or 0, *flags))
  if not packets:
    raise VideoError("no video frame is in it")
  pts, durations, is_key, is_shown = zip(*packets, strict=True)
  index = _make_index(
      None if None in pts or len(set(pts)) < len(pts) else np.array(pts),
      np.array(durations),
      is_key=np.array(is_key),
      is_shown=np.array(is_shown),
      tick=float(stream.time_base),
  )
  _check_complete(index, container, stream)
  return index


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
  if ticks is None:
    return PacketIndex(None, is_key, is_shown, end=float("nan"))
  # A recording may start anywhere, but decoding only at a key frame.
  is_shown = is_shown & (ticks >= ticks[np.argmax(is_key)])
  if not is_shown.any():
    raise VideoError("no video frame is to be shown")
  last = int(np.argmax(np.where(is_shown, ticks, ticks.min())))
  shown = ticks[is_shown]
  mean = (shown.max() - shown.min()) / max(1, len(shown) - 1)
  end = (ticks[last] + (durations[last] or max(mean, 1))) * tick
  return PacketIndex(ticks * tick, is_key, is_shown, end=float(end))


def _check_complete(index: PacketIndex, container: Any, stream: Any) -> None:
  announced = _announced_seconds(container, stream)
  if announced is None:
    return
  if index.pts is not None:
    # Some formats announce the length, some the time of the end.
    found = max(index.end, index.end - index.pts.min())
  elif stream.average_rate:
    found = len(index.is_key) / float(stream.average_rate)
  else:
    return
  if found < _SMALLEST_SHARE * announced:
    raise VideoError(
        f"cut off: it announces {announced:.1f} s and holds {found:.1f} s"
    )


def _announced_seconds(container: Any, stream: Any) -> float | None:
  if stream.duration:
    return float(stream.duration * stream.time_base)
  tag = re.fullmatch(
      r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", "")
  )
  if tag:
    hours, minutes, seconds = map(float, tag.groups())
    return 3600 * hours + 60 * minutes + seconds
  if container.duration and len(container.streams) == 1:
    return container.duration * 1e-6
  return None


def choose_frames(
    times: Float64[np.ndarray, "frames"], *, end: float, num_frames: int
) -> Int64[np.ndarray, "chosen"]:
  """Chooses the frames on screen at the centres of equal segments of time.

  Where one frame ends and the next begins at the centre, the earlier one is
  taken. No frame is taken twice: one that lasts over several segments is
  followed by its neighbours.

  Args:
    times: When each frame begins, in seconds, increasing.
    end: When the last one ends.
    num_frames: How many to choose; all where there are no more.

  Returns:
    Positions in `times`, increasing.

  >>> choose_frames(np.arange(8.0), end=8.0, num_frames=2).tolist()
  [1, 5]
  >>> choose_frames(np.array([0.0, 7.0, 7.5]), end=8.0, num_frames=2).tolist()
  [0, 1]
  """
  count = min(num_frames, len(times))
  slots = np.arange(count)
  segment = (end - times[0]) / count
  centres = times[0] + (slots + 0.5) * segment - _SLACK_SECONDS
  chosen = np.searchsorted(np.append(times[1:], end), centres)
  chosen = np.maximum.accumulate(chosen - slots) + slots
  return np.minimum(chosen, len(times) - count + slots).astype(np.int64)


def plan_runs(
    index: PacketIndex, wanted: Int64[np.ndarray, "wanted"]
) -> list[Run]:
  """Finds the least that must be decoded to see some frames.

  Args:
    index: With times.
    wanted: Packets whose frames are to be seen.

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
  for packet in np.sort(wanted):
    until = slice(packet + 1)
    earlier = index.is_key[until] & (index.pts[until] <= index.pts[packet])
    start = int(np.flatnonzero(earlier)[-1])
    if runs and start < runs[-1].stop:
      runs[-1] = Run(runs[-1].start, int(packet) + 1)
    else:
      runs.append(Run(start, int(packet) + 1))
  return runs
