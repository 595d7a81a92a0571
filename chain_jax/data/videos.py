"""A video file -> frames as RGB pixels, by PyAV (FFmpeg's libraries).

A file is read twice. The first time only its packets count: when each frame
is shown, and where decoding can start. The second time what lies between a
key frame and a chosen frame is decoded, and the chosen frames become RGB.
Where that shortcut does not deliver each chosen frame without a complaint
(odd times, hidden frames, damage), everything is decoded.

What is damaged: one bad frame spoils those that build on it, mostly without a
sign. So a file is refused when the decoder complains once about anything that
it was given from the first key frame on, when a packet is marked as broken, or
when less than 90 % of the announced time is there and the file is not known to
be whole. No damage is that pictures lack what they build on where a recording
starts, or another one follows: files are cut and joined so.

Four things pass: damage where nothing is decoded; a cut in formats that
announce no length (MPEG-TS, GIF, some WMV), whose first part then is the video;
wrong references in the first group of pictures after such a start; and what the
decoder itself does not notice, such as a flipped bit that makes another valid
stream (VP8, VP9 and HEVC notice little).
"""

import contextlib
import itertools
import pathlib
import re
from collections.abc import Iterator
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from chain_jax import errors
from chain_jax.data import (
    video_clock,
    video_container,
    video_index,
    video_pixels,
)
from chain_jax.data.video_completeness import VideoError
from chain_jax.data.video_index import PacketIndex

# What H.264 and HEVC say of pictures to build on that are not there.
_ABOUT_REFERENCES = re.compile(
    r"mmco|missing reference|reference picture missing|could not find ref"
    r"|co located|number of reference frames",
    re.IGNORECASE,
)
# What is said of every picture of some intact files: of messages beside the
# pictures, of pictures without colours, of blocks of a track that is not there.
_HARMLESS = re.compile(
    r"^SEI type|^Overread VUI|^gray chroma|^ext header missing"
    r"|^Invalid track number"
)


def decode_video(
    path: str | pathlib.Path, *, num_frames: int, short_side: int
) -> UInt8[np.ndarray, "t height width 3"]:
  """Decodes frames spread evenly over a video's time.

  Args:
    path: A file. The best video stream counts; cover pictures do not.
    num_frames: How many frames, at most: those on screen at the centres of as
      many equal segments of time, see `video_clock.choose_frames`.
    short_side: Of the frames in pixels; the other side follows from the
      aspect ratio as it is shown, with pixels that are not square and with
      rotation taken into account.

  Returns:
    RGB; t is `num_frames`, or fewer where the file has fewer.

  Raises:
    VideoError: If the file is missing, no video, or damaged.
    errors.InputError: If PyAV is not installed.
  """
  if num_frames < 1 or short_side < 1:
    raise ValueError(
        "`num_frames` and `short_side` must be >= 1, got"
        f" {num_frames} and {short_side}."
    )
  path = pathlib.Path(path)
  av = video_container.import_av()
  with av.logging.Capture() as complaints:
    try:
      decoder = _Decoder(av, path, short_side, complaints)
      return decoder.decode(num_frames)
    except (VideoError, errors.InputError):
      raise
    # A stranger's file can bring PyAV to raise anything.
    except Exception as error:
      raise VideoError(_reason(av, error, complaints)) from error


def _reason(av: ModuleType, error: Exception, complaints: list[Any]) -> str:
  if any("whitelist" in text for _, _, text in complaints):
    return "not in a format of video files"
  if isinstance(error, av.error.InvalidDataError | av.error.EOFError):
    return "not a video, or damaged at its beginning"
  if isinstance(error, MemoryError):
    return "needs more memory than there is"
  return f"cannot be read: {errors.one_line(error)}"


class _Complaint(Exception):
  """The decoder gave a sign of damage; the text is a short reason."""


class _Decoder:
  """Decodes one file."""

  def __init__(
      self,
      av: ModuleType,
      path: pathlib.Path,
      short_side: int,
      complaints: list[Any],
  ) -> None:
    self._av = av
    self._path = path
    self._short_side = short_side
    self._complaints = complaints  # What FFmpeg logs, errors only.
    self._size: video_pixels.PictureSize | None = None
    self._pixel_aspect: Fraction | None = None
    self._matrix: np.ndarray | None = None

  def decode(self, num_frames: int) -> np.ndarray:
    """Returns the chosen frames."""
    with self._open() as (container, stream):
      index = video_index.read_index(container, stream)
    frames = None
    if index.pts is not None and not self._complaints:
      with contextlib.suppress(_Complaint, self._av.FFmpegError):
        frames = self._decode_runs(index, num_frames)
    if frames is None:
      try:
        frames = self._decode_all(index, num_frames)
      except _Complaint as complaint:
        raise VideoError(f"damaged: {complaint}") from None
    return video_pixels.turn_upright(np.stack(frames), self._matrix)

  def _decode_runs(
      self, index: PacketIndex, num_frames: int
  ) -> list[np.ndarray] | None:
    """Decodes what is needed; None where frames do not come as foreseen."""
    shown = np.flatnonzero(index.is_shown)
    shown = shown[np.argsort(index.pts[shown])]
    chosen = video_clock.choose_frames(
        index.pts[shown], end=index.end, num_frames=num_frames
    )
    wanted = shown[chosen].tolist()
    frames: dict[int, np.ndarray] = {}
    latest = -np.inf
    runs = video_index.plan_runs(index, shown[chosen])
    starts = {run.start for run in runs}
    for packet, _, frame in self._frames(index, runs):
      if packet is None or index.pts[packet] <= latest:
        return None
      if packet in starts and not frame.key_frame:
        return None  # Some encoders call every packet a key frame.
      latest = index.pts[packet]
      if packet in wanted:
        frames[packet] = self._to_rgb(frame)
    if len(frames) < len(set(wanted)):
      return None
    return [frames[packet] for packet in wanted]

  def _decode_all(
      self, index: PacketIndex, num_frames: int
  ) -> list[np.ndarray]:
    """Decodes everything twice: to see which frames come, then to take some."""
    everything = [video_index.Run(index.start, len(index.is_key))]
    times = [time for _, time, _ in self._frames(index, everything)]
    if not times:
      raise VideoError("no frame comes out of the decoder")
    begins = np.arange(float(len(times)))
    if None not in times:
      begins, _ = video_clock.continuous_times(np.array(times))
    mean = np.diff(begins).mean() if len(begins) > 1 else 1.0
    chosen = video_clock.choose_frames(
        begins, end=float(begins[-1] + mean), num_frames=num_frames
    ).tolist()
    wanted = set(chosen)
    frames = {
        position: self._to_rgb(frame)
        for position, (_, _, frame) in enumerate(
            self._frames(index, everything)
        )
        if position in wanted
    }
    return [frames[position] for position in chosen]

  def _frames(
      self, index: PacketIndex, runs: list[video_index.Run]
  ) -> Iterator[tuple[int | None, float | None, Any]]:
    """Decodes some packets and gives (packet, time in seconds, frame)."""
    packet_of = {}
    if index.pts is not None:
      packet_of = {tick: at for at, tick in enumerate(index.ticks.tolist())}
    orphans, is_near_orphan = video_index.missing_references(index, runs)
    waiting = list(reversed(runs))
    with self._open() as (container, stream):
      tick = float(stream.time_base)
      packets = (packet for packet in container.demux(stream) if packet.size)
      for number, packet in enumerate(packets):
        if not waiting:
          break
        if number < waiting[-1].start:
          continue
        decoded = self._decode_packet(
            stream,
            packet,
            is_orphan=bool(orphans[number]),
            is_near_orphan=bool(is_near_orphan[number]),
        )
        if number == waiting[-1].stop - 1:
          decoded += stream.decode(None)
          stream.codec_context.flush_buffers()
          waiting.pop()
        for frame in decoded:
          source = packet_of.get(frame.pts)
          if source is not None and orphans[source]:
            continue
          self._check(frame)
          has_time = index.ticks is not None and frame.pts is not None
          yield source, frame.pts * tick if has_time else None, frame
      if waiting:
        raise _Complaint("it ends early")
      self._check()

  def _decode_packet(
      self, stream: Any, packet: Any, *, is_orphan: bool, is_near_orphan: bool
  ) -> list[Any]:
    """Decodes a packet; that references are not there is no damage."""
    known = len(self._complaints)
    try:
      return stream.decode(packet)
    except self._av.FFmpegError:
      if not is_orphan:
        raise
      return []
    finally:
      if is_near_orphan:
        self._complaints[known:] = [
            complaint
            for complaint in self._complaints[known:]
            if not is_orphan and not _ABOUT_REFERENCES.search(complaint[2])
        ]

  def _check(self, frame: Any = None) -> None:
    texts = [text for _, _, text in self._complaints]
    for text in itertools.filterfalse(_HARMLESS.search, texts):
      raise _Complaint(" ".join(text.split()) or "the decoder complains")
    if frame is not None and frame.is_corrupt:
      raise _Complaint("a frame has faults")

  def _to_rgb(self, frame: Any) -> np.ndarray:
    if self._size is None:
      self._matrix = video_pixels.display_matrix(frame)
      self._size = video_pixels.picture_size(
          frame.width,
          frame.height,
          pixel_aspect=self._pixel_aspect,
          short_side=self._short_side,
      )
    return video_pixels.to_rgb(frame, self._size)

  @contextlib.contextmanager
  def _open(self) -> Iterator[tuple[Any, Any]]:
    with video_container.open_video(self._av, self._path) as opened:
      aspect = opened[1].sample_aspect_ratio  # Unknown: None, or 0/1.
      if aspect:
        self._pixel_aspect = Fraction(aspect.numerator, aspect.denominator)
      # What FFmpeg says while it guesses at a file's contents tells nothing.
      self._complaints.clear()
      yield opened
