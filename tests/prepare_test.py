"""Preparing survives kills, damage and full disks, and loses nothing silently."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import crc32c
import numpy as np
import pytest
import tiny_plan
import youtube8m_payloads
from array_record.python import array_record_module

from chain_jax import prepare
from chain_jax.data import examples, tfrecord, youtube8m
from chain_jax.preparation import demo, tasks
from chain_jax.preparation.youtube8m import ShardReader, find_shards

_VIDEOS_PER_SHARD = 6


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
  """Three train and two validate shards."""
  folder = tmp_path_factory.mktemp("shards")
  demo.write_demo(
      str(folder),
      num_shards=5,
      videos_per_shard=_VIDEOS_PER_SHARD,
      num_classes=8,
      seed=0,
  )
  return folder


def _arguments(shards, output, *more):
  return [
      "youtube8m",
      f"--train={shards}/train*",
      f"--evaluation={shards}/validate*",
      f"--output={output}",
      "--query_share=0.3",
      "--validation_share=0.3",
      "--num_workers=0",
      *more,
  ]


def _folder(output, name="yt8m_frames"):
  return output / name / "1.0.0"


def _manifest(output, **kwargs):
  return json.loads((_folder(output, **kwargs) / "manifest.json").read_text())


def _contents(output):
  """All that readers read: what a kill or another machine must not change."""
  folder = _folder(output)
  files = [f for f in folder.iterdir() if f.is_file()]
  return {file.name: file.read_bytes() for file in files}


def _records(output):
  """Every video of every split, read without any of our readers."""
  videos = {}
  for file in sorted(_folder(output).glob("*.array_record-*")):
    reader = array_record_module.ArrayRecordReader(str(file))
    for record in reader.read_all():
      example = examples.decode_example(record)
      assert example.id not in videos
      videos[example.id] = example
  return videos


def _checksums(output):
  """Of the records of each file, one after another."""
  return {
      file.name: f"{crc32c.crc32c(b''.join(_all_records(file))):08x}"
      for file in _folder(output).glob("*.array_record-*")
  }


def _all_records(file):
  return array_record_module.ArrayRecordReader(str(file)).read_all()


def _parsed(paths):
  """The same from the shards."""
  videos = {}
  for path in paths:
    for record in tfrecord.read_records(path):
      video = youtube8m.parse_video(record.payload)
      videos[video.id.decode()] = video
  return videos


def test_every_video_is_there_once_with_its_frames(shards, tmp_path, capsys):
  assert prepare.main(_arguments(shards, tmp_path / "out")) == 0
  records = _records(tmp_path / "out")
  expected = _parsed(sorted(shards.iterdir()))
  assert records.keys() == expected.keys()
  assert len(records) == 5 * _VIDEOS_PER_SHARD
  for video_id, video in expected.items():
    assert records[video_id].frames == video.frames.tobytes()
    assert records[video_id].labels == video.labels.tolist()
  manifest = _manifest(tmp_path / "out")
  splits = manifest["splits"]
  assert set(splits) == {"train", "validation", "gallery", "query"}
  assert sum(one["num_videos"] for one in splits.values()) == len(records)
  assert sum(one["num_frames"] for one in splits.values()) == sum(
      len(video.frames) for video in expected.values()
  )
  assert _checksums(tmp_path / "out") == manifest["crc32c"]
  printed = capsys.readouterr().out
  assert "0 skipped" in printed and "this dataset is complete" in printed
  for split, one in splits.items():
    of_files = [
        crc
        for name, crc in sorted(manifest["crc32c"].items())
        if f"-{split}." in name
    ]
    assert int(one["crc32c"], 16) == crc32c.crc32c("".join(of_files).encode())
    assert f"crc32c {one['crc32c']}" in printed


@pytest.mark.parametrize("how", ["--num_workers=2", "--task"])
def test_processes_and_job_arrays_give_the_same_files(shards, tmp_path, how):
  assert prepare.main(_arguments(shards, tmp_path / "one")) == 0
  if how == "--task":
    for job in ("2/3", "0/3", "1/3"):
      arguments = _arguments(shards, tmp_path / "many", f"--task={job}")
      assert prepare.main(arguments) == 0
  else:
    assert prepare.main(_arguments(shards, tmp_path / "many", how)) == 0
  assert _contents(tmp_path / "one") == _contents(tmp_path / "many")


def test_apache_beam_gives_the_same_files(shards, tmp_path):
  pytest.importorskip("apache_beam", reason="the extra [beam] is not installed")
  assert prepare.main(_arguments(shards, tmp_path / "one")) == 0
  options = (
      "--runner=DirectRunner",
      "--runner_options=--direct_num_workers=2"
      " --direct_running_mode=multi_processing",
  )
  assert prepare.main(_arguments(shards, tmp_path / "beam", *options)) == 0
  assert _contents(tmp_path / "one") == _contents(tmp_path / "beam")


_KILLED = """
import sys, time
from chain_jax import prepare
from chain_jax.preparation import tasks

write_json, finished = tasks.write_json, []

def write_then_wait(path, content):
  finished.append(write_json(path, content))
  if len(finished) == 2:
    open(sys.argv[1], "w").close()
  time.sleep(0.3 if len(finished) < 2 else 60)

tasks.write_json = write_then_wait
prepare.main(sys.argv[2:])
"""


def test_a_killed_preparation_goes_on_where_it_was(shards, tmp_path, capsys):
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  assert prepare.main(_arguments(shards, whole)) == 0
  run = subprocess.Popen(
      [sys.executable, "-c", _KILLED, str(tmp_path / "two_done")]
      + _arguments(shards, killed)
  )
  deadline = time.monotonic() + 60
  while not (tmp_path / "two_done").exists():
    assert time.monotonic() < deadline and run.poll() is None
    time.sleep(0.02)
  run.send_signal(signal.SIGKILL)
  run.wait()
  # What a kill in the middle of a record file leaves.
  final = sorted(_folder(whole).glob("*train.array_record-00002*"))[0].name
  (_folder(killed) / f".{final}.partial").write_bytes(b"half a file")
  (_folder(killed) / final).write_bytes(b"a file without its journal")
  done = list(_folder(killed).glob("*.array_record-0000[01]*"))
  times = {file: file.stat().st_mtime_ns for file in done}
  capsys.readouterr()
  assert prepare.main(_arguments(shards, killed)) == 0
  assert "2 of 5 shards are done already" in capsys.readouterr().out
  assert _contents(killed) == _contents(whole)
  assert times == {file: file.stat().st_mtime_ns for file in done}


def test_a_finished_preparation_only_says_so(shards, tmp_path, capsys):
  assert prepare.main(_arguments(shards, tmp_path / "out")) == 0
  before = _contents(tmp_path / "out")
  assert prepare.main(_arguments(shards, tmp_path / "out")) == 0
  assert "5 of 5 shards are done already" in capsys.readouterr().out
  assert _contents(tmp_path / "out") == before


def test_a_lost_record_file_is_made_again(shards, tmp_path):
  assert prepare.main(_arguments(shards, tmp_path / "out")) == 0
  before = _contents(tmp_path / "out")
  lost, cut = sorted(_folder(tmp_path / "out").glob("*-train.array_record*"))[
      :2
  ]
  lost.unlink()
  os.truncate(cut, 1000)
  assert prepare.main(_arguments(shards, tmp_path / "out")) == 0
  assert _contents(tmp_path / "out") == before


@pytest.fixture
def own_shards(shards, tmp_path):
  """A copy of the shards to damage."""
  return pathlib.Path(shutil.copytree(shards, tmp_path / "own_shards"))


def _flip(path, offset):
  content = bytearray(path.read_bytes())
  content[offset] ^= 4
  path.write_bytes(content)


def test_a_flipped_bit_loses_one_record_and_is_listed(
    own_shards, tmp_path, capsys
):
  shard = own_shards / "train0001.tfrecord"
  third = list(tfrecord.read_records(shard))[2]
  lost = youtube8m.parse_video(third.payload).id.decode()
  expected = _parsed(sorted(own_shards.iterdir())).keys() - {lost}
  _flip(shard, third.offset + 5000)
  output = tmp_path / "out"
  assert prepare.main(_arguments(own_shards, output)) == 0
  assert _records(output).keys() == expected
  (skipped,) = _manifest(output)["skipped"]
  assert skipped["source"] == "train0001.tfrecord"
  assert skipped["where"] == third.offset
  assert "checksum" in skipped["reason"]
  assert f"skipped: train0001.tfrecord, at {third.offset}" in (
      capsys.readouterr().out
  )


def test_strict_makes_a_skipped_record_an_error(own_shards, tmp_path, capsys):
  _flip(own_shards / "train0001.tfrecord", 5000)
  arguments = _arguments(own_shards, tmp_path / "out", "--strict")
  assert prepare.main(arguments) == 2
  assert "error: --strict allows nothing to be skipped, got 1" in (
      capsys.readouterr().err
  )
  assert len(_records(tmp_path / "out")) == 5 * _VIDEOS_PER_SHARD - 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"no TFRecord file at all" * 9, "not a TFRecord file")],
)
def test_a_shard_that_is_none_is_listed(own_shards, tmp_path, content, reason):
  (own_shards / "train0000.tfrecord").write_bytes(content)
  assert prepare.main(_arguments(own_shards, tmp_path / "out")) == 0
  (skipped,) = _manifest(tmp_path / "out")["skipped"]
  assert skipped["source"] == "train0000.tfrecord"
  assert reason in skipped["reason"]
  assert len(_records(tmp_path / "out")) == 4 * _VIDEOS_PER_SHARD


def test_a_record_that_is_no_video_is_listed(own_shards, tmp_path):
  shard = own_shards / "train0000.tfrecord"
  payloads = [bytes(r.payload) for r in tfrecord.read_records(shard)]
  payloads[1] = b"\x0a\x00"
  tfrecord.write_records(shard, payloads)
  assert prepare.main(_arguments(own_shards, tmp_path / "out")) == 0
  (skipped,) = _manifest(tmp_path / "out")["skipped"]
  assert "lacks `rgb`" in skipped["reason"]


def test_of_two_videos_with_one_id_the_first_is_kept(own_shards, tmp_path):
  # One within a shard, and a whole shard under another name.
  first = own_shards / "train0000.tfrecord"
  payloads = [bytes(r.payload) for r in tfrecord.read_records(first)]
  twice = youtube8m.parse_video(payloads[2]).id.decode()
  tfrecord.write_records(first, payloads + [payloads[2]])
  shutil.copy(
      own_shards / "validate0000.tfrecord", own_shards / "train0009.tfrecord"
  )
  expected = _parsed(sorted(own_shards.iterdir()))
  assert prepare.main(_arguments(own_shards, tmp_path / "out")) == 0
  assert _records(tmp_path / "out").keys() == expected.keys()
  skipped = _manifest(tmp_path / "out")["skipped"]
  assert len(skipped) == 1 + _VIDEOS_PER_SHARD
  assert all("two videos with one id" in one["reason"] for one in skipped)
  assert twice in skipped[0]["reason"]
  before = _contents(tmp_path / "out")
  assert prepare.main(_arguments(own_shards, tmp_path / "out")) == 0
  assert _contents(tmp_path / "out") == before


def test_segments_are_five_frames_with_what_holds_there(shards, tmp_path):
  arguments = [
      "youtube8m",
      "--segments",
      f"--evaluation={shards}/validate*",
      f"--output={tmp_path / 'out'}",
      "--query_share=0.5",
      "--num_workers=0",
  ]
  assert prepare.main(arguments) == 0
  folder = _folder(tmp_path / "out", name="yt8m_segments")
  split_of = {}
  found = {}
  for file in sorted(folder.glob("*.array_record-*")):
    reader = array_record_module.ArrayRecordReader(str(file))
    for record in reader.read_all():
      example = examples.decode_example(record)
      found[example.id] = example
      split_of.setdefault(example.id.split(":")[0], set()).add(
          file.name.split(".")[0]
      )
  expected = {
      f"{video_id}:{segment.start}": (
          list(segment.labels),
          video.frames[segment.start : segment.start + 5].tobytes(),
      )
      for video_id, video in _parsed(sorted(shards.glob("validate*"))).items()
      for segment in video.segments
      if segment.labels and segment.start + 5 <= len(video.frames)
  }
  assert len(expected) > 5
  assert expected == {
      video_id: (one.labels, one.frames) for video_id, one in found.items()
  }
  # Segments of one video are never both searched with and searched in.
  assert {len(splits) for splits in split_of.values()} == {1}


def test_of_segments_only_those_that_show_a_class_are_kept(tmp_path):
  payload = youtube8m_payloads.make_payload(
      12,
      9,
      segment_start_times=[0, 5, 3, 0],
      segment_labels=[7, 8, 9, 4],
      segment_scores=[1.0, 1.0, 0.0, 1.0],
  )
  tfrecord.write_records(tmp_path / "shard", [payload])
  reader = ShardReader((str(tmp_path / "shard"),), segments=True)
  items = list(reader(0))
  (segment,) = [item for item in items if isinstance(item, examples.Video)]
  # 5 to 9 reaches beyond the 9 frames that have sound; 3 was rated not to show
  # its class.
  assert (segment.id, segment.labels.tolist()) == ("eXbF:0", [4, 7])
  np.testing.assert_array_equal(
      segment.frames,
      np.hstack([part[:5] for part in youtube8m_payloads.make_frames(12, 9)]),
      strict=True,
  )
  notes = {
      item.name: item.count for item in items if isinstance(item, tasks.Note)
  }
  assert notes["segments_without_a_positive_rating_left_out"] == 1
  assert notes["segments_beyond_the_last_frame_left_out"] == 1


def test_a_link_to_a_shard_is_that_shard(shards, tmp_path):
  (tmp_path / "link.tfrecord").symlink_to(shards / "train0000.tfrecord")
  patterns = [f"{shards}/train*", f"{tmp_path}/*.tfrecord"]
  found = find_shards(patterns, flag="--train")
  assert found == sorted(shards.glob("train*"))


def _refused(arguments, capsys):
  assert prepare.main(arguments) == 2
  line = capsys.readouterr().err
  assert line.startswith("error: ") and line.count("\n") == 1
  return line


def test_a_folder_with_something_else_is_refused(shards, tmp_path, capsys):
  (tmp_path / "mine.txt").write_text("mine")
  line = _refused(_arguments(shards, tmp_path), capsys)
  assert "--output must be empty, new, or hold this same" in line
  assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_another_preparation_in_the_folder_is_refused(shards, tmp_path, capsys):
  assert prepare.main(_arguments(shards, tmp_path / "out")) == 0
  before = _contents(tmp_path / "out")
  line = _refused(
      _arguments(shards, tmp_path / "out", "--query_share=0.5"), capsys
  )
  assert "differs in rule" in line
  assert _contents(tmp_path / "out") == before


def test_the_same_shards_for_other_splits_are_refused(shards, tmp_path, capsys):
  flags = [f"--output={tmp_path}/out", "--num_workers=0"]
  assert prepare.main(["youtube8m", f"--train={shards}/*", *flags]) == 0
  line = _refused(["youtube8m", f"--input={shards}/*", *flags], capsys)
  assert "differs in parts;" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the following arguments are required: --output"),
        (["--output=new"], "give shards: --train with --evaluation"),
        (["--output=new", "--train=nothing*"], "--train must match at least"),
        (["--output=new", "--train=."], "--train must match files, got the"),
        (["--output=new", "--task=2/2"], "must be I/N with 0 <= I < N"),
        (["--output=new", "--num_workers=-1", "--train=file"], ">= 0, got -1"),
    ],
)
def test_bad_usage_is_one_line(arguments, words, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "file").write_bytes(b"")
  assert words in _refused(["youtube8m", *arguments], capsys)
  assert not (tmp_path / "new").exists()


def test_an_unknown_kind_is_refused(capsys):
  assert "must be one of youtube8m, features" in _refused(["mp4"], capsys)


def test_a_full_disk_ends_in_one_line_and_keeps_what_is_done(
    shards, small_disk, tmp_path, capsys
):
  assert prepare.main(_arguments(shards, small_disk / "out")) == 1
  assert "could not be written" in capsys.readouterr().err
  assert not list(_folder(small_disk / "out").glob(".*partial"))
  # With room, the same command finishes.
  shutil.copytree(small_disk / "out", tmp_path / "out")
  assert prepare.main(_arguments(shards, tmp_path / "out")) == 0
  assert len(_records(tmp_path / "out")) == 5 * _VIDEOS_PER_SHARD


def test_a_task_that_fails_leaves_nothing(tmp_path, shards):
  plan = tiny_plan.tiny_plan(tmp_path / "out", shard="shard")
  first, *_ = _parsed([shards / "train0000.tfrecord"]).values()

  def items():
    yield examples.Video("a", first.labels, first.frames)
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    tasks.write_task(plan, 0, items())
  assert [file.name for file in plan.folder.iterdir()] == ["preparation"]
  assert not tasks.is_done(plan, 0)


def test_demo_shards_need_a_folder_and_sensible_numbers(capsys, tmp_path):
  arguments = ["demo", f"--output={tmp_path}", "--num_classes=0"]
  assert "`num_classes` must be in 1..3862" in _refused(arguments, capsys)
