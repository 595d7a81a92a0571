"""Time bases, time stamps and still pictures of the video corpus."""

import pathlib
from fractions import Fraction

import numpy as np

from benchmarks import video_corpus_files as files
from benchmarks.video_corpus_files import (
    Case,
    derived_case,
    ffmpeg_case,
    pyav_case,
)

_GROUP = "times"
_HOUR = 3600


def times() -> list[Case]:
  """Returns the cases whose times are unusual."""
  cases = [_varying(*row) for row in _VARYING]
  cases += [_stills_at_even_rate(name, order) for name, order in _STILLS]
  cases += [_still_last(suffix) for suffix in ("mp4", "mkv", "mov")]
  cases += [_retimed(*row) for row in _RETIMED]
  cases += [_counted(*row) for row in _COUNTED]
  cases += [
      ffmpeg_case(_GROUP, name, 60, arguments, **fields)
      for name, arguments, fields in _BY_FFMPEG
  ]
  cases.append(
      derived_case(
          _GROUP,
          "hour_back.mkv",
          pyav_case(
              "",
              "a.mkv",
              100,
              options="g=12 bf=0",
              retime=lambda pts, dts, _: (pts + 180000, dts + 180000),
              container="cluster_time_limit=480",
          ),
          _set_clusters_back,
      )
  )
  return cases


# --- Varying rates: (file, when each frame begins in ms, the end, codec) ---

_MOVING = list(range(0, 1000, 40))
_VARYING = [
    ("still_first.mkv", [0, *(9000 + t for t in _MOVING)], 10000, "libx264"),
    ("still_first.mp4", [0, *(9000 + t for t in _MOVING)], 10000, "libx264"),
    ("still_first.webm", [0, *(9000 + t for t in _MOVING)], 10000, "libvpx"),
    (
        "still_middle.mkv",
        [*_MOVING, *(9000 + t for t in _MOVING)],
        10000,
        "libx264",
    ),
    (
        "still_middle.mp4",
        [*_MOVING, *(9000 + t for t in _MOVING)],
        10000,
        "libx264",
    ),
    (
        "varying.mkv",
        np.cumsum([0, *([20, 40, 100, 15] * 15)]).tolist(),
        2625 + 40,
        "libx264",
    ),
    (
        "varying.mp4",
        np.cumsum([0, *([20, 40, 100, 15] * 15)]).tolist(),
        2625 + 40,
        "mpeg4",
    ),
    (
        "slower_and_slower.webm",
        [int(12 * i + 1.2 * i * i) for i in range(60)],
        int(12 * 60 + 1.2 * 3600),
        "libvpx-vp9",
    ),
    (
        "half_at_double_rate.flv",
        [*range(0, 1200, 40), *range(1200, 2400, 20)],
        2400,
        "libx264",
    ),
    (
        "phone.mp4",
        [round(33.3 * i + (7 * i * i) % 11) for i in range(75)],
        round(33.3 * 75),
        "libx264",
    ),
]


def _varying(name, begins, end, codec):
  import av

  def make(path):
    with av.open(str(path), "w") as container:
      stream = container.add_stream(codec, rate=1000, options=_options(codec))
      stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
      stream.bit_rate = 3_000_000
      stream.codec_context.time_base = Fraction(1, 1000)
      drawn = files.pictures(len(begins))
      for pixels, begin in zip(drawn, begins, strict=True):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = begin, Fraction(1, 1000)
        container.mux(stream.encode(frame))
      container.mux(stream.encode(None))

  return Case(
      group="still pictures" if "still" in name else _GROUP,
      name=name,
      write=make,
      times=(*begins, end),
      # Containers differ on how long the last frame lasts.
      slack=2,
  )


def _options(codec):
  if codec.startswith("libvpx"):
    return {"cpu-used": "8", "crf": "10"}
  return {"bf": "0", "g": "12"}


# --- The same at an even rate: numbers of the frames that are shown ---

_STILLS = [
    ("even_still_first.mkv", [0] * 225 + list(range(1, 26))),
    ("even_still_middle.mp4", [*range(25), *[24] * 200, *range(25, 50)]),
    ("even_still_last.mp4", [*range(25), *[24] * 225]),
    ("all_still.mp4", [0] * 100),
]


def _stills_at_even_rate(name, order):
  return pyav_case(
      "still pictures",
      name,
      lambda: files.pictures(max(order) + 1)[order],
      options="g=50",
  )


def _still_last(suffix):
  return pyav_case(
      "still pictures",
      f"still_last.{suffix}",
      30,
      options="bf=0",
      last_frames=221,
      times=(*range(30), 250),
  )


# --- Packets whose times are changed: (file, frames, function, options) ---


def _hour_later(pts, dts, position):
  jump = _HOUR * files.RATE * (position >= 125)
  return pts + jump, dts + jump


def _gap(pts, dts, position):
  jump = 8 * files.RATE * (position >= 60)
  return pts + jump, dts + jump


def _twice(pts, dts, position):
  even = position // 2 * 2
  return even, even


def _starts_at(seconds):
  ticks = seconds * files.RATE
  return lambda pts, dts, _: (pts + ticks, dts + ticks)


_RETIMED = [
    ("hour_forward.mkv", 250, _hour_later, "libx264", "g=25 bf=0"),
    ("hour_forward.mp4", 250, _hour_later, "libx264", "g=25 bf=0"),
    ("hour_forward.webm", 250, _hour_later, "libvpx", "g=25 cpu-used=8"),
    ("hour_forward.flv", 250, _hour_later, "libx264", "g=25 bf=0"),
    ("hour_forward.ts", 250, _hour_later, "mpeg2video", "g=25"),
    ("hour_forward_mid_gop.mkv", 250, _hour_later, "libx264", "g=50 bf=0"),
    ("same_times.mkv", 80, _twice, "libx264", "g=12 bf=0"),
    ("from_10h.mkv", 60, _starts_at(36000), "libx264", "g=12"),
    ("from_10h.mp4", 60, _starts_at(36000), "libx264", "g=12"),
    ("from_10h.flv", 60, _starts_at(36000), "libx264", "g=12"),
    ("from_10h.ts", 60, _starts_at(36000), "libx264", "g=12"),
]


def _retimed(name, count, retime, codec, options):
  return pyav_case(
      _GROUP,
      name,
      count,
      codec=codec,
      options=options,
      retime=retime,
      # Else MP4's edit list hides what lies before time 0.
      container="avoid_negative_ts=disabled" if name.endswith("mkv") else "",
  )


def _set_clusters_back(source: pathlib.Path, target: pathlib.Path) -> None:
  """Lets Matroska's clusters of the second half begin an hour earlier."""
  data = bytearray(source.read_bytes())
  places = []
  place = data.find(b"\x1f\x43\xb6\x75")
  while place >= 0:
    stamp = data.index(b"\xe7", place + 4)
    places.append((stamp + 2, data[stamp + 1] & 0x7F))
    place = data.find(b"\x1f\x43\xb6\x75", place + 4)
  for start, length in places[len(places) // 2 :]:
    stop = start + length
    stamp = int.from_bytes(data[start:stop], "big") - 1000 * _HOUR
    data[start:stop] = stamp.to_bytes(length, "big")
  target.write_bytes(data)


# --- How many, how fast: (file, frames, rate, fields) ---


def _large_frame():
  return files.pictures(1, width=320, height=256)


_COUNTED = [
    ("one_frame.mp4", 1, 25, {}),
    ("one_frame.mkv", 1, 25, {"codec": "mpeg4"}),
    ("one_frame.webm", 1, 25, {"codec": "libvpx"}),
    ("one_frame.gif", 1, 25, {"codec": "gif", "pixels": "rgb8"}),
    ("one_frame.avi", 1, 25, {"codec": "mjpeg", "pixels": "yuvj420p"}),
    # A smaller one is not recognised as MPEG-TS by FFmpeg itself.
    ("one_frame.ts", _large_frame, 25, {"codec": "mpeg2video"}),
    ("two_frames.mp4", 2, 25, {}),
    ("two_frames.mkv", 2, 1, {}),
    ("two_frames.avi", 2, 25, {"codec": "mpeg4"}),
    ("frames_24.mp4", 24, 25, {}),
    ("frames_25.mp4", 25, 25, {}),
    ("frames_26.mp4", 26, 25, {}),
    ("rate_1.mp4", 30, 1, {}),
    ("rate_1.mkv", 30, 1, {"codec": "mpeg4"}),
    ("rate_240.mp4", 480, 240, {"options": "g=60"}),
    ("rate_240.mkv", 480, 240, {"options": "g=60"}),
    ("rate_1000.mp4", 500, 1000, {"options": "g=60"}),
    ("rate_ntsc.mp4", 90, Fraction(30000, 1001), {"options": "g=15"}),
    ("rate_ntsc.mkv", 90, Fraction(24000, 1001), {"options": "g=15"}),
    ("rate_ntsc.mpg", 90, Fraction(30000, 1001), {"codec": "mpeg2video"}),
    ("base_90000.mp4", 60, 25, {"container": "video_track_timescale=90000"}),
    ("base_1000.mov", 60, 30, {"container": "video_track_timescale=1000"}),
    ("twelve_seconds.mp4", 300, 25, {"options": "g=250"}),
]


def _counted(name, count, rate, fields):
  return pyav_case(_GROUP, name, count, rate=rate, **fields)


_X264 = "-c:v libx264 -pix_fmt yuv420p -g 12 -bf 2"
_BY_FFMPEG = [
    ("wrap_33_bits.ts", f"{_X264} -output_ts_offset 95443", {}),
    ("wrap_33_bits.mpg", "-c:v mpeg2video -q:v 2 -output_ts_offset 95443", {}),
    (
        "negative_start.mkv",
        f"{_X264} -output_ts_offset -0.5 -avoid_negative_ts disabled",
        {},
    ),
    (
        "delayed_by_edit_list.mp4",
        f"{_X264} -output_ts_offset 3 -avoid_negative_ts disabled",
        {},
    ),
    ("negative_cts.mp4", f"{_X264} -movflags negative_cts_offsets", {}),
    ("no_edit_list.mp4", f"{_X264} -use_editlist 0", {}),
    (
        "dropped.avi",
        "-vf select=not(between(n\\,20\\,29)) -c:v mpeg4 -q:v 2 -g 12"
        " -fps_mode cfr",
        {"slack": 10},
    ),
    ("base_1000000.nut", f"{_X264} -enc_time_base 1:1000000", {}),
]
