"""The corpus of video files finds faults that are put before it."""

import json

import numpy as np
import pytest

pytest.importorskip("av", reason="video files need PyAV, the extra [video]")
from benchmarks import (
    video_corpus,
    video_corpus_check,
    video_corpus_files,
    video_corpus_folders,
)


def test_names_are_unique_and_the_corpus_is_large():
  names = [case.name for case in video_corpus.all_cases()]
  assert len(names) == len(set(names)) >= 400
  without_ffmpeg = [
      case for case in video_corpus.all_cases() if not case.needs_ffmpeg
  ]
  assert len(without_ffmpeg) >= 300


def test_each_frame_tells_its_number():
  drawn = video_corpus_files.pictures(480).astype(int)
  blocks = drawn[:, 8:32:16, 8::16, 0].reshape(480, 12) > 128
  gray = (blocks * 2 ** np.arange(12)).sum(axis=1)
  numbers = gray.copy()
  for shift in (1, 2, 4, 8):
    numbers ^= numbers >> shift
  np.testing.assert_array_equal(numbers, np.arange(480), strict=True)


# By hand: the centres of `count` segments, the earlier one on a border.
@pytest.mark.parametrize(
    ("times", "available", "count", "expected"),
    [
        (None, 8, 2, [1, 5]),
        (None, 250, 5, [24, 74, 124, 174, 224]),
        (None, 3, 3, [0, 1, 2]),
        ((0, 9, 9.5, 10), 3, 2, [0, 0]),
        ((0, 1, 2, 3, 10), 4, 2, [2, 3]),
    ],
)
def test_the_expected_frames_are_those_on_screen(
    times, available, count, expected
):
  case = video_corpus_files.Case(group="", name="", write=None, times=times)
  assert video_corpus_check.expected_frames(case, available, count) == expected


def _judged(frames, **fields):
  """Judges what might have been decoded of a video of 50 frames."""
  case = video_corpus_files.Case(group="", name="", write=None, **fields)
  whole = video_corpus_files.pictures(50)
  return video_corpus_check._compare(case, frames, whole)


def test_right_frames_pass_and_wrong_ones_are_counted():
  whole = video_corpus_files.pictures(50)
  right = whole[::2]  # The centres lie on borders: the earlier frame.
  assert _judged(right) == (0, "")
  assert _judged(right.clip(2, 253)) == (0, "")  # As another way to RGB.
  late = right.copy()
  late[7] = whole[18]
  assert _judged(late) == (1, "picture 7 is frame 18, not 14")
  assert _judged(late, slack=None) == (0, "")
  spoilt = right.copy()
  spoilt[3, 40:48, 16:24] += 30  # As where a reference was missing.
  assert _judged(spoilt) == (1, "picture 3 is none of the video's")
  assert _judged(right[:20])[0] == 25
  assert "instead of" in _judged(right[:, :, ::2])[1]
  assert _judged(right[:, :, ::-1], turn=lambda x: x[:, ::-1]) == (0, "")
  toned = (255 * (right / 255) ** 0.7).astype(np.uint8)
  assert _judged(toned)[0] == 25
  assert _judged(toned, is_toned=True) == (0, "")


def _end():
  import os

  os._exit(7)


def _hang():
  import time

  time.sleep(60)


def test_a_hang_and_a_crash_are_seen_and_cost_one_file():
  with video_corpus_check.Watched(timeout_seconds=20) as watched:
    assert watched.call(_end) == ("ended", "its process ended with 7")
    assert watched.call(abs, -1) == ("value", 1)
    kind, lines = watched.call(int, "x")
    assert kind == "raised" and "ValueError" in lines
  with video_corpus_check.Watched(timeout_seconds=0.5) as watched:
    assert watched.call(_hang)[0] == "hangs"


def test_what_prepare_must_not_do_is_a_fault(tmp_path):
  cases = [
      video_corpus_files.Case(group="", name=name, write=None)
      for name in ("a.mp4", "b.mp4", "c.mp4")
  ]
  findings = {case.name: video_corpus_check.Finding() for case in cases}
  prepared = video_corpus_folders.Prepared(
      0, {"a.mp4", "b.mp4", "c.mp4"}, {}, False, ""
  )
  check = video_corpus.check_prepared
  assert check(cases, findings, prepared) == []
  (fault,) = check(cases, findings, prepared._replace(exit_code=1))
  assert "exit 1" in fault
  (fault,) = check(cases, findings, prepared._replace(taken={"a.mp4", "b.mp4"}))
  assert fault == "c.mp4: taken and listed, or neither"
  (fault,) = check(cases, findings, prepared._replace(exit_code=None))
  assert "too long" in fault


def test_a_few_files_come_out_as_they_must(tmp_path, capsys):
  names = ("h264_closed.mp4", "mpeg4_B.avi", "vp8_altref.webm", "turned_90.mp4")
  names += ("mirrored.mp4", "empty.mp4", "text.mkv", "from_10h.mkv")
  cases = [case for case in video_corpus.all_cases() if case.name in names]
  faults = video_corpus.run_corpus(cases, tmp_path, timeout_seconds=60)
  assert faults == []
  total = capsys.readouterr().out.split("total", 1)[1].split("\n", 1)[0]
  assert total.split()[:4] == ["8", "6", "2", "0"]
  (manifest,) = (tmp_path / "output").glob("*/*/manifest.json")
  assert len(json.loads(manifest.read_text())["skipped"]) == 2
