"""Damaged files of the video corpus, and files that are no video."""

import pathlib

import numpy as np

from benchmarks import video_corpus_files as files
from benchmarks.video_corpus_files import Case, derived_case, pyav_case

_GROUP = "damaged"
_NONE = "no video"
_RENAMED = "wrong suffix"
# By suffix: how the file that is damaged is made.
_SOURCES = {
    ".mp4": dict(options="g=12 bf=2", sound="aac"),
    ".mkv": dict(options="g=12 bf=2", sound="libopus"),
    ".avi": dict(codec="mpeg4", options="g=12 bf=2", sound="mp3"),
    ".ts": dict(options="g=12 bf=2", sound="aac"),
    ".webm": dict(codec="libvpx-vp9", options="g=12 cpu-used=8"),
    ".mpg": dict(codec="mpeg2video", options="g=12 bf=2"),
    ".flv": dict(options="g=12 bf=2"),
    ".wmv": dict(codec="wmv2", options="g=12"),
}


def damaged() -> list[Case]:
  """Returns files that are damaged: each is taken, or listed."""
  cases = []
  for suffix, fields in _SOURCES.items():
    source = pyav_case("", f"a{suffix}", 60, **fields)
    changes = {f"cut_{share}": _cut(share) for share in (5, 50, 90, 99)}
    changes |= {
        f"bit_{place}": _flip(place, seed)
        for seed, place in enumerate(("head", "middle", "end", "anywhere"))
    }
    changes |= {"hole": _hole, "headless": _headless}
    for name, change in changes.items():
      cases.append(
          derived_case(_GROUP, f"{name}{suffix}", source, change, must="either")
      )
  index = pyav_case("", "a.mp4", 60, options="g=12 bf=2")
  for seed in range(12):
    cases.append(
        derived_case(
            _GROUP,
            f"bit_in_index_{seed}.mp4",
            index,
            _flip_in_index(seed),
            must="either",
        )
    )
  return cases


def _cut(percent):
  def change(source, target):
    data = source.read_bytes()
    target.write_bytes(data[: len(data) * percent // 100])

  return change


def _flip(place, seed):
  def change(source, target):
    data = bytearray(source.read_bytes())
    size = len(data)
    start, stop = {
        "head": (0, 600),
        "middle": (size // 3, size * 2 // 3),
        "end": (size - 600, size),
        "anywhere": (0, size),
    }[place]
    _flip_bits(data, start, stop, np.random.default_rng(seed))
    target.write_bytes(data)

  return change


def _flip_bits(data, start, stop, rng, count=6):
  for position in rng.integers(start, stop, count):
    data[position] ^= 1 << int(rng.integers(8))


def _flip_in_index(seed):
  def change(source, target):
    data = bytearray(source.read_bytes())
    start = data.index(b"moov") + 4
    _flip_bits(data, start, len(data), np.random.default_rng(seed), count=1)
    target.write_bytes(data)

  return change


def _hole(source: pathlib.Path, target: pathlib.Path) -> None:
  data = bytearray(source.read_bytes())
  start, stop = len(data) // 2, len(data) * 3 // 5
  data[start:stop] = bytes(stop - start)
  target.write_bytes(data)


def _headless(source: pathlib.Path, target: pathlib.Path) -> None:
  target.write_bytes(source.read_bytes()[1500:])


# --- What is no video ---


def refused() -> list[Case]:
  """Returns files that hold no video, whatever their names say."""
  contents = {
      "empty.mp4": b"",
      "one_byte.mkv": b"\0",
      "text.mp4": b"This is a text and no video.\n" * 50,
      "text.mkv": "Ein Text, kein Film: \u00e4\u00f6\u00fc.\n".encode() * 50,
      "page.webm": b"<!DOCTYPE html><html><body>404</body></html>\n",
      "json.avi": b'{"error": "not found"}',
      "zeros.mp4": bytes(50_000),
      "zeros.ts": bytes(188 * 300),
      "noise.mp4": np.random.default_rng(0).bytes(50_000),
      "noise.mpg": np.random.default_rng(1).bytes(50_000),
      "playlist.mkv": b"#EXTM3U\n#EXTINF:2,\nsound.mp4\n#EXT-X-ENDLIST\n",
      "concat.mp4": b"ffconcat version 1.0\nfile sound.mp4\n",
      "session.ts": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 5004 RTP/AVP 96\n",
      "archive.mov": b"PK\x03\x04" + bytes(200),
      "only_ftyp.mp4": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2",
      "only_subtitles.mp4": b"1\n00:00:00,000 --> 00:00:01,000\nHello\n\n",
  }  # fmt: skip
  cases = [
      Case(
          group=_NONE,
          name=name,
          write=lambda path, content=content: path.write_bytes(content),
          must="refused",
      )
      for name, content in contents.items()
  ]
  cases += [
      Case(
          group=_NONE,
          name=name,
          write=lambda path, codec=codec: _picture(path, codec),
          must="refused",
      )
      for name, codec in (
          ("png.mp4", "png"),
          ("jpeg.mkv", "mjpeg"),
          ("bmp.avi", "bmp"),
          ("webp.webm", "libwebp"),
      )
  ]
  source = pyav_case("", "a.mkv", 60, options="g=250 bf=0")
  cases.append(
      derived_case(
          _NONE, "no_key_frame.mkv", source, _drop_key_frames, must="refused"
      )
  )
  return cases


def _picture(path: pathlib.Path, codec: str) -> None:
  files.write(
      path,
      files.pictures(1),
      files.Coding(
          codec=codec,
          container_format="image2",
          container="update=1",
          pixels={"mjpeg": "yuvj420p", "bmp": "bgr24"}.get(codec, "rgb24")
          if codec != "libwebp"
          else "yuv420p",
      ),
  )


def _drop_key_frames(source: pathlib.Path, target: pathlib.Path) -> None:
  """Copies all packets but the key frames."""
  import av

  with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
    stream = reader.streams.video[0]
    copied = writer.add_stream_from_template(stream)
    for packet in reader.demux(stream):
      if packet.size and not packet.is_keyframe:
        packet.stream = copied
        writer.mux(packet)


# --- Whose name says something else ---


def renamed() -> list[Case]:
  """Returns intact files whose suffix is another container's."""
  kinds = {
      "mp4_as.avi": (".mp4", {}),
      "mkv_as.mp4": (".mkv", {}),
      "avi_as.mov": (".avi", dict(codec="mpeg4")),
      "ts_as.mp4": (".ts", {}),
      "webm_as.mpg": (".webm", dict(codec="libvpx", options="cpu-used=8")),
      "mpg_as.mkv": (".mpg", dict(codec="mpeg2video")),
      "gif_as.mp4": (".gif", dict(codec="gif", pixels="rgb8")),
      "flv_as.wmv": (".flv", {}),
      "MP4 of a camera (1).MP4": (".mp4", dict(sound="aac")),
      "-dash%20d=1:a|b.mkv": (".mkv", {}),
      "\u4e2d\u6587 \u00fc.mp4": (".mp4", {}),
  }
  return [
      derived_case(
          _RENAMED,
          name,
          pyav_case("", f"a{suffix}", 60, **fields),
          lambda source, target: target.write_bytes(source.read_bytes()),
      )
      for name, (suffix, fields) in kinds.items()
  ]
