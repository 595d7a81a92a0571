"""Pictures of the video corpus: turned, cropped, odd sizes, HDR, 4K."""

import pathlib
from fractions import Fraction

import numpy as np

from benchmarks import video_corpus_files as files
from benchmarks.video_corpus_files import (
    Case,
    copied_case,
    derived_case,
    ffmpeg_case,
    pyav_case,
)

_GROUP = "pictures"
_PLAIN = pyav_case("", "a.mp4", 60, options="g=12 bf=2")
_PLAIN_TS = pyav_case("", "a.ts", 60, options="g=12 bf=2")
_X264 = "-c:v libx264 -pix_fmt yuv420p -g 12"


def looks() -> list[Case]:
  """Returns the cases whose pictures are unusual."""
  cases = [_turned(degrees) for degrees in (90, 180, 270)]
  cases += [_with_matrix(*row) for row in _MIRRORED]
  cases += [_with_aspect(*row) for row in _ASPECTS]
  cases += [_with_size(*row) for row in _SIZES]
  cases += [
      pyav_case(_GROUP, name, 60, is_toned=True, **fields)
      for name, fields in _HDR
  ]
  cases += [pyav_case(_GROUP, name, 60, **fields) for name, fields in _COLOURS]
  cases += [
      ffmpeg_case(_GROUP, name, 60, arguments) for name, arguments in _BY_FFMPEG
  ]
  cases += [
      copied_case(
          _GROUP,
          "crop_in_h264.mp4",
          _PLAIN,
          "",
          "-bsf:v h264_metadata=crop_left=16:crop_right=8:crop_top=8:crop_bottom=4",
      ),
      derived_case(
          _GROUP,
          "crop_in_container.mkv",
          ffmpeg_case("", "a.mkv", 60, f"{_X264} -aspect 2:1"),
          _crop_in_matroska,
          is_compared=False,  # Players differ on whether it is applied.
      ),
      Case(
          group=_GROUP,
          name="size_changes.ts",
          write=lambda path: _size_changes(path, (96, 64), (144, 96)),
          slack=3,
      ),
      Case(
          group=_GROUP,
          name="shape_changes.ts",
          write=lambda path: _size_changes(path, (96, 64), (64, 96)),
          slack=3,
      ),
  ]
  return cases


# --- Turned and mirrored ---


def _turned(degrees):
  # PyAV turns counterclockwise, as `numpy.rot90` does.
  return pyav_case(
      _GROUP,
      f"turned_{degrees}.mp4",
      60,
      options="g=12",
      prepare=lambda stream: stream.set_display_rotation(degrees),
      turn=lambda picture: np.rot90(picture, degrees // 90),
  )


# File, the matrix's (a, b, c, d), what it does to a picture.
_MIRRORED = [
    ("mirrored.mp4", (-1, 0, 0, 1), lambda picture: picture[:, ::-1]),
    ("upside_down.mov", (1, 0, 0, -1), lambda picture: picture[::-1]),
    (
        "transposed.mp4",
        (0, 1, 1, 0),
        lambda picture: picture.swapaxes(0, 1),
    ),
]


def _with_matrix(name, numbers, turn):
  def change(source, target):
    data = bytearray(source.read_bytes())
    # The track header's matrix: 16.16, and 2.30 in the last column.
    plain = _matrix((1, 0, 0, 1))
    place = data.index(plain, data.index(b"tkhd"))
    data[place : place + len(plain)] = _matrix(numbers)
    target.write_bytes(data)

  suffix = pathlib.Path(name).suffix
  source = pyav_case("", f"a{suffix}", 60, options="g=12")
  return derived_case(_GROUP, name, source, change, turn=turn)


def _matrix(numbers):
  a, b, c, d = (number << 16 for number in numbers)
  return np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()


# --- Shapes ---


def _aspect(ratio):
  def prepare(stream):
    stream.codec_context.sample_aspect_ratio = ratio

  return prepare


_ASPECTS = [
    ("wide_pixels.mp4", "libx264", Fraction(4, 3), (128, 64)),
    ("wide_pixels.mkv", "mpeg4", Fraction(4, 3), (128, 64)),
    ("wide_pixels.mpg", "mpeg2video", None, (96, 64)),
    ("narrow_pixels.mp4", "libx264", Fraction(1, 2), (64, 85)),
]


def _with_aspect(name, codec, ratio, size):
  return pyav_case(
      _GROUP,
      name,
      60,
      codec=codec,
      prepare=_aspect(ratio) if ratio else None,
      size=size,
  )


# File, codec, pixel format, width, height, frames.
_SIZES = [
    ("odd.mkv", "ffv1", "yuv420p", 97, 65, 40),
    ("odd.avi", "mjpeg", "yuvj444p", 101, 67, 40),
    ("odd.webm", "libvpx-vp9", "yuv420p", 97, 65, 40),
    ("odd_h264.mp4", "libx264", "yuv444p", 97, 65, 40),
    ("not_of_16.mp4", "libx264", "yuv420p", 98, 66, 40),
    ("not_of_16.ts", "mpeg2video", "yuv420p", 98, 66, 40),
    ("upright.mp4", "libx264", "yuv420p", 64, 112, 40),
    ("square.mp4", "libx264", "yuv420p", 64, 64, 40),
    ("tiny.mkv", "ffv1", "bgr0", 16, 16, 40),
    ("long.mp4", "libx264", "yuv420p", 640, 48, 40),
    ("four_k.mp4", "libx264", "yuv420p", 3840, 2160, 12),
    ("hd.mp4", "libx264", "yuv420p", 1280, 720, 40),
]


def _with_size(name, codec, pixels, width, height, count):
  options = {"libx264": "preset=ultrafast", "libvpx-vp9": "cpu-used=8"}
  return pyav_case(
      _GROUP,
      name,
      lambda: files.pictures(count, width=width, height=height),
      codec=codec,
      pixels=pixels,
      options=options.get(codec, ""),
  )


# --- Colours ---

_BT2020 = "x265-params=log-level=none:colorprim=bt2020:colormatrix=bt2020nc"
_HDR = [
    (
        "pq.mp4",
        dict(
            codec="libx265",
            pixels="yuv420p10le",
            options=f"{_BT2020}:transfer=smpte2084",
        ),
    ),
    (
        "hlg.mkv",
        dict(
            codec="libx265",
            pixels="yuv420p10le",
            options=f"{_BT2020}:transfer=arib-std-b67",
        ),
    ),
    (
        "pq_h264.mkv",
        dict(
            pixels="yuv420p10le",
            options="x264-params=colorprim=bt2020:colormatrix=bt2020nc:transfer=smpte2084",
        ),
    ),
]
_COLOURS = [
    ("full_range.mp4", dict(pixels="yuvj420p")),
    ("full_range_flag.mkv", dict(options="x264-params=fullrange=on")),
    (
        "bt709.mp4",
        dict(
            options="x264-params=colorprim=bt709:colormatrix=bt709:transfer=bt709"
        ),
    ),
    ("grey.mkv", dict(codec="ffv1", pixels="gray")),
    ("grey_16bit.mkv", dict(codec="ffv1", pixels="gray16le")),
    ("grey.mp4", dict(pixels="gray")),
    ("yuv422.mp4", dict(pixels="yuv422p")),
    ("yuv444_12bit.mkv", dict(codec="ffv1", pixels="yuv444p12le")),
    ("alpha.mkv", dict(codec="ffv1", pixels="bgra")),
    ("alpha.mov", dict(codec="qtrle", pixels="argb")),
]
_BY_FFMPEG = [
    ("turned_by_ffmpeg.mov", f"{_X264} -metadata:s:v rotate=0"),
    ("palette.avi", "-c:v rawvideo -pix_fmt pal8"),
    ("palette.gif", "-filter_complex split[a][b];[a]palettegen[p];[b][p]paletteuse"),
    ("smc.mov", "-c:v smc -pix_fmt pal8"),
    ("stereo.mkv", f"{_X264} -metadata:s:v stereo_mode=left_right"),
    ("black_and_white.avi", "-c:v rawvideo -pix_fmt gray"),
    ("telecined.mpg", "-vf telecine -c:v mpeg2video -q:v 2 -flags +ildct+ilme"),
]  # fmt: skip


# --- Sizes that change, and cropping in Matroska ---


def _size_changes(path: pathlib.Path, *sizes: tuple[int, int]) -> None:
  parts = []
  for first, (width, height) in zip((0, 40), sizes, strict=True):
    drawn = files.pictures(40, width=width, height=height, first=first)
    files.write(path, drawn, files.Coding(options="g=12 bf=0"))
    parts.append(path.read_bytes())
  path.write_bytes(b"".join(parts))


def _crop_in_matroska(source: pathlib.Path, target: pathlib.Path) -> None:
  """Puts PixelCropLeft and -Top (16, 8) where the display's size stands."""
  data = bytearray(source.read_bytes())
  place = data.index(b"\x54\xb0")
  width = 3 + (data[place + 2] & 0x7F)
  height = 3 + (data[place + width + 2] & 0x7F)
  crop = b"\x54\xcc\x81\x10\x54\xbb\x81\x08"
  rest = width + height - len(crop)
  void = b"\xec" + bytes([0x80 | rest - 2]) + bytes(rest - 2) if rest else b""
  data[place : place + width + height] = crop + void
  target.write_bytes(data)
