"""Makes small video files whose frames tell their number.

The lower half of a picture is a texture that moves, so that a frame without
the frames it builds on looks wrong. The upper half holds twelve blocks, dark or
bright: the frame's number as a Gray code, so that neighbours differ in one.
"""

import dataclasses
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

_COLUMNS, _ROWS = 6, 4  # Of blocks; the upper two rows tell the number.
_DARK, _BRIGHT = 40, 216
RATE = 25
# By the beginning of a sample format's name.
_SAMPLES = {
    "s16": (np.int16, 2**15 - 1),
    "s32": (np.int32, 2**31 - 1),
    "flt": (np.float32, 1),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
  """One file of the corpus and what must become of it.

  Attributes:
    group: Row of the table.
    name: The file's, unique.
    write: Makes the file at a path.
    must: "taken" (intact), "refused" (no video) or "either" (damaged: taken or
      listed).
    needs_ffmpeg: Whether the command is needed to make it.
    times: When each frame begins, and when the last one ends, in any unit; None
      = each lasts equally long.
    slack: By how many frames a choice may miss; None = by any.
    size: Width and height as shown; None = as stored.
    turn: Turns a stored picture upright.
    is_toned: Whether brightness may be mapped (HDR).
    is_compared: Whether its pictures are compared at all.
  """

  group: str
  name: str
  write: Callable[[pathlib.Path], None]
  must: str = "taken"
  needs_ffmpeg: bool = False
  times: tuple[float, ...] | None = None
  slack: int | None = 1
  size: tuple[int, int] | None = None
  turn: Callable[[np.ndarray], np.ndarray] | None = None
  is_toned: bool = False
  is_compared: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coding:
  """How PyAV writes a file.

  Attributes:
    codec: FFmpeg's name of the encoder.
    pixels: Pixel format.
    options: Of the encoder, `key=value key=value`.
    container: Options of the container, in the same form.
    container_format: Name of the container; None = by the suffix.
    rate: Frames a second.
    sound: Encoder of a second stream; None = no sound.
    sound_seconds: Its length.
    sound_first: Whether it is the first stream.
    last_frames: How many frames long the last one stays on the screen.
    retime: Changes (pts, dts, position) of a packet to (pts, dts).
    prepare: Called with the video stream before the first frame.
  """

  codec: str = "libx264"
  pixels: str = "yuv420p"
  options: str = ""
  container: str = ""
  container_format: str | None = None
  rate: Fraction | int = RATE
  sound: str | None = None
  sound_seconds: float = 2.0
  sound_first: bool = False
  last_frames: int = 1
  retime: Callable[[int, int, int], tuple[int, int]] | None = None
  prepare: Callable[[Any], None] | None = None


def pictures(count: int, *, width=96, height=64, first=0) -> np.ndarray:
  """Draws frames number `first` ... as RGB `[count, height, width, 3]`."""
  rng = np.random.default_rng(0)
  rows, cell = height // 2, max(2, height // 16)
  texture = rng.integers(96, 160, (rows // cell + 1, 512 // cell + 1, 3))
  texture = (texture + 3 * texture.mean(axis=-1, keepdims=True)) / 4
  texture = texture.repeat(cell, axis=0).repeat(cell, axis=1)
  column = np.arange(width) * _COLUMNS // width
  row = np.arange(height - rows) * (_ROWS // 2) // (height - rows)
  bit = row[:, None] * _COLUMNS + column[None]
  drawn = np.empty((count, height, width, 3), np.uint8)
  for place in range(count):
    number = first + place
    gray = number ^ (number >> 1)
    drawn[place, : height - rows] = np.where((gray >> bit) & 1, _BRIGHT, _DARK)[
        ..., None
    ]
    moved = (np.arange(width) + 3 * number) % texture.shape[1]
    drawn[place, height - rows :] = texture[:rows][:, moved]
  return drawn


def write(
    path: pathlib.Path, frames: np.ndarray, coding: Coding = Coding()
) -> None:
  """Writes RGB frames by PyAV."""
  import av

  with av.open(
      str(path),
      "w",
      format=coding.container_format,
      options=_parse(coding.container),
  ) as container:
    sound = None
    if coding.sound and coding.sound_first:
      sound = container.add_stream(coding.sound, rate=48000)
    video = container.add_stream(
        coding.codec, rate=coding.rate, options=_parse(coding.options)
    )
    video.height, video.width = frames.shape[1:3]
    video.pix_fmt = coding.pixels
    video.bit_rate = 3_000_000
    if coding.prepare:
      coding.prepare(video)
    if coding.sound and not coding.sound_first:
      sound = container.add_stream(coding.sound, rate=48000)
    if sound:
      sound.bit_rate = 128_000
    position = 0
    for frame in [*frames, None]:
      if frame is not None:
        frame = av.VideoFrame.from_ndarray(frame, format="rgb24")
      for packet in video.encode(frame):
        if coding.retime:
          packet.pts, packet.dts = coding.retime(
              packet.pts, packet.dts, position
          )
        position += 1
        if position == len(frames) and coding.last_frames > 1:
          packet.duration = coding.last_frames
        container.mux(packet)
    if sound:
      for packet in tone(sound, coding.sound_seconds):
        container.mux(packet)


def _parse(text: str) -> dict[str, str]:
  return dict(part.split("=", 1) for part in text.split())


def tone(stream: Any, seconds: float):
  """Gives the packets of a tone."""
  import av

  context = stream.codec_context
  context.open(strict=False)
  size = context.frame_size or 1024
  form = context.format.name
  is_planar = form.endswith("p")
  channels = context.layout.nb_channels
  for start in range(0, int(seconds * 48000), size):
    wave = np.sin((np.arange(size) + start) * 2 * np.pi * 440 / 48000) / 4
    dtype, scale = _SAMPLES[form[:3]]
    wave = (wave * scale).astype(dtype)
    if is_planar:
      wave = np.stack([wave] * channels)
    else:
      wave = wave.repeat(channels)[None]
    frame = av.AudioFrame.from_ndarray(
        wave, format=form, layout=context.layout.name
    )
    frame.sample_rate, frame.pts = 48000, start
    frame.time_base = Fraction(1, 48000)
    yield from stream.encode(frame)
  yield from stream.encode(None)


def pyav_case(
    group: str, name: str, frames: Callable[[], np.ndarray] | int, **fields
) -> Case:
  """Makes a case that PyAV writes; `fields` are of `Coding` or of `Case`."""
  ours = {field.name for field in dataclasses.fields(Case)} & fields.keys()
  case = {key: fields.pop(key) for key in ours}
  coding = Coding(**fields)

  def make(path):
    drawn = pictures(frames) if isinstance(frames, int) else frames()
    write(path, drawn, coding)

  return Case(group=group, name=name, write=make, **case)


def has_ffmpeg() -> bool:
  """Says whether the command is installed."""
  return shutil.which("ffmpeg") is not None


def run_ffmpeg(
    arguments: Sequence[str], frames: np.ndarray | None = None, *, rate=RATE
) -> None:
  """Runs ffmpeg, frames being its first input.

  Raises:
    RuntimeError: If it fails, with what it said.
  """
  command = ["ffmpeg", "-v", "error", "-nostdin", "-y"]
  if frames is not None:
    height, width = frames.shape[1:3]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-r", str(rate)]
    command += ["-s", f"{width}x{height}", "-i", "-"]
  done = subprocess.run(
      [*command, *arguments],
      input=None if frames is None else frames.tobytes(),
      capture_output=True,
      timeout=120,
  )
  if done.returncode:
    raise RuntimeError(done.stderr.decode(errors="replace")[-500:])


def ffmpeg_case(
    group: str, name: str, frames: int | None, arguments: str, **fields
) -> Case:
  """Makes a case that ffmpeg writes.

  Args:
    group: Row of the table.
    name: The file's.
    frames: How many it gets as its first input; None = no such input.
    arguments: Words parted by spaces.
    **fields: Of `Case`, and `rate`.
  """
  rate = fields.pop("rate", RATE)

  def make(path):
    drawn = None if frames is None else pictures(frames)
    run_ffmpeg([*arguments.split(), str(path)], drawn, rate=rate)

  return Case(group=group, name=name, write=make, needs_ffmpeg=True, **fields)


def derived_case(
    group: str,
    name: str,
    source: Case,
    change: Callable[[pathlib.Path, pathlib.Path], None],
    **fields,
) -> Case:
  """Makes a case that changes another one's file: `change(source, target)`."""

  def make(path):
    with tempfile.TemporaryDirectory() as folder:
      made = pathlib.Path(folder) / source.name
      source.write(made)
      change(made, path)

  fields = {"needs_ffmpeg": source.needs_ffmpeg} | fields
  return Case(group=group, name=name, write=make, **fields)


def copied_case(
    group: str, name: str, source: Case, before: str, after: str, **fields
) -> Case:
  """Makes a case by `ffmpeg before -i source -c copy after`."""

  def change(made, path):
    run_ffmpeg(
        [*before.split(), "-i", str(made), "-c", "copy", *after.split()]
        + [str(path)]
    )

  return derived_case(group, name, source, change, needs_ffmpeg=True, **fields)
