"""Folders and CSV files become lists of videos; mistakes become one line."""

import os
import subprocess
import sys

import pytest

from chain_jax import errors
from chain_jax.data import video_folder


def _make(folder, *names):
  for name in names:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()


def _list(folder, text=None):
  if text is None:
    return video_folder.list_videos(folder)
  file = folder.parent / "labels.csv"
  if isinstance(text, bytes):
    file.write_bytes(text)
  else:
    file.write_text(text, encoding="utf-8")
  return video_folder.list_videos(folder, csv=file)


def _refusal(folder, text=None):
  with pytest.raises(errors.InputError) as caught:
    _list(folder, text)
  return str(caught.value)


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "videos").mkdir()
  return tmp_path / "videos"


def test_sub_folders_are_classes(folder):
  _make(folder, "run/b.mp4", "run/a.mp4", "box/c.avi", "run/day 2/d.mkv")
  listed = _list(folder)
  assert listed.ids == [
      "box/c.avi",
      "run/a.mp4",
      "run/b.mp4",
      "run/day 2/d.mkv",
  ]
  assert listed.paths == [folder / video for video in listed.ids]
  assert listed.classes == ["box", "run"]
  assert listed.labels == [(0,), (1,), (1,), (1,)]


def test_a_flat_folder_has_no_labels(folder):
  _make(folder, "b.mp4", "a.mp4")
  listed = _list(folder)
  assert listed.ids == ["a.mp4", "b.mp4"]
  assert listed.labels is None and listed.classes == []


def test_classes_that_are_numbers_are_in_their_order(folder):
  _make(folder, "10/a.mp4", "9/b.mp4")
  listed = _list(folder)
  assert listed.classes == ["9", "10"] and listed.labels == [(1,), (0,)]


def test_numbers_of_one_value_keep_one_order(folder):
  # By value, then by text: `001` < `01` < `1`. Sets of text have another order
  # in each process, so this is tried in several.
  _make(folder, *(f"{name}/a.mp4" for name in ("1", "01", "001", "2", "0")))
  program = (
      "import pathlib, sys\n"
      "from chain_jax.data import video_folder\n"
      "listed = video_folder.list_videos(pathlib.Path(sys.argv[1]))\n"
      "print(*listed.classes, listed.labels)"
  )
  for seed in range(6):
    printed = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        env=os.environ | {"PYTHONHASHSEED": str(seed)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed == "0 001 01 1 2 [(0,), (1,), (2,), (3,), (4,)]\n"


def test_numbers_of_any_length_and_script_are_in_their_order(folder):
  # int() takes 4300 digits at most. ARABIC-INDIC DIGIT FIVE is a 5.
  long = "9" * 5000
  _make(folder, "a.mp4")
  listed = _list(folder, f"a.mp4,{long};8{long};10;\u0665;4\n")
  assert listed.classes == ["4", "\u0665", "10", long, f"8{long}"]


def test_labels_may_be_left_out_at_any_depth(folder):
  _make(folder, "x.mp4", "run/a.mp4", "a/b/c/d.mp4")
  listed = video_folder.list_videos(folder, labels="none")
  assert listed.ids == ["a/b/c/d.mp4", "run/a.mp4", "x.mp4"]
  assert listed.labels is None and listed.classes == []


@pytest.mark.parametrize("labels", ["folders", "automatic"])
def test_a_tree_of_labels_is_refused_with_the_way_out(folder, labels):
  _make(folder, "train/run/a.mp4", "train/box/b.mp4", "test/run/c.mp4")
  with pytest.raises(errors.InputError) as caught:
    video_folder.list_videos(folder, labels=labels)
  line = str(caught.value)
  assert "one level of folders that hold videos, got test/run/c.mp4" in line
  assert "--labels=none" in line and "--labels=FILE.csv" in line


def test_folders_must_be_there_to_be_classes(folder):
  _make(folder, "a.mp4", "b.mp4")
  with pytest.raises(errors.InputError, match="folder for each class, got all"):
    video_folder.list_videos(folder, labels="folders")
  _make(folder, "run/c.mp4")
  with pytest.raises(errors.InputError, match="2 directly .* --labels=none"):
    video_folder.list_videos(folder, labels="folders")


def test_a_folder_without_videos_says_what_it_holds(folder):
  _make(folder, "a.xyz", "b.txt", "run/c.txt")
  (folder / "gone").symlink_to("nowhere")
  refusal = _refusal(folder)
  for part in (
      "found none",
      "gone: no such file",
      "1 file is not taken, the name does not end like a video's: a.xyz",
      "2 files are not taken, of kinds that lie beside videos: 2 .txt",
  ):
    assert part in refusal


def test_a_number_of_any_length_is_a_class(folder):
  _make(folder, "a.mp4", "b.mp4", "c.mp4", "d.mp4")
  long = "9" * 5000
  text = f"a.mp4,{long}\nb.mp4,1{long}\nc.mp4,10\nd.mp4,9\n"
  assert _list(folder, text).classes == ["9", "10", long, f"1{long}"]


def test_only_files_with_a_suffix_of_video_count(folder):
  _make(folder, "A.MP4", "b.WebM", "c.3gp", "readme.txt", "mp4", "d.mp4.part")
  _make(folder, ".hidden.mp4", "._a.mp4", ".cache/e.mp4")
  (folder / "folder.mp4").mkdir()
  assert _list(folder).ids == ["A.MP4", "b.WebM", "c.3gp"]


def test_videos_both_directly_and_in_sub_folders_are_refused(folder):
  _make(folder, "x.mp4", "run/a.mp4", "run/b.mp4")
  text = _refusal(folder)
  assert "1 directly (x.mp4) and 2 in sub-folders (run/a.mp4)" in text


def test_links_are_followed_but_not_around_in_circles(folder, tmp_path):
  _make(folder, "run/a.mp4")
  _make(tmp_path / "elsewhere", "b.mp4")
  (folder / "jump").symlink_to(tmp_path / "elsewhere")
  (folder / "run" / "up").symlink_to(folder)
  (tmp_path / "elsewhere" / "self").symlink_to(tmp_path / "elsewhere")
  (folder / "run" / "broken").symlink_to(tmp_path / "nothing")
  assert _list(folder).ids == ["jump/b.mp4", "run/a.mp4"]


def test_a_folder_without_videos_is_refused(folder, tmp_path):
  assert "found none" in _refusal(folder)
  _make(folder, "a.txt")
  assert str(folder) in _refusal(folder)
  assert "must be a folder" in _refusal(tmp_path / "missing")
  assert "must be a folder" in _refusal(folder / "a.txt")


@pytest.mark.parametrize("name", ["a\nb.mp4", "\x1b[31m.mp4", "\x85.mp4"])
def test_a_name_that_would_spoil_a_list_costs_one_video(folder, name):
  _make(folder, name, "c.mp4")
  for listed in (
      _list(folder),
      _list(folder, f'"{name}",x\nc.mp4,y\n'),
  ):
    assert listed.ids == ["c.mp4"]
    (left_out,) = listed.left_out
    assert "without control characters" in left_out.reason
    for text in left_out:
      assert text.isascii() and text.isprintable()
  text = _refusal(folder, f'"{name}",x\n')
  assert "must name videos" in text and "control characters" in text


def test_names_of_any_script_are_ids(folder):
  # An ideographic space and a no-break space are no control characters.
  names = ["été.mp4", "視頻\u3000一.mp4", "a\xa0b.mp4"]
  for name in names:
    (folder / name).touch()
  assert set(names) <= set(video_folder.list_videos(folder).ids)


@pytest.mark.parametrize("header", ["", "path,label\n", "path\n"])
def test_a_csv_file_gives_videos_and_labels(folder, header):
  _make(folder, "a.mp4", "deep/b.mp4", "c.mp4", "not listed.mp4")
  lines = "deep/b.mp4,run;jump\na.mp4, swim ,run\n\nc.mp4,\n"
  listed = _list(folder, header + lines)
  assert listed.ids == ["deep/b.mp4", "a.mp4", "c.mp4"]
  assert listed.paths[0] == folder / "deep/b.mp4"
  assert listed.classes == ["jump", "run", "swim"]
  assert listed.labels == [(0, 1), (1, 2), ()]


def test_a_csv_file_may_be_written_by_a_spreadsheet(folder):
  _make(folder, "a, b.mp4", "ü.mp4")
  text = '\ufeffpath,label\r\n"a, b.mp4","x;y"\r\nü.mp4,z\r\n'
  listed = _list(folder, text.encode())
  assert listed.ids == ["a, b.mp4", "ü.mp4"]
  assert listed.labels == [(0, 1), (2,)]


def test_a_csv_file_may_name_what_begins_or_ends_with_a_blank(folder):
  _make(folder, " a.mp4", "b.mp4 ", "c.mp4")
  listed = _list(folder, " a.mp4, x\nb.mp4 ,y\n c.mp4 ,z\n")
  assert listed.ids == [" a.mp4", "b.mp4 ", "c.mp4"]
  assert listed.classes == ["x", "y", "z"]


def test_a_csv_file_without_any_label_gives_no_labels(folder):
  _make(folder, "a.mp4")
  assert _list(folder, "a.mp4,\n").labels is None


def test_a_class_named_twice_counts_once(folder):
  _make(folder, "a.mp4")
  assert _list(folder, "a.mp4,x;x,x\n").labels == [(0,)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must name videos"),
        ("path,label\n", "must name videos"),
        ("a.mp4,x\nb.mp4,y\n", "line 2: no file 'b.mp4'"),
        ("file,label\na.mp4,x\n", "line 1: no file 'file'"),
        ("a.mp4\n", "line 1: must be `path,label`, got 'a.mp4'"),
        (",x\n", "line 1: must be `path,label`"),
        ("a.mp4,x\n./a.mp4,y\n", "line 2: a path must be named once"),
        ("../labels.csv,x\n", "line 1: a path must be relative"),
        ("/etc/hosts,x\n", "line 1: a path must be relative"),
        ('a.mp4,"x\n', "must be a CSV file"),
        (f"{'a' * 5000},x\n", "line 1: no file 'aaa"),
        (f"a.mp4,{'x' * 200_000}\n", "field larger than"),
        ("a" * 2**21, "a line is longer than"),
        (b"a.mp4,\xff\n", "must be a CSV file"),
        (b"a\x00.mp4,x\n", "line 1: no file"),
    ],
)
def test_a_wrong_csv_file_is_refused_with_its_line(folder, text, reason):
  _make(folder, "a.mp4")
  refusal = _refusal(folder, text)
  assert refusal.startswith(str(folder.parent / "labels.csv"))
  assert reason in refusal


def test_a_missing_csv_file_is_refused(folder):
  with pytest.raises(errors.InputError, match="no.csv: no such file"):
    video_folder.list_videos(folder, csv=folder / "no.csv")


def test_a_folder_is_no_csv_file(folder):
  _make(folder, "a.mp4")
  with pytest.raises(errors.InputError, match="must be a CSV file in UTF-8"):
    video_folder.list_videos(folder, csv=folder)


def test_a_refusal_is_one_line_whatever_a_file_is_called(folder):
  _make(folder, "x\ny.mp4")
  program = (
      "import pathlib, sys\n"
      "from chain_jax import errors\n"
      "from chain_jax.data import video_folder\n"
      "folder = pathlib.Path(sys.argv[1])\n"
      "sys.exit(errors.run_command(lambda: video_folder.list_videos(folder)))"
  )
  done = subprocess.run(
      [sys.executable, "-c", program, str(folder)],
      capture_output=True,
      text=True,
  )
  assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
