"""Videos as they are in the world: with sound, joined, cut, damaged."""

import pathlib
from fractions import Fraction

import numpy as np
import pytest

from chain_jax import errors
from chain_jax.data import video_container, video_index, video_pixels, videos

pytest.importorskip("av", reason="video files need PyAV, the extra [video]")
import av
import video_files

_ODD = pathlib.Path(__file__).parent.parent.parent / "shared/data/odd_videos"


def _decode(path, *, num_frames=25, short_side=48):
  return videos.decode_video(path, num_frames=num_frames, short_side=short_side)


def _numbers(path, **settings):
  return video_files.frame_numbers(_decode(path, **settings))


_OPEN_GROUPS = (
    "keyint=11:min-keyint=11:scenecut=0:open-gop=1:bframes=2:b-adapt=0"
)


# --- Several streams ---


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".ts", ".avi"])
@pytest.mark.parametrize("extra", ["sound first", "sound last", "long sound"])
def test_sound_changes_no_frame(tmp_path, suffix, extra):
  path = video_files.write_streams(
      tmp_path / f"a{suffix}",
      video_files.counting_frames(24),
      sound_first=extra == "sound first",
      sound_seconds=30.0 if extra == "long sound" else 1.0,
  )
  with av.open(str(path)) as container:
    kinds = [stream.type for stream in container.streams]
  expected = (
      ["audio", "video"] if extra == "sound first" else ["video", "audio"]
  )
  assert kinds == expected
  assert _numbers(path, num_frames=8) == list(range(1, 24, 3))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("cover_first", [False, True])
def test_a_cover_picture_is_not_the_video(tmp_path, suffix, cover_first):
  path = video_files.write_streams(
      tmp_path / f"a{suffix}",
      video_files.counting_frames(24),
      cover="first" if cover_first else "last",
  )
  assert _numbers(path, num_frames=8) == list(range(1, 24, 3))


# --- What is no damage ---


def _copy(source, target, *, keep, shift=lambda pts, number: pts):
  """Copies packets without encoding them again."""
  with av.open(str(source)) as container, av.open(str(target), "w") as out:
    stream = container.streams.video[0]
    copy = out.add_stream_from_template(stream)
    for number, packet in enumerate(container.demux(stream)):
      if packet.size and keep(number, packet):
        packet.pts = shift(packet.pts, number)
        packet.dts = shift(packet.dts, number)
        packet.stream = copy
        out.mux(packet)
  return target


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".ts", "libx264", {"x264-params": _OPEN_GROUPS}),
        (".ts", "mpeg2video", {"g": "10", "bf": "2"}),
        (".mkv", "libx265", {"x265-params": "log-level=none:keyint=10"}),
    ],
)
def test_a_cut_at_an_open_group_shows_what_follows(
    tmp_path, suffix, codec, options
):
  whole = video_files.write_video(
      tmp_path / f"a{suffix}",
      video_files.moving_frames(40),
      codec=codec,
      options=options,
  )
  with av.open(str(whole)) as container:
    stream = container.streams.video[0]
    packets = [packet for packet in container.demux(stream) if packet.size]
  second = [at for at, packet in enumerate(packets) if packet.is_keyframe][1]
  start = packets[second].pts
  assert any(packet.pts < start for packet in packets[second + 1 :])
  cut = _copy(
      whole, tmp_path / f"b{suffix}", keep=lambda number, _: number >= second
  )
  shown = sum(packet.pts >= start for packet in packets[second:])
  # Which frames: the last ones of the whole video, in their order.
  frames = _decode(cut, num_frames=shown, short_side=96)
  expected = _decode(whole, num_frames=40, short_side=96)[-shown:]
  assert len(frames) == shown
  differences = np.abs(frames.astype(int) - expected).mean(axis=(1, 2, 3))
  assert differences.max() < 1.0


def test_joined_recordings_are_one_video(tmp_path):
  parts = [
      video_files.write_video(
          tmp_path / f"{start}.ts",
          video_files.counting_frames(30)[start : start + 15],
          options={"g": "5"},
      )
      for start in (0, 15)
  ]
  path = tmp_path / "a.ts"
  path.write_bytes(b"".join(part.read_bytes() for part in parts))
  assert _numbers(path, num_frames=30) == list(range(30))
  assert _numbers(path, num_frames=5) == [2, 8, 14, 20, 26]


@pytest.mark.parametrize("hours", [1, 26])
def test_a_jump_of_the_time_stamps_is_no_time(tmp_path, hours):
  whole = video_files.write_video(
      tmp_path / "a.mkv",
      video_files.counting_frames(30),
      options={"g": "5", "bf": "0"},
  )
  jumped = _copy(
      whole,
      tmp_path / "b.mkv",
      keep=lambda *_: True,
      shift=lambda ticks, number: (
          ticks + (hours * 3600_000 if number >= 15 else 0)
      ),
  )
  assert _numbers(jumped, num_frames=5) == [2, 8, 14, 20, 26]


def test_a_last_picture_that_stays_is_no_cut(tmp_path):
  whole = video_files.write_video(
      tmp_path / "a.mkv", video_files.counting_frames(25)
  )
  data = bytearray(whole.read_bytes())
  # Matroska's Duration: its name, its size, a float64 of milliseconds.
  place = data.index(b"\x44\x89\x88") + 3
  data[place : place + 8] = np.array(20_000.0, ">f8").tobytes()
  whole.write_bytes(data)
  assert _numbers(whole, num_frames=5) == [2, 7, 12, 17, 22]
  cut = tmp_path / "b.mkv"
  cut.write_bytes(data[:-12])
  with pytest.raises(videos.VideoError, match="20.0 s and holds|damaged"):
    _decode(cut)


# --- Damage ---


def test_no_key_frame_is_a_reason(tmp_path):
  whole = video_files.write_video(
      tmp_path / "a.mkv", video_files.moving_frames(20), options={"bf": "0"}
  )
  rest = _copy(whole, tmp_path / "b.mkv", keep=lambda number, _: number > 0)
  with pytest.raises(videos.VideoError, match="no frame|damaged"):
    _decode(rest)


@pytest.mark.parametrize(
    "error", [ValueError("31 is not\n a valid Type"), KeyError(), MemoryError()]
)
def test_whatever_pyav_raises_is_the_videos_reason(
    tmp_path, monkeypatch, error
):
  path = video_files.write_video(
      tmp_path / "a.mp4", video_files.counting_frames(3)
  )

  def fail(*_):
    raise error

  monkeypatch.setattr(video_index, "read_index", fail)
  with pytest.raises(videos.VideoError) as caught:
    _decode(path)
  assert "\n" not in str(caught.value) and len(str(caught.value)) > 5


def test_turning_without_side_data_is_turning_with_it(tmp_path, monkeypatch):
  path = video_files.write_video(
      tmp_path / "a.mp4", video_files.corner_frame(), rotation=90
  )
  expected = _decode(path)

  def fail(*_):
    raise ValueError("31 is not a valid Type")

  class Frame:
    """A frame whose side data PyAV cannot read."""

    def __init__(self, frame):
      self.rotation = frame.rotation

    side_data = property(fail)

  real = video_pixels.display_matrix
  monkeypatch.setattr(
      video_pixels, "display_matrix", lambda frame: real(Frame(frame))
  )
  np.testing.assert_array_equal(_decode(path), expected, strict=True)


@pytest.mark.parametrize(
    ("text", "is_damage"),
    [
        ("SEI type 5 size 32 truncated at 31\n", False),
        ("Overread VUI by 2 bits\n", False),
        ("error while decoding MB 4 3, bytestream -8\n", True),
    ],
)
def test_what_is_said_beside_the_pictures_is_no_damage(text, is_damage):
  decoder = videos._Decoder(av, pathlib.Path("a"), 48, [(16, "h264", text)])
  if is_damage:
    with pytest.raises(videos._Complaint, match="^error while decoding MB 4 3"):
      decoder._check()
  else:
    decoder._check()


def test_a_codec_that_keeps_more_than_key_frames_is_decoded_in_full(tmp_path):
  # GIF: frames are patches on what was there before, keys or not.
  path = video_files.write_video(
      tmp_path / "a.gif",
      video_files.moving_frames(12),
      codec="gif",
      pixel_format="rgb8",
      rate=10,
  )
  with video_container.open_video(av, path) as (container, stream):
    index = video_index.read_index(container, stream)
  runs = video_index.plan_runs(index, np.array([3, 11]))
  assert runs == [video_index.Run(0, 12)]
  other = video_files.write_video(
      tmp_path / "a.mkv", video_files.moving_frames(12), options={"g": "3"}
  )
  with video_container.open_video(av, other) as (container, stream):
    index = video_index.read_index(container, stream)
  assert len(video_index.plan_runs(index, np.array([3, 11]))) == 2


def test_a_pyav_that_is_too_old_is_named(tmp_path, monkeypatch):
  monkeypatch.setattr(av, "__version__", "16.1.0")
  video_container.import_av.cache_clear()
  try:
    with pytest.raises(errors.InputError, match="18.0 or newer, got 16.1.0"):
      _decode(tmp_path / "a.mp4")
  finally:
    video_container.import_av.cache_clear()


# --- Files that others made ---


@pytest.mark.parametrize(
    ("name", "num_frames"),
    [
        ("f1.mp4", 25),
        ("f2.mov", 10),
        ("f4.mp4", 25),
        ("f5.ts", 25),
        ("f6.mkv", 25),
        ("f7.mkv", 25),
        ("f9.ts", 25),
    ],
)
def test_odd_videos_show_the_frames_of_a_full_decode(name, num_frames):
  if not _ODD.is_dir():
    pytest.skip("the odd videos are not here")
  path = _ODD / name
  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    decoded = list(container.decode(stream))
    size = video_pixels.picture_size(
        decoded[0].width,
        decoded[0].height,
        pixel_aspect=Fraction(stream.sample_aspect_ratio or 1),
        short_side=48,
    )
    every = [video_pixels.to_rgb(frame, size) for frame in decoded]
  frames = _decode(path)
  assert len(frames) == num_frames
  centres = (np.arange(num_frames) + 0.5) * len(every) / num_frames
  for frame, centre in zip(frames, centres, strict=True):
    expected = every[int(np.ceil(centre)) - 1]
    np.testing.assert_array_equal(frame, expected, strict=True)


@pytest.mark.parametrize("name", ["f3.mkv", "f13.mp4"])
def test_odd_videos_that_are_broken_say_so(name):
  if not _ODD.is_dir():
    pytest.skip("the odd videos are not here")
  with pytest.raises(videos.VideoError):
    _decode(_ODD / name)
