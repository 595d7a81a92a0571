"""Writes small video files of many kinds. Import it after PyAV was found."""

import pathlib
import struct
import time
from fractions import Fraction

import av
import numpy as np

from chain_jax.data import video_views


class HangingLoader(video_views.ViewLoader):
  """Decodes all but one video, on which it hangs."""

  def __call__(self, file):
    """Decodes a video."""
    if file.id.endswith("clip4.mp4"):
      time.sleep(600)
    return super().__call__(file)


def counting_frames(num_frames, *, height=48, width=64):
  """Frames that tell their number by their brightness: 8 * number + 4."""
  levels = (np.arange(num_frames) * 8 % 248 + 4).astype(np.uint8)
  shape = (num_frames, height, width, 3)
  return np.broadcast_to(levels[:, None, None, None], shape).copy()


def frame_numbers(frames):
  """Reads the numbers of `counting_frames` back, below 31."""
  return np.rint((frames.mean(axis=(1, 2, 3)) - 4) / 8).astype(int).tolist()


def moving_frames(num_frames, *, height=96, width=128, seed=0):
  """Blocks of random colour that move left by 3 pixels a frame."""
  rng = np.random.default_rng(seed)
  blocks = rng.integers(
      0, 256, (height // 8 + 1, (width + 3 * num_frames) // 8 + 1, 3)
  )
  wide = blocks.repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)
  return np.stack(
      [wide[:height, 3 * i : 3 * i + width] for i in range(num_frames)]
  )


def corner_frame(*, height=64, width=96):
  """White in the top left quarter, black elsewhere."""
  frame = np.zeros((1, height, width, 3), np.uint8)
  frame[:, : height // 2, : width // 2] = 255
  return frame


def write_video(
    path: pathlib.Path,
    frames,
    *,
    codec="libx264",
    pixel_format="yuv420p",
    rate=25,
    times_ms=None,
    rotation=None,
    pixel_aspect=None,
    options=None,
    container_options=None,
):
  """Writes RGB frames; `times_ms` says when each is shown, `rotation` turns."""
  with av.open(str(path), "w", options=container_options or {}) as container:
    stream = container.add_stream(codec, rate=rate, options=options or {})
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = pixel_format
    stream.bit_rate = 8_000_000  # Enough to tell neighbouring grey levels.
    if times_ms is not None:
      stream.codec_context.time_base = Fraction(1, 1000)
    if rotation is not None:
      stream.set_display_rotation(rotation)
    if pixel_aspect is not None:
      stream.codec_context.sample_aspect_ratio = Fraction(pixel_aspect)
    for number, pixels in enumerate(frames):
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels))
      if times_ms is not None:
        frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  return path


def write_streams(
    path: pathlib.Path,
    frames,
    *,
    sound_first=False,
    sound_seconds=0.0,
    cover=None,
    codec="libx264",
):
  """Writes a video beside other streams: sound, a cover picture."""
  with av.open(str(path), "w") as container:
    if sound_first:
      sound = container.add_stream("aac", rate=8000)
    if cover == "first":
      picture = _add_cover(container)
    video = container.add_stream(codec, rate=25, options={"g": "6"})
    video.height, video.width = frames.shape[1:3]
    video.pix_fmt, video.bit_rate = "yuv420p", 8_000_000
    if cover == "last":
      picture = _add_cover(container)
    if sound_seconds and not sound_first:
      sound = container.add_stream("aac", rate=8000)
    if cover:
      container.mux(picture.encode(av.VideoFrame(64, 64, "yuvj420p")))
      container.mux(picture.encode(None))
    for pixels in frames:
      container.mux(video.encode(av.VideoFrame.from_ndarray(pixels)))
    container.mux(video.encode(None))
    if sound_seconds:
      _write_sound(container, sound, sound_seconds)
  return path


def _add_cover(container):
  picture = container.add_stream("mjpeg", rate=1)
  picture.height, picture.width, picture.pix_fmt = 64, 64, "yuvj420p"
  picture.disposition = av.stream.Disposition.attached_pic
  return picture


def _write_sound(container, stream, seconds):
  noise = np.random.default_rng(0)
  for start in range(0, int(8000 * seconds), 1024):
    samples = noise.normal(0, 0.1, (1, 1024)).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.pts = 8000, start
    container.mux(stream.encode(frame))
  container.mux(stream.encode(None))


def write_high_range(path: pathlib.Path, value, *, transfer, colour=(1, 1, 1)):
  """Writes flat frames of BT.2020 in 10 bits; `value` is the transfer's."""
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx265", rate=25)
    stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p10le"
    context = stream.codec_context
    context.options = {
        "x265-params": "log-level=none:lossless=1:colorprim=bt2020"
        f":transfer={transfer}:colormatrix=bt2020nc:range=limited"
    }
    pixels = np.empty((96, 128, 3), np.uint16)
    pixels[:] = np.rint(np.array(colour) * value * 65535)
    for _ in range(3):
      frame = av.VideoFrame.from_ndarray(pixels, format="rgb48le")
      frame = frame.reformat(
          format="yuv420p10le", dst_colorspace=9, dst_color_range=1
      )
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  return path


def write_audio(path: pathlib.Path, *, cover=False):
  """Writes some silence, on request with a cover picture."""
  with av.open(str(path), "w", format="mp4") as container:
    stream = container.add_stream("aac", rate=8000)
    if cover:
      picture = container.add_stream("mjpeg", rate=1)
      picture.height, picture.width, picture.pix_fmt = 64, 64, "yuvj420p"
      picture.disposition = av.stream.Disposition.attached_pic
    silence = av.AudioFrame(format="fltp", layout="mono", samples=1024)
    silence.planes[0].update(bytes(silence.planes[0].buffer_size))
    silence.sample_rate = 8000
    container.mux(stream.encode(silence))
    if cover:
      container.mux(picture.encode(av.VideoFrame(64, 64, "yuvj420p")))
      container.mux(picture.encode(None))
    container.mux(stream.encode(None))
  return path


def cut_between_packets(path: pathlib.Path, target: pathlib.Path, *, share):
  """Copies the first packets of a file; the last one is whole."""
  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    places = [packet.pos for packet in container.demux(stream) if packet.size]
  # A packet's block has a header: end before it, where any format has one.
  end = places[int(len(places) * share)] - 12
  target.write_bytes(path.read_bytes()[:end])
  return target


def cut(path: pathlib.Path, target: pathlib.Path, *, share):
  """Copies the first part of a file."""
  data = path.read_bytes()
  target.write_bytes(data[: int(len(data) * share)])
  return target


def spoil(path: pathlib.Path, target: pathlib.Path, *, seed, num_bytes=40):
  """Copies a file and overwrites bytes in the picture data of an mp4."""
  data = bytearray(path.read_bytes())
  start = data.index(b"mdat") + 4
  (size,) = struct.unpack(">I", data[start - 8 : start - 4])
  rng = np.random.default_rng(seed)
  for place in rng.integers(start + size // 8, start + size - 8, num_bytes):
    data[place] ^= int(rng.integers(1, 256))
  target.write_bytes(data)
  return target
