"""A folder is walked whole and once, and what is passed over is named."""

import os
import pathlib
import shutil
import tempfile
import time

import pytest

from chain_jax.data import given_videos, video_walk


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "videos").mkdir()
  return tmp_path / "videos"


def _make(folder, *names):
  for name in names:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()


def _walk(folder, *, by_class=True):
  found = video_walk.walk(folder, by_class=by_class)
  return found.ids, dict(found.left_out)


@pytest.fixture
def as_nobody():
  """A folder that a user without rights can reach, and being that user."""
  folder = pathlib.Path(tempfile.mkdtemp())
  folder.chmod(0o755)
  yield folder
  shutil.rmtree(folder)


def test_a_folder_that_must_not_be_read_is_listed(as_nobody):
  _make(as_nobody, "run/a.mp4", "lost+found/b.mp4", "run/shut/c.mp4")
  shut = [as_nobody / "lost+found", as_nobody / "run" / "shut"]
  for one in shut:
    one.chmod(0)
  is_root = os.geteuid() == 0
  try:
    if is_root:
      os.seteuid(65534)
    ids, left_out = _walk(as_nobody)
  finally:
    if is_root:
      os.seteuid(0)
    for one in shut:
      one.chmod(0o755)
  assert ids == ["run/a.mp4"]
  assert left_out == dict.fromkeys(
      ["lost+found", "run/shut"], "Permission denied"
  )


def test_a_disk_that_fails_in_a_folder_keeps_what_came_before(
    folder, monkeypatch
):
  _make(folder, "run/a.mp4", "run/b.mp4", "box/c.mp4")
  scandir = os.scandir

  class Failing:

    def __init__(self, path):
      self._scanned = scandir(path)

    def __enter__(self):
      return self

    def __exit__(self, *_):
      self._scanned.close()

    def __iter__(self):
      yield next(self._scanned)
      raise OSError(5, "Input/output error")

  monkeypatch.setattr(
      os, "scandir", lambda p: (Failing if "run" in str(p) else scandir)(p)
  )
  ids, left_out = _walk(folder)
  assert len(ids) == 2 and "box/c.mp4" in ids
  assert left_out == {"run": "Input/output error"}


def test_links_that_lead_nowhere_are_listed(folder):
  _make(folder, "run/a.mp4")
  for link, target in (
      ("run/dead.mp4", "nothing"),
      ("run/dead", "nothing"),
      ("run/self", "self"),
      ("run/there", "back"),
      ("run/back", "there"),
      ("run/up", ".."),
      ("around", "."),
  ):
    (folder / link).symlink_to(target)
  ids, left_out = _walk(folder)
  assert ids == ["run/a.mp4"]
  assert left_out == {
      "run/dead.mp4": "no such file",
      "run/dead": "no such file",
      "run/self": "Too many levels of symbolic links",
      "run/there": "Too many levels of symbolic links",
      "run/back": "Too many levels of symbolic links",
      "run/up": "the folder with all this again",
      "around": "the folder with all this again",
  }


@pytest.mark.parametrize("by_class", [True, False])
def test_folders_that_link_to_each_other_are_walked_once(folder, by_class):
  names = [f"d{number}" for number in range(8)]
  for name in names:
    _make(folder, f"{name}/a.mp4")
    for other in names:
      if other != name:
        (folder / name / f"to_{other}").symlink_to(folder / other)
  start = time.monotonic()
  ids, left_out = _walk(folder, by_class=by_class)
  # Every path without a repeat: 8! e, or 109,600; there are 8 and 56 links.
  assert time.monotonic() - start < 2
  assert ids == [f"{name}/a.mp4" for name in names]
  assert len(left_out) == 56
  assert left_out["d0/to_d3"] == "the folder d3 again"


def test_classes_may_share_a_folder_from_elsewhere(folder, tmp_path):
  _make(tmp_path / "pool", "a.mp4", "deep/b.mp4")
  (tmp_path / "pool" / "again").symlink_to("deep")
  for name in ("run", "walk"):
    (folder / name).symlink_to(tmp_path / "pool")
  shared = ["a.mp4", "deep/b.mp4"]
  ids, left_out = _walk(folder)
  assert ids == [f"{name}/{one}" for name in ("run", "walk") for one in shared]
  assert left_out == {
      "run/again": "the folder run/deep again",
      "walk/again": "the folder walk/deep again",
  }
  # Where folders are no classes, once is enough.
  ids, left_out = _walk(folder, by_class=False)
  assert ids == [f"run/{one}" for one in shared]
  assert left_out["walk"] == "the folder run again"


def test_a_name_without_links_goes_before_one_over_a_link(folder, tmp_path):
  _make(folder, "z/deep/a.mp4")
  (folder / "a").symlink_to("z/deep")
  _make(tmp_path / "out", "b.mp4")
  (folder / "z" / "deep" / "out").symlink_to(tmp_path / "out")
  (folder / "b").symlink_to(tmp_path / "out")
  ids, left_out = _walk(folder, by_class=False)
  assert ids == ["b/b.mp4", "z/deep/a.mp4"]
  assert left_out == {
      "a": "the folder z/deep again",
      "z/deep/out": "the folder b again",
  }


def test_folders_deeper_than_a_stack_are_walked(folder):
  # Names of one letter: 450 deep are 900 characters.
  deep = folder.joinpath(*["d"] * 450)
  deep.mkdir(parents=True)
  _make(deep, "a.mp4")
  deeper = deep.joinpath(*["e"] * 100)
  deeper.mkdir(parents=True)
  _make(deeper, "b.mp4")
  ids, left_out = _walk(folder)
  assert ids == ["d/" * 450 + "a.mp4"]
  ((name, reason),) = left_out.items()
  assert name.startswith("d/d/") and "must have 1 to 1024 characters" in reason


def test_what_is_no_file_is_listed_and_not_waited_for(folder):
  _make(folder, "a.mp4")
  os.mkfifo(folder / "pipe.mp4")
  ids, left_out = _walk(folder)
  assert ids == ["a.mp4"] and left_out == {"pipe.mp4": "not a file"}


def test_other_names_are_counted_and_named_in_one_line(folder):
  others = [f"clip{number}.xyz" for number in range(5)]
  _make(folder, "a.mp4", "run/video", *others, "day/b.mp4.part")
  (folder / "c\n.rec").touch()
  (line,) = video_walk.walk(folder, by_class=True).remarks()
  assert line == (
      "8 files are not taken, the name does not end like a video's: c\\n.rec,"
      " clip0.xyz, clip1.xyz, clip2.xyz, clip3.xyz, ...; rename what is a video"
  )


def test_usual_companions_are_one_line_of_counts(folder):
  _make(folder, "a.mp4", "a.srt", "b.SRT", "run/c.txt", "run/d.jpg", "e.jpg")
  _make(folder, "f.jpg")
  (line,) = video_walk.walk(folder, by_class=True).remarks()
  assert line == (
      "6 files are not taken, of kinds that lie beside videos: 3 .jpg, 2 .srt,"
      " 1 .txt"
  )
  (folder / "alone").mkdir()
  assert video_walk.walk(folder / "alone", by_class=True).remarks() == []


def test_videos_of_all_common_names_are_taken(folder):
  names = ["a.mpe", "b.3gpp", "c.mpv", "d.MP4V", "e.tp", "f.m1v", "g.h264"]
  _make(folder, *names)
  assert _walk(folder) == (names, {})


def test_a_name_that_cannot_be_an_id_costs_one_file_or_folder(folder):
  _make(folder, "run/a.mp4", "bad\nfolder/b.mp4", "bad\nfolder/c.mp4")
  _make(folder, "run/\x1b[31m.mp4", 'run/it\'s "c" \\ d.mp4')
  ids, left_out = _walk(folder)
  assert ids == ["run/a.mp4", 'run/it\'s "c" \\ d.mp4']
  assert left_out.keys() == {"bad\\nfolder", "run/\\x1b[31m.mp4"}
  for name, reason in left_out.items():
    assert "without control characters" in reason and "rename it" in reason
    assert name.isprintable() and reason.isprintable()


def test_a_name_that_is_not_utf_8_costs_one_file(folder):
  _make(folder, "a.mp4")
  try:
    (folder / os.fsdecode(b"\xff.mp4")).touch()
  except OSError:
    pytest.skip("this file system takes UTF-8 only")
  ids, left_out = _walk(folder)
  assert ids == ["a.mp4"]
  ((name, reason),) = left_out.items()
  assert name == "\\udcff.mp4" and "must be UTF-8" in reason


def test_files_and_folders_may_be_given_together(folder):
  _make(folder, "one/a.mp4", "one/x/b.mp4", "two/a.mp4", "two/n.txt", "c")
  one, two, file = (str(folder / name) for name in ("one", "two", "c"))
  given = given_videos.list_given([f"{one}/", two, file, file])
  assert [video.id for video in given.files] == [
      f"{one}/a.mp4",
      "x/b.mp4",
      f"{two}/a.mp4",
      file,
      file,
  ]
  assert [video.path for video in given.files] == [
      f"{one}/a.mp4",
      f"{one}/x/b.mp4",
      f"{two}/a.mp4",
      file,
      file,
  ]
  assert given.left_out == []
  (remark,) = given.remarks
  assert remark.startswith(f"{two}: 1 file is not taken")


def test_a_given_name_or_folder_that_gives_no_video_is_left_out(folder):
  (folder / "empty").mkdir()
  empty, bad = str(folder / "empty"), str(folder / "a\nb.mp4")
  given = given_videos.list_given([empty, bad])
  assert given.files == []
  left_out = dict(given.left_out)
  assert left_out[empty] == "no video in this folder"
  assert "control characters" in left_out[bad.replace("\n", "\\n")]
