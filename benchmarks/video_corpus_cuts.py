"""Files of the video corpus that are cut without encoding anew, or joined."""

import pathlib

from benchmarks import video_corpus_files as files
from benchmarks.video_corpus_files import (
    Case,
    copied_case,
    derived_case,
    pyav_case,
)

_CUTS = "cuts and joins"
_GROUPS = "open groups"
_OPEN = "x264-params=open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"
_HEVC = "x265-params=log-level=none:keyint=12:min-keyint=12:scenecut=0"
_LONG = pyav_case("", "a.mp4", 150, options=_OPEN)
_LONG_HEVC = pyav_case(
    "", "a.mp4", 150, codec="libx265", options=f"{_HEVC}:open-gop=1"
)
_LONG_MPEG2 = pyav_case(
    "", "a.ts", 150, codec="mpeg2video", options="bf=2 g=12"
)
_LONG_TS = pyav_case("", "a.ts", 150, options=_OPEN)
_LONG_CLOSED = pyav_case("", "a.ts", 150, options="g=24 bf=2")
_LONG_EDITED = pyav_case("", "a.mp4", 150, options="g=50 bf=2", sound="aac")


def cuts() -> list[Case]:
  """Returns the cases that are cut from, or joined of, other files."""
  cases = []
  for kind, source, suffixes in (
      ("h264", _LONG, "mp4 mkv mov"),
      ("h264", _LONG_TS, "ts"),
      ("hevc", _LONG_HEVC, "mp4 mkv ts mov"),
      ("mpeg2", _LONG_MPEG2, "mp4 mkv ts mov mpg"),
  ):
    for suffix in suffixes.split():
      cases.append(
          # What leads to the cut is dropped by some decoders, not by others.
          copied_case(
              _CUTS,
              f"{kind}_cut.{suffix}",
              source,
              "-ss 1.7",
              "-t 4",
              slack=5,
          )
      )
  cases += [
      # The edit list hides what lies before: 30 frames, of a group of 50.
      copied_case(_CUTS, "edit_list.mp4", _LONG_EDITED, "-ss 1.2", ""),
      copied_case(_CUTS, "edit_list.mov", _LONG_EDITED, "-ss 3.6", ""),
      copied_case(_CUTS, "short_start.mp4", _LONG, "-ss 0.2", "", slack=5),
      copied_case(_CUTS, "kept_times.ts", _LONG_TS, "-ss 2 -copyts", "", slack=5),
      derived_case(_CUTS, "joined.ts", _LONG_CLOSED, _join(1, 1), slack=3),
      derived_case(_CUTS, "joined_thrice.ts", _LONG_CLOSED, _join(1, 1, 1), slack=5),
      derived_case(_CUTS, "joined_open.ts", _LONG_TS, _join(1, 1), slack=5),
      derived_case(_CUTS, "joined_mpeg2.ts", _LONG_MPEG2, _join(1, 1), slack=5),
      Case(group=_CUTS, name="joined_mpg.mpg", write=_joined_mpg, slack=5),
      derived_case(_CUTS, "from_mid_gop.ts", _LONG_CLOSED, _later(0.3), slack=12),
      derived_case(_CUTS, "from_mid_packet.ts", _LONG_CLOSED, _later(0.3, 77), must="either"),
      derived_case(_CUTS, "from_mid_gop_mpeg2.ts", _LONG_MPEG2, _later(0.3), slack=12),
      derived_case(_CUTS, "ends_in_mid_gop.ts", _LONG_CLOSED, _until(0.7), must="either"),
  ]  # fmt: skip
  return cases


# Of 40 and 50 frames nearly every second one is chosen: key frames, and also
# pictures that are stored after a key frame but shown before it.
_OPEN_GROUPS = [
    ("h264", "libx264", _OPEN, "mp4 mkv ts"),
    ("hevc", "libx265", f"{_HEVC}:open-gop=1", "mp4 mkv ts"),
    ("mpeg2", "mpeg2video", "bf=2 g=12", "mpg mkv ts"),
    ("mpeg1", "mpeg1video", "bf=2 g=12", "mpg mkv"),
]


def open_groups() -> list[Case]:
  """Returns cases whose groups of pictures lean on the one before."""
  cases = [
      pyav_case(
          _GROUPS,
          f"{kind}_{count}.{suffix}",
          count,
          codec=codec,
          options=options,
      )
      for kind, codec, options, suffixes in _OPEN_GROUPS
      for suffix in suffixes.split()
      for count in (40, 50, 250)
  ]
  for source in [case for case in cases if case.name.startswith("mpeg")]:
    cases += [
        derived_case(
            _GROUPS, f"{name}_{source.name}", source, _flag_groups(bits)
        )
        for name, bits in (("broken", 0x20), ("closed", 0x40))
        if "_250" not in source.name
    ]
  return cases


def _flag_groups(bits: int):
  """Sets flags of each MPEG-2 group: 0x40 says closed, 0x20 broken link.

  Recorders write either of them at groups that lean on the one before; FFmpeg
  then decodes their first pictures even if that was not given to it.
  """

  def change(source, target):
    data = bytearray(source.read_bytes())
    place = data.find(b"\0\0\1\xb8")
    while place >= 0:
      data[place + 7] |= bits
      place = data.find(b"\0\0\1\xb8", place + 4)
    target.write_bytes(data)

  return change


def _join(*shares):
  def change(source, target):
    target.write_bytes(source.read_bytes() * len(shares))

  return change


def _joined_mpg(path: pathlib.Path) -> None:
  coding = files.Coding(codec="mpeg2video", options="bf=2 g=12")
  parts = []
  for first in (0, 100):
    files.write(path, files.pictures(100, first=first), coding)
    parts.append(path.read_bytes())
  path.write_bytes(b"".join(parts))


def _later(share, odd_bytes=0):
  def change(source, target):
    data = source.read_bytes()
    start = int(len(data) * share) // 188 * 188
    # Tables come first, as a recorder would write them.
    target.write_bytes(data[: 3 * 188] + data[start + odd_bytes :])

  return change


def _until(share):
  def change(source, target):
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share) // 188 * 188])

  return change
