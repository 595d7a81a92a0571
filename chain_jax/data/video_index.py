"""Which frames a video file holds, when each is shown, and which to decode.

All of it is read from the packets of a file; no picture is decoded for it.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from chain_jax.data import video_clock, video_completeness
from chain_jax.data.video_completeness import VideoError

# What a packet says of all that follow it.
_STANDING = ("palette", "new_extradata", "param_change")
# Codecs whose key frames forget all that was before, beside those that have
# nothing but such frames. Screen codecs keep a cursor, for one.
_FORGETFUL = frozenset(
    "av1 cavs ffv1 flv1 h261 h263 h264 hevc mpeg1video mpeg2video mpeg4"
    " msmpeg4v1 msmpeg4v2 msmpeg4v3 rv10 rv20 rv30 rv40 theora vc1 vp6 vp6f"
    " vp8 vp9 vvc wmv1 wmv2 wmv3".split()
)


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
  codec = stream.codec_context.codec
  is_standing = not (codec.intra_only or codec.canonical_name in _FORGETFUL)
  for packet in container.demux(stream):
    is_standing |= any(map(packet.has_sidedata, _STANDING))
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
  if is_standing:  # So no packet before a frame may be left out.
    only_first = np.arange(len(is_key)) == index.start
    index = index._replace(is_key=only_first)
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
  # A recording may start anywhere, but decoding only at a key frame.
  is_shown = is_shown & ~_orphans(ticks, is_key, is_first)
  is_shown[: is_key.argmax()] = False
  if not is_shown.any():
    raise VideoError("no video frame is to be shown")
  order = np.lexsort((ticks, np.cumsum(is_first)))
  times, typical = video_clock.continuous_times(ticks[order] * tick)
  pts = np.empty(len(ticks))
  pts[order] = times
  last = int(np.argmax(np.where(is_shown, pts, -np.inf)))
  lasting = durations[last] * tick
  if not 0 < lasting <= video_clock.longest_still(np.diff(times)):
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
    The orphans; and all pictures of a group in which a decoder may miss
    references that it is told to forget: the first of a recording, and one
    with orphans.
  """
  if index.pts is None:
    nowhere = np.zeros(len(index.is_key), bool)
    return nowhere, nowhere
  is_start = index.is_first.copy()
  is_start[[run.start for run in runs]] = True
  is_orphan = _orphans(index.pts, index.is_key, is_start)
  key = _own_key(index.is_key)
  return is_orphan, index.is_first[key] | np.isin(key, key[is_orphan])


def _orphans(
    times: np.ndarray,
    is_key: Bool[np.ndarray, "packets"],
    is_start: Bool[np.ndarray, "packets"],
) -> Bool[np.ndarray, "packets"]:
  """Finds what follows a key frame at a start at once and is shown before."""
  key = _own_key(is_key)
  num_shown_later = np.cumsum((times > times[key]) & ~is_key)
  is_next = num_shown_later == num_shown_later[key]
  return is_start[key] & (times < times[key]) & is_next


def _own_key(is_key: Bool[np.ndarray, "packets"]) -> Int64[np.ndarray, "_"]:
  """Names each packet's key frame, the last one up to it."""
  places = np.arange(len(is_key))
  return np.maximum.accumulate(np.where(is_key, places, 0))


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
  for packet in np.unique(wanted):
    until = slice(packet + 1)
    earlier = index.is_key[until] & (index.pts[until] <= index.pts[packet])
    # Without one, times contradict the order, which decoding will show.
    start = int(np.flatnonzero(earlier)[-1]) if earlier.any() else index.start
    while runs and start < runs[-1].stop:
      start = min(start, runs.pop().start)
    runs.append(Run(start, int(packet) + 1))
  return runs
