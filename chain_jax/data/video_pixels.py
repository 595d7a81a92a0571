"""A decoded frame -> upright RGB pixels of the wanted size."""

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from chain_jax.data import tone_mapping
from chain_jax.data.video_completeness import VideoError

# Beyond 8K, and beyond a picture 20 times longer than wide, a header is
# damaged, or made to fill the memory.
MAX_PIXELS = 2**26
_MAX_ASPECT = 20


class PictureSize(NamedTuple):
  """Of a frame as it is stored, before it is turned upright; pixels."""

  width: int
  height: int


def picture_size(
    width: int,
    height: int,
    *,
    pixel_aspect: Fraction | None,
    short_side: int,
) -> PictureSize:
  """Returns the size with square pixels whose short side is as asked.

  Args:
    width: Stored pixels a row.
    height: Stored rows.
    pixel_aspect: How much wider than high one pixel is shown; None = 1.
    short_side: Pixels.

  Raises:
    VideoError: If the picture is no picture.

  >>> picture_size(720, 576, pixel_aspect=Fraction(64, 45), short_side=288)
  PictureSize(width=512, height=288)
  """
  if width < 1 or height < 1 or width * height > MAX_PIXELS:
    raise VideoError(f"a frame has {width} x {height} pixels")
  aspect = float(pixel_aspect or 1) * width / height
  if not 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT:
    raise VideoError(f"the picture is {aspect:.3g} times as wide as high")
  if aspect >= 1:
    return PictureSize(round(short_side * aspect), short_side)
  return PictureSize(short_side, round(short_side / aspect))


def to_rgb(
    frame: Any, size: PictureSize
) -> UInt8[np.ndarray, "height width 3"]:
  """Scales an `av.VideoFrame` and turns its colours into RGB.

  Bicubic with a filter that widens when it makes smaller; bit-exact, so that
  two machines give the same pixels. A frame without a colour matrix has that
  of BT.601. High dynamic range (PQ, HLG) is mapped to ordinary RGB.
  """
  from av.video.reformatter import Interpolation  # Optional: see videos.py.

  transfer, primaries = int(frame.color_trc), int(frame.color_primaries)
  is_high_range = transfer in (tone_mapping.PQ, tone_mapping.HLG)
  flags = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
  rgb = frame.reformat(
      width=size.width,
      height=size.height,
      format="rgb48le" if is_high_range else "rgb24",
      interpolation=flags | Interpolation.BITEXACT,
      threads=1,
  ).to_ndarray()
  if is_high_range:
    return tone_mapping.to_standard_range(
        rgb, transfer=transfer, primaries=primaries
    )
  return rgb


def display_matrix(frame: Any) -> Int32[np.ndarray, "3 3"] | None:
  """Returns how a player would turn an `av.VideoFrame`; None = not at all."""
  try:
    side_data = frame.side_data.get("DISPLAYMATRIX")
  except ValueError:  # PyAV knows not all kinds that FFmpeg does.
    return _turning_matrix(frame.rotation)
  if side_data is None or len(bytes(side_data)) != 36:
    return None
  return np.frombuffer(bytes(side_data), np.int32).reshape(3, 3)


def _turning_matrix(degrees: int) -> Int32[np.ndarray, "3 3"]:
  """Returns the matrix that turns a picture counter-clockwise."""
  cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
  matrix = [[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]
  return np.rint(np.array(matrix) * 2**16).astype(np.int32)


def turn_upright(
    frames: UInt8[np.ndarray, "num_frames height width 3"],
    matrix: Int32[np.ndarray, "3 3"] | None,
) -> UInt8[np.ndarray, "num_frames _height _width 3"]:
  """Applies a display matrix: quarter turns and mirrorings.

  Args:
    frames: As stored.
    matrix: The point (x, y) of the stored picture is shown at
      (a x + c y, b x + d y), where the rows of the matrix begin with (a, b)
      and (c, d). Other angles are taken for the nearest quarter turn.

  Source: ISO/IEC 14496-12, track header.
  """
  if matrix is None:
    return frames
  (a, b), (c, d) = matrix[:2, :2].tolist()
  along_x, along_y = a, d
  if abs(b) > abs(a):
    frames = frames.swapaxes(1, 2)
    along_x, along_y = c, b
  rows = slice(None, None, -1 if along_y < 0 else 1)
  columns = slice(None, None, -1 if along_x < 0 else 1)
  return np.ascontiguousarray(frames[:, rows, columns])
