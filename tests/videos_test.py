"""Video files of many kinds become the right frames, or a short reason."""

import itertools
import pathlib
import random
import subprocess
import sys

import numpy as np
import pytest

from chain_jax.data import (
    frame_sampling,
    video_clock,
    video_index,
    video_pixels,
    videos,
)

pytest.importorskip("av", reason="video files need PyAV, the extra [video]")
import av
import video_files

_CLIPS = (
    pathlib.Path(__file__).parent.parent.parent / "shared/data/ucf101_clips"
)
# Loses nothing, so that pixels can be compared.
_EXACT = dict(codec="ffv1", pixel_format="bgr0")


def _decode(path, *, num_frames=100, short_side=48):
  return videos.decode_video(path, num_frames=num_frames, short_side=short_side)


# --- Which frames ---


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".mp4", "libx264", {}),
        (".mp4", "libx264", {"bf": "0", "g": "4"}),
        (".mp4", "libx265", {"x265-params": "log-level=none:keyint=8"}),
        (".mp4", "mpeg4", {"bf": "2", "g": "6"}),
        (".mkv", "libx264", {"g": "5"}),
        (".mkv", "mpeg2video", {"flags": "+ilme+ildct", "bf": "2"}),
        (".webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16"}),
        (".webm", "libvpx-vp9", {}),
        (".avi", "mpeg4", {"bf": "2"}),
        (".avi", "libx264", {}),
        (".ts", "libx264", {"g": "7"}),
        (".mpg", "mpeg2video", {"bf": "2", "g": "6"}),
        (".flv", "libx264", {}),
        (".wmv", "wmv2", {}),
    ],
)
def test_at_an_even_rate_the_centres_of_segments_are_shown(
    tmp_path, suffix, codec, options
):
  path = video_files.write_video(
      tmp_path / f"a{suffix}",
      video_files.counting_frames(24),
      codec=codec,
      options=options,
  )
  for num_frames in (1, 2, 3, 4, 6, 8, 12, 24, 25):
    shown = min(num_frames, 24)
    expected = frame_sampling.segment_centres(
        np.arange(shown + 1) * 24 // shown
    )
    frames = _decode(path, num_frames=num_frames)
    assert video_files.frame_numbers(frames) == expected.tolist()


def test_at_a_varying_rate_time_counts_not_frames(tmp_path):
  # Ten frames in the first second, then one a second for nine seconds.
  times = [100 * i for i in range(10)] + [1000 * i for i in range(1, 10)]
  path = video_files.write_video(
      tmp_path / "a.mkv",
      video_files.counting_frames(19),
      times_ms=times,
      **_EXACT,
  )
  # Segments of 2 s; their centres, 1, 3, 5, 7 and 9 s, are where a frame ends
  # and the next begins: the earlier counts.
  frames = _decode(path, num_frames=5)
  assert video_files.frame_numbers(frames) == [9, 11, 13, 15, 17]


@pytest.mark.parametrize("seed", range(20))
def test_choosing_frames_agrees_with_looking_at_the_clock(seed):
  rng = random.Random(seed)
  steps = [rng.choice([0.04, 0.05, 0.5]) for _ in range(rng.randint(1, 40))]
  begins = list(itertools.accumulate(steps, initial=3.0))
  times, end = begins[:-1], begins[-1]
  for num_frames in (1, 2, 5, 17, 60):
    chosen = video_clock.choose_frames(
        np.array(times), end=end, num_frames=num_frames
    ).tolist()
    count = len(chosen)
    assert min(num_frames, len(times)) <= count <= num_frames
    on_screen = []
    for segment in range(count):
      clock = 3.0 + (segment + 0.5) * (end - 3.0) / count - 1e-3
      on_screen.append(max(i for i, t in enumerate(times) if t < clock))
    assert chosen == on_screen


def _still_then_motion(folder, *, is_constant):
  """Frame 0 for nine seconds, then 25 others within one."""
  numbers = [0] * 225 if is_constant else [0]
  numbers += list(range(1, 26))
  times = [round(1000 * (9 + i / 25)) for i in range(25)]
  first = [40 * i for i in range(225)] if is_constant else [0]
  return video_files.write_video(
      folder / f"{is_constant}.mkv",
      video_files.counting_frames(26)[numbers],
      times_ms=first + times,
      **_EXACT,
  )


@pytest.mark.parametrize("num_frames", [1, 5, 10, 25])
def test_a_still_lasts_as_long_at_a_varying_rate_as_at_a_constant_one(
    tmp_path, num_frames
):
  varying, constant = (
      video_files.frame_numbers(
          _decode(
              _still_then_motion(tmp_path, is_constant=is_constant),
              num_frames=num_frames,
          )
      )
      for is_constant in (False, True)
  )
  assert varying == constant
  # Segments of 0.4 s: the still is on screen at 22 centres, up to 8.6 s; those
  # at 9.0, 9.4 and 9.8 s lie on the ends of frames 0, 10 and 20.
  if num_frames == 25:
    assert varying == [0] * 23 + [10, 20]


def test_a_jump_of_the_clock_is_no_still():
  times = np.concatenate([np.arange(125) / 25, 3600 + np.arange(125) / 25])
  for jumped in (times, np.roll(times, 125)):
    even, _ = video_clock.continuous_times(jumped)
    np.testing.assert_allclose(even - even[0], np.arange(250) / 25, atol=1e-9)
  # Slides that stay for minutes are none, nor is half an hour in a lecture.
  for steps in ([100.0] * 5 + [300.0], [0.04] * 50_000 + [1800.0]):
    times = np.concatenate([[0.0], np.cumsum(steps)])
    even, _ = video_clock.continuous_times(times)
    np.testing.assert_allclose(even, times)


def _every_frame(path, *, short_side):
  """All frames, decoded from the first packet to the last."""
  with av.open(str(path)) as container:
    container.streams.video[0].thread_count = 1
    decoded = list(container.decode(video=0))
    size = video_pixels.picture_size(
        decoded[0].width,
        decoded[0].height,
        pixel_aspect=None,
        short_side=short_side,
    )
    return [video_pixels.to_rgb(frame, size) for frame in decoded]


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".mpg", "mpeg1video", {"g": "10", "bf": "2"}),
        (".mkv", "mpeg2video", {"g": "10", "bf": "2"}),
        (
            ".ts",
            "mpeg2video",
            {
                "g": "10",
                "bf": "2",
                "sc_threshold": "1000000000",
                "flags": "+cgop",
            },
        ),
        (".mp4", "mpeg4", {"g": "10", "bf": "2"}),
        (".mp4", "libx264", {"g": "10", "bf": "3"}),
        (".mp4", "libx264", {"x264-params": "keyint=11:open-gop=1:scenecut=0"}),
        (
            ".ts",
            "libx264",
            {
                "x264-params": "keyint=11:open-gop=1:b-pyramid=none:bframes=2:b-adapt=0"
            },
        ),
        (".mp4", "libx264", {"g": "10", "intra-refresh": "1"}),
        (".mp4", "libx265", {"x265-params": "log-level=none:keyint=10"}),
        (
            ".mkv",
            "libx265",
            {"x265-params": "log-level=none:keyint=10:open-gop=0"},
        ),
        (".webm", "libvpx", {"g": "10", "auto-alt-ref": "1"}),
        (".webm", "libvpx-vp9", {"g": "10", "auto-alt-ref": "1"}),
        (".mkv", "libsvtav1", {"g": "10", "preset": "12"}),
        (".avi", "mjpeg", {}),
        (".mkv", "ffv1", {"g": "10"}),
        (".mov", "prores_ks", {}),
    ],
)
def test_frames_got_by_seeking_are_those_of_a_full_decode(
    tmp_path, suffix, codec, options
):
  kind = {"mjpeg": "yuvj420p", "prores_ks": "yuv422p10le"}.get(codec, "yuv420p")
  path = video_files.write_video(
      tmp_path / f"a{suffix}",
      video_files.moving_frames(60),
      codec=codec,
      pixel_format=kind,
      options=options,
  )
  every = _every_frame(path, short_side=96)
  assert len(every) == 60
  for num_frames in (1, 2, 3, 7, 20, 60):
    # The centres of segments; with a rest of a half, the earlier frame.
    centres = (np.arange(num_frames) + 0.5) * 60 / num_frames
    expected = [every[int(np.ceil(centre)) - 1] for centre in centres]
    frames = _decode(path, num_frames=num_frames, short_side=96)
    np.testing.assert_array_equal(frames, np.stack(expected), strict=True)


def test_runs_that_overlap_start_where_the_earlier_one_does():
  # Packet 3 is a key frame; packets 4 and 5 are stored after it and shown
  # before it, so they build on what lies before, back to packet 0.
  index = video_index.PacketIndex(
      pts=np.array([0.0, 1, 2, 5, 3, 4]),
      is_key=np.array([1, 0, 0, 1, 0, 0], bool),
      is_shown=np.ones(6, bool),
      end=6.0,
  )
  runs = video_index.plan_runs(index, np.array([3, 4]))
  assert runs == [video_index.Run(0, 5)]
  # Also over several runs that were apart from each other.
  index = video_index.PacketIndex(
      pts=np.array([0.0, 1, 2, 3, 7, 5]),
      is_key=np.array([1, 0, 1, 0, 1, 0], bool),
      is_shown=np.ones(6, bool),
      end=8.0,
  )
  runs = video_index.plan_runs(index, np.array([1, 4, 5]))
  assert runs == [video_index.Run(0, 2), video_index.Run(2, 6)]


def test_a_long_video_is_not_decoded_from_start_to_end(tmp_path, monkeypatch):
  path = video_files.write_video(
      tmp_path / "a.mp4",
      video_files.counting_frames(200),
      options={"g": "10", "keyint_min": "10", "sc_threshold": "0", "bf": "0"},
  )
  checked = []
  check = videos._Decoder._check
  monkeypatch.setattr(
      videos._Decoder,
      "_check",
      lambda self, frame=None: (checked.append(frame), check(self, frame)),
  )
  # Frames 49 and 149 stand at the end of their groups of 10.
  assert len(_decode(path, num_frames=2)) == 2
  assert sum(frame is not None for frame in checked) == 20


def test_a_recording_that_starts_before_a_key_frame_shows_the_rest(tmp_path):
  whole = video_files.write_video(
      tmp_path / "a.ts",
      video_files.counting_frames(30),
      options={"g": "10", "keyint_min": "10", "sc_threshold": "0"},
  )
  with av.open(str(whole)) as container:
    stream = container.streams.video[0]
    with av.open(str(tmp_path / "b.ts"), "w") as out:
      copy = out.add_stream_from_template(stream)
      for packet in list(container.demux(stream))[4:]:
        if packet.size:
          packet.stream = copy
          out.mux(packet)
  frames = _decode(tmp_path / "b.ts")
  assert video_files.frame_numbers(frames) == list(range(10, 30))


def test_one_frame_is_a_video(tmp_path):
  path = video_files.write_video(
      tmp_path / "a.mp4", video_files.counting_frames(1)
  )
  assert _decode(path, num_frames=25).shape == (1, 48, 64, 3)


# --- Pixels ---


def test_pixels_of_a_lossless_video_come_back_as_they_were(tmp_path):
  expected = video_files.moving_frames(5)
  path = video_files.write_video(tmp_path / "a.mkv", expected, **_EXACT)
  actual = _decode(path, short_side=96)
  np.testing.assert_array_equal(actual, expected, strict=True)


@pytest.mark.parametrize(
    ("shape", "aspect", "expected"),
    [
        ((97, 131), None, (48, 65)),  # 48 * 131 / 97 = 64.8
        ((131, 97), None, (65, 48)),
        ((96, 96), "1/1", (48, 48)),
        ((96, 96), "2/1", (48, 96)),
        ((96, 96), "1/2", (96, 48)),
        ((24, 32), None, (48, 64)),
    ],
)
def test_the_short_side_is_as_asked_and_the_aspect_as_shown(
    tmp_path, shape, aspect, expected
):
  height, width = shape
  path = video_files.write_video(
      tmp_path / "a.mkv",
      video_files.counting_frames(2, height=height, width=width),
      **(_EXACT if aspect is None else {"pixel_aspect": aspect}),
  )
  assert _decode(path).shape == (2, *expected, 3)


# Degrees counter-clockwise -> where the white corner goes.
@pytest.mark.parametrize(
    ("rotation", "corner"),
    [
        (0, (slice(0, 20), slice(0, 20))),
        (90, (slice(-20, None), slice(0, 20))),
        (180, (slice(-20, None), slice(-20, None))),
        (-90, (slice(0, 20), slice(-20, None))),
    ],
)
def test_a_turned_video_is_upright(tmp_path, rotation, corner):
  path = video_files.write_video(
      tmp_path / "a.mp4", video_files.corner_frame(), rotation=rotation
  )
  frame = _decode(path, short_side=64)[0]
  assert frame.shape == ((96, 64, 3) if rotation % 180 else (64, 96, 3))
  assert frame[corner].min() > 200
  # A quarter of the picture is white.
  assert 55 < frame.mean() < 73


def test_a_display_matrix_can_mirror():
  frames = np.arange(6, dtype=np.uint8).reshape(1, 2, 3, 1).repeat(3, axis=3)
  one = 1 << 16
  mirror = np.array([[-one, 0, 0], [0, one, 0], [0, 0, 1 << 30]], np.int32)
  actual = video_pixels.turn_upright(frames, mirror)[0, :, :, 0]
  assert actual.tolist() == [[2, 1, 0], [5, 4, 3]]
  transpose = np.array([[0, one, 0], [one, 0, 0], [0, 0, 1 << 30]], np.int32)
  actual = video_pixels.turn_upright(frames, transpose)[0, :, :, 0]
  assert actual.tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize(
    ("codec", "pixel_format"),
    [
        ("ffv1", "gray"),
        ("ffv1", "yuv420p10le"),
        ("ffv1", "yuv444p"),
        ("ffv1", "yuv422p"),
        ("mjpeg", "yuvj420p"),
    ],
)
def test_other_pixel_formats_look_the_same(tmp_path, codec, pixel_format):
  expected = video_files.counting_frames(8)
  path = video_files.write_video(
      tmp_path / "a.mkv", expected, codec=codec, pixel_format=pixel_format
  )
  actual = _decode(path)
  assert actual.shape == expected.shape
  # Grey levels pass through [16, 235] and back: 256 / 220 levels a step.
  np.testing.assert_allclose(actual, expected, atol=2)


def test_colours_are_in_the_order_red_green_blue(tmp_path):
  frames = np.zeros((1, 48, 64, 3), np.uint8)
  frames[..., 0] = 200
  path = video_files.write_video(tmp_path / "a.mp4", frames)
  mean = _decode(path).mean(axis=(0, 1, 2))
  # H.264 with a colour every second pixel keeps a flat colour to 4 levels.
  np.testing.assert_allclose(mean, [200, 0, 0], atol=4)


def test_a_gif_is_a_video(tmp_path):
  path = video_files.write_video(
      tmp_path / "a.gif",
      video_files.moving_frames(6),
      codec="gif",
      pixel_format="rgb8",
      rate=10,
  )
  assert _decode(path).shape == (6, 48, 64, 3)


def test_picture_sizes_that_fill_the_memory_are_refused():
  settings = dict(pixel_aspect=None, short_side=48)
  with pytest.raises(videos.VideoError, match="60000 x 60000 pixels"):
    video_pixels.picture_size(60000, 60000, **settings)
  with pytest.raises(videos.VideoError, match="500 times as wide"):
    video_pixels.picture_size(1000, 2, **settings)


# --- Damage ---


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  folder = tmp_path_factory.mktemp("clip")
  return video_files.write_video(
      folder / "a.mp4",
      video_files.moving_frames(50, height=192, width=256),
      options={"g": "25", "crf": "12"},
      container_options={"movflags": "faststart"},
  )


def _reason(path):
  with pytest.raises(videos.VideoError) as caught:
    _decode(path, num_frames=5)
  text = str(caught.value)
  assert "\n" not in text and len(text) < 120
  return text


def test_what_is_no_video_says_why(tmp_path):
  (tmp_path / "empty.mp4").touch()
  (tmp_path / "text.mp4").write_text("not a video\n" * 100)
  audio = video_files.write_audio(tmp_path / "audio.m4a")
  assert _reason(tmp_path / "missing.mp4") == "no such file"
  assert _reason(tmp_path) == "not a file"
  assert _reason(tmp_path / "empty.mp4") == "the file is empty"
  assert _reason(audio) == "no video is in it, only audio"
  cover = video_files.write_audio(tmp_path / "cover.m4a", cover=True)
  assert _reason(cover) == "no video is in it, only audio"
  assert "not a video" in _reason(tmp_path / "text.mp4")


def test_a_single_picture_is_no_video(tmp_path):
  image = pytest.importorskip("PIL.Image")
  image.new("RGB", (64, 48)).save(tmp_path / "a.mp4", "PNG")
  assert _reason(tmp_path / "a.mp4") == "not in a format of video files"


def test_a_playlist_opens_no_other_file(tmp_path, clip):
  (tmp_path / "a.mp4").write_bytes(clip.read_bytes())
  lists = {
      "concat.mp4": "ffconcat version 1.0\nfile a.mp4\n",
      "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.mp4\n",
  }
  for name, text in lists.items():
    (tmp_path / name).write_text(text)
    assert _reason(tmp_path / name).startswith("not ")


def test_a_name_is_never_a_protocol(tmp_path, clip, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ("concat:a|b.mp4", "100%d.mp4", "http:x.mp4", "ü ' \" #?.mp4"):
    (tmp_path / name).write_bytes(clip.read_bytes())
    assert len(_decode(name, num_frames=3)) == 3


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi", ".flv"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.85])
def test_a_cut_file_is_refused(tmp_path, suffix, share):
  codec = {".webm": "libvpx-vp9", ".avi": "mpeg4"}.get(suffix, "libx264")
  whole = video_files.write_video(
      tmp_path / f"whole{suffix}", video_files.moving_frames(30), codec=codec
  )
  assert len(_decode(whole, num_frames=5)) == 5
  _reason(video_files.cut(whole, tmp_path / f"cut{suffix}", share=share))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_cut_file_whose_header_comes_first_is_refused(tmp_path, clip, share):
  _reason(video_files.cut(clip, tmp_path / "cut.mp4", share=share))


@pytest.mark.parametrize("seed", range(8))
def test_damaged_pictures_are_refused(tmp_path, clip, seed):
  _reason(video_files.spoil(clip, tmp_path / "spoilt.mp4", seed=seed))


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_a_cut_between_packets_is_seen_by_the_announced_time(tmp_path, suffix):
  whole = video_files.write_video(
      tmp_path / f"whole{suffix}",
      video_files.moving_frames(30),
      codec="libvpx-vp9" if suffix == ".webm" else "libx264",
  )
  part = video_files.cut_between_packets(
      whole, tmp_path / f"part{suffix}", share=0.5
  )
  assert "announces 1.2 s and holds 0.6 s" in _reason(part)


def _has_faulty_frame(path):
  """Says whether a frame is marked as faulty and no error is raised."""
  with av.open(str(path)) as container:
    container.streams.video[0].thread_count = 1
    try:
      return any([frame.is_corrupt for frame in container.decode(video=0)])
    except av.error.InvalidDataError:
      return False


def test_a_faulty_frame_is_damage_even_without_a_complaint(tmp_path):
  clip = video_files.write_video(
      tmp_path / "a.mp4",
      video_files.moving_frames(20, height=192, width=256),
      codec="mpeg4",
  )
  num_faulty = 0
  for seed in range(40):
    spoilt = video_files.spoil(
        clip, tmp_path / "spoilt.mp4", seed=seed, num_bytes=1
    )
    if _has_faulty_frame(spoilt):
      num_faulty += 1
      with pytest.raises(videos.VideoError):
        _decode(spoilt)
  assert num_faulty > 10


def test_a_complaint_is_damage_even_without_a_faulty_frame(tmp_path):
  # FFV1 says that a checksum is wrong and shows the frame all the same.
  whole = video_files.write_video(
      tmp_path / "a.mkv",
      video_files.moving_frames(10),
      codec="ffv1",
      options={"level": "3", "slicecrc": "1"},
  )
  data = bytearray(whole.read_bytes())
  data[len(data) // 2] ^= 16
  (tmp_path / "b.mkv").write_bytes(data)
  assert "CRC" in _reason(tmp_path / "b.mkv")


def test_a_video_is_judged_by_itself_not_by_those_before(tmp_path, clip):
  whole = video_files.write_video(
      tmp_path / "whole.mkv", video_files.moving_frames(30)
  )
  # So little is lost that the one complaint about it is the only sign.
  part = video_files.cut(whole, tmp_path / "part.mkv", share=0.95)
  for _ in range(3):
    assert _reason(part) == "damaged: File ended prematurely"
  assert len(_decode(clip, num_frames=5)) == 5


def test_avi_with_frames_out_of_order_is_not_believed_its_times(tmp_path):
  path = video_files.write_video(
      tmp_path / "a.avi",
      video_files.counting_frames(4),
      options={"bf": "2", "b_strategy": "0"},
  )
  # Stored in the order 0 3 1 2, and AVI has no field that says so.
  frames = _decode(path, num_frames=1)
  assert video_files.frame_numbers(frames) == [1]


@pytest.mark.parametrize("seed", range(60))
def test_any_damage_ends_in_frames_or_in_a_video_error(tmp_path, clip, seed):
  rng = np.random.default_rng(seed)
  data = bytearray(clip.read_bytes()[: 4000 + 400 * seed])
  for place in rng.integers(0, min(len(data), 3000), 1 + seed % 4):
    data[place] = int(rng.integers(256))
  (tmp_path / "a.mp4").write_bytes(data)
  try:
    frames = _decode(tmp_path / "a.mp4", num_frames=5)
  except videos.VideoError:
    return
  assert frames.shape[3] == 3 and min(frames.shape[1:3]) == 48


def test_nothing_is_printed_about_damage(tmp_path, clip, capfd, caplog):
  _reason(video_files.spoil(clip, tmp_path / "spoilt.mp4", seed=0))
  assert capfd.readouterr() == ("", "") and not caplog.records


def test_settings_must_be_positive(clip):
  for settings in ({"num_frames": 0}, {"short_side": 0}):
    with pytest.raises(ValueError, match="must be >= 1"):
      _decode(clip, **settings)


def test_without_pyav_the_error_says_what_to_install(tmp_path):
  program = (
      "import sys; sys.modules['av'] = None\n"
      "from chain_jax import errors\n"
      "from chain_jax.data import videos\n"
      "sys.exit(errors.run_command(lambda: videos.decode_video("
      "'a.mp4', num_frames=1, short_side=1)))"
  )
  done = subprocess.run(
      [sys.executable, "-c", program], capture_output=True, text=True
  )
  assert done.returncode == 2
  assert "pip install 'chain_jax[video]'" in done.stderr


def test_of_real_clips_the_frames_at_the_centres_are_shown():
  if not _CLIPS.is_dir():
    pytest.skip("real UCF101 clips are not here")
  for path in sorted(_CLIPS.glob("*/*.mp4"))[::60]:
    frames = _decode(path, num_frames=5, short_side=240).mean(axis=3)
    with av.open(str(path)) as container:
      every = [f.to_ndarray(format="gray") for f in container.decode(video=0)]
    for segment, frame in enumerate(frames):
      # Frames lie 33 ms apart; 1 ms after the end of one, it still counts.
      centre = (segment + 0.5) * len(every) / 5
      distances = [np.abs(frame - other).mean() for other in every]
      assert np.argmin(distances) == np.ceil(centre - 0.03) - 1
