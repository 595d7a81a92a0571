"""Streams beside the picture: sound, covers, subtitles, data, programs."""

import pathlib
import tempfile

import numpy as np

from benchmarks import video_corpus_files as files
from benchmarks.video_corpus_files import Case, pyav_case

_GROUP = "streams"
_SOUND = "-f lavfi -i sine=f=440:r=48000:d={seconds}"
_SUBTITLES = "1\n00:00:00,000 --> 00:00:01,000\nHello\n\n"
_CHAPTERS = (
    ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=1000\ntitle=one\n"
    "[CHAPTER]\nTIMEBASE=1/1000\nSTART=1000\nEND=2000\ntitle=two\n"
)


def streams() -> list[Case]:
  """Returns the cases with more than one stream, or without a picture."""
  cases = [_with_sound(*row) for row in _SOUNDS]
  cases += [
      _ffmpeg(name, arguments, **fields) for name, arguments, fields in _MUXED
  ]
  cases += [
      Case(group=_GROUP, name=name, write=_audio, must="refused")
      for name in ("audio_only.mp4", "audio_only.mkv", "audio_only.mov")
  ]
  cases.append(
      Case(
          group=_GROUP,
          name="audio_only_mpeg.ts",
          write=lambda path: _audio(path, "mp2"),
          must="refused",
      )
  )
  return cases


# File, encoder of sound, its seconds, whether it comes first, of the picture.
_SOUNDS = [
    ("sound.mp4", "aac", 2.4, False, "libx264"),
    ("sound_first.mp4", "aac", 2.4, True, "libx264"),
    ("sound_long.mp4", "aac", 20.0, False, "libx264"),
    ("sound_short.mp4", "aac", 0.3, False, "libx264"),
    ("sound_hevc.mp4", "aac", 2.4, False, "libx265"),
    ("sound.mov", "aac", 2.4, False, "libx264"),
    ("sound_mp3.mov", "mp3", 2.4, False, "mpeg4"),
    ("sound.mkv", "libopus", 2.4, False, "libx264"),
    ("sound_first.mkv", "flac", 2.4, True, "libx264"),
    ("sound_long.mkv", "libopus", 20.0, False, "libx264"),
    ("sound.webm", "libopus", 2.4, False, "libvpx-vp9"),
    ("sound_first.webm", "libopus", 2.4, True, "libvpx"),
    ("sound.avi", "mp3", 2.4, False, "mpeg4"),
    ("sound_first.avi", "mp3", 2.4, True, "mpeg4"),
    ("sound_pcm.avi", "pcm_s16le", 2.4, False, "mjpeg"),
    ("sound_long.avi", "mp3", 20.0, False, "mpeg4"),
    ("sound.mpg", "mp2", 2.4, False, "mpeg2video"),
    ("sound_first.mpg", "mp2", 2.4, True, "mpeg1video"),
    ("sound.vob", "ac3", 2.4, False, "mpeg2video"),
    ("sound.ts", "aac", 2.4, False, "libx264"),
    ("sound_first.ts", "mp2", 2.4, True, "mpeg2video"),
    ("sound_long.ts", "aac", 20.0, False, "libx264"),
    ("sound.flv", "aac", 2.4, False, "libx264"),
    ("sound_first.flv", "mp3", 2.4, True, "flv"),
    ("sound.wmv", "wmav2", 2.4, False, "wmv2"),
    ("sound_first.wmv", "wmav2", 2.4, True, "wmv1"),
    ("sound.3gp", "aac", 2.4, False, "mpeg4"),
    ("sound.nut", "mp3", 2.4, False, "mpeg4"),
    ("sound.mxf", "pcm_s16le", 2.4, False, "mpeg2video"),
]


def _with_sound(name, sound, seconds, is_first, codec):
  options = {
      "libx265": "x265-params=log-level=none:keyint=12",
      "libvpx": "cpu-used=8",
      "libvpx-vp9": "cpu-used=8",
      "libx264": "g=12 bf=2",
  }
  return pyav_case(
      _GROUP,
      name,
      60,
      codec=codec,
      pixels="yuvj420p" if codec == "mjpeg" else "yuv420p",
      options=options.get(codec, "g=12"),
      sound=sound,
      sound_seconds=seconds,
      sound_first=is_first,
  )


def _audio(path: pathlib.Path, codec="aac") -> None:
  """Writes sound alone."""
  import av

  with av.open(str(path), "w") as container:
    stream = container.add_stream(codec, rate=48000)
    for packet in files.tone(stream, 2.0):
      container.mux(packet)


_X264 = "-c:v libx264 -pix_fmt yuv420p -g 12 -bf 2"
_TWO = f"-map 0 -map 1 {_X264} -s:v:1 48x32"
_COVER = "-map 1 -disposition:v:1 attached_pic -c:v:1 mjpeg"
_TONE = _SOUND.format(seconds=2.4)
_ALL = f"{_TONE} -i {{subtitles}} -map 0 -map 1 -map 2 {_X264}"

# File, arguments after the frames, fields of the case. In braces: files that
# are made for it.
_MUXED = [
    ("two_videos.mp4", "-i {video} " + _TWO, {}),
    ("two_videos.mkv", "-i {video} " + _TWO, {}),
    ("two_videos.ts", "-i {video} " + _TWO, {}),
    ("two_videos_large_last.mov", f"-i {{large}} -map 0 -map 1 {_X264}", {}),
    (
        "cover.mp4",
        f"{_TONE} -i {{cover}} -map 0 -map 1 -map 2 -c:v:0 libx264 -pix_fmt"
        " yuv420p -c:v:1 mjpeg -disposition:v:1 attached_pic",
        {},
    ),
    (
        "cover_first.mp4",
        "-i {cover} -map 1 -map 0 -c:v:0 mjpeg -disposition:v:0 attached_pic"
        " -c:v:1 libx264 -pix_fmt yuv420p",
        {},
    ),
    (
        "cover_attached.mkv",
        f"{_X264} -attach {{cover}} -metadata:s:t:0 mimetype=image/jpeg"
        " -metadata:s:t:0 filename=cover.jpg",
        {},
    ),
    (
        "cover_and_sound_alone.mp4",
        f"{_TONE} -i {{cover}} -map 1 -map 2 -c:v mjpeg -disposition:v"
        " attached_pic",
        {"must": "refused"},
    ),
    (
        "cover_and_mp3.mp4",
        f"{_TONE} -i {{cover}} -map 1 -map 2 -c:a libmp3lame -c:v mjpeg"
        " -disposition:v attached_pic -f mp3 -id3v2_version 3",
        {"must": "refused"},
    ),
    ("subtitles.mp4", f"{_ALL} -c:s mov_text", {}),
    ("subtitles.mkv", f"{_ALL} -c:s srt", {}),
    ("subtitles_ass.mkv", f"{_ALL} -c:s ass", {}),
    (
        "subtitles_first.mkv",
        f"-i {{subtitles}} -map 1 -map 0 {_X264} -c:s srt",
        {},
    ),
    ("subtitles_dvb.ts", f"{_TONE} -map 0 -map 1 {_X264} -c:a mp2", {}),
    ("timecode.mov", f"{_X264} -timecode 01:00:00:00", {}),
    ("timecode.mp4", f"{_X264} -timecode 01:00:00:00", {}),
    ("timecode.mxf", "-c:v mpeg2video -q:v 2 -timecode 01:00:00:00", {}),
    ("timecode.mpg", "-c:v mpeg2video -q:v 2 -g 12 -timecode 01:00:00:00", {}),
    ("chapters.mp4", f"-i {{chapters}} -map_metadata 1 -map 0 {_X264}", {}),
    ("chapters.mkv", f"-i {{chapters}} -map_metadata 1 -map 0 {_X264}", {}),
    (
        "programs.ts",
        f"-i {{video}} {_TWO} -program title=a:st=0 -program title=b:st=1",
        {},
    ),
    (
        "three_sounds.mkv",
        f"{_TONE} {_TONE} {_TONE} -map 0 -map 1 -map 2 -map 3 {_X264} -c:a aac",
        {},
    ),
    (
        "sound_late.mp4",
        f"-itsoffset 1.5 {_TONE} -map 0 -map 1 {_X264}",
        {},
    ),
    (
        "sound_early.mkv",
        f"{_TONE} -filter:v setpts=PTS+1.5/TB -map 0 -map 1 {_X264}"
        " -fps_mode passthrough",
        {},
    ),
    ("odd_title.mkv", f"{_X264} -metadata title=\u00fc\u4e2d\u202e", {}),
    ("rtp_hints.mp4", f"{_X264} -movflags rtphint", {}),
    (
        "sound_only_vorbis.ogv",
        f"{_TONE} -map 1 -c:a libvorbis",
        {"must": "refused"},
    ),
]


def _ffmpeg(name, arguments, **fields):
  def make(path):
    with tempfile.TemporaryDirectory() as folder:
      made = _beside(pathlib.Path(folder), arguments)
      words = arguments.format(**made).split()
      files.run_ffmpeg([*words, str(path)], files.pictures(60))

  return Case(group=_GROUP, name=name, write=make, needs_ffmpeg=True, **fields)


def _beside(folder: pathlib.Path, arguments: str) -> dict[str, str]:
  """Makes the other inputs that the arguments name."""
  made = {}
  for name, content in (
      ("subtitles.srt", _SUBTITLES),
      ("chapters.txt", _CHAPTERS),
  ):
    made[name.partition(".")[0]] = str(folder / name)
    (folder / name).write_text(content)
  for name, size, count in (
      ("video.mkv", (96, 64), 60),
      ("large.mkv", (192, 128), 60),
      ("cover.jpg", (128, 128), 1),
  ):
    kind = name.partition(".")[0]
    made[kind] = str(folder / name)
    if f"{{{kind}}}" in arguments:
      drawn = files.pictures(count, width=size[0], height=size[1])
      if kind == "cover":
        drawn = np.full_like(drawn, 200)
      coder = "mjpeg" if kind == "cover" else "ffv1"
      files.run_ffmpeg(["-c:v", coder, made[kind]], drawn)
  return made
