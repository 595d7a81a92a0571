"""From a folder of video files to a search by another video file."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from chain_jax import codes as codes_lib
from chain_jax import config as config_lib
from chain_jax import (
    errors,
    frame_features,
    prepare,
    run,
    search,
    video_encoder,
)
from chain_jax.data import dataset_folder, video_views
from chain_jax.models.backbones import loading
from chain_jax.preparation import engine
from chain_jax.preparation import videos as video_preparation

pytest.importorskip("av", reason="the extra [video] is not installed")

import video_files


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
  """Eight videos of two classes, one file that is none, one of sound alone."""
  folder = tmp_path_factory.mktemp("clips")
  for number in range(8):
    path = folder / f"class{number % 2}" / f"clip{number}.mp4"
    path.parent.mkdir(exist_ok=True)
    video_files.write_video(
        path, video_files.moving_frames(7 + number, seed=number)
    )
  (folder / "class0" / "text.mp4").write_text("no video")
  video_files.write_audio(folder / "class1" / "sound.mp4")
  return folder


def _arguments(clips, output, *more):
  return [
      "videos",
      f"--input={clips}",
      f"--output={output}",
      "--backbone=random",
      "--num_frames=8",
      "--num_variants=3",
      "--videos_per_shard=3",
      "--num_workers=0",
      "--query_share=0",
      *more,
  ]


@pytest.fixture(scope="module")
def prepared(clips, tmp_path_factory):
  output = tmp_path_factory.mktemp("prepared") / "out"
  assert prepare.main(_arguments(clips, output)) == 0
  return output


def _folder(output):
  return output / "video_features" / "1.0.0"


def _contents(output):
  files = [file for file in _folder(output).iterdir() if file.is_file()]
  return {file.name: file.read_bytes() for file in files}


def test_every_video_that_can_be_read_is_there(prepared):
  source = dataset_folder.open_dataset(prepared).split("train")
  expected = [f"class{n % 2}/clip{n}.mp4" for n in range(8)]
  assert source.ids.tolist() == sorted(expected)
  assert source.num_variants == 3 and source.dtype == np.float16
  for video, name in enumerate(source.ids):
    number = int(name[-5])
    assert source.num_frames[video] == min(8, 7 + number)
    assert source.labels.of(video).tolist() == [number % 2]
    frames = source.read_frames(video)
    # Another crop, another colour: other features, of every frame.
    assert (np.abs(frames[:, 0] - frames[:, 1]).max(axis=1) > 0).all()


def test_variants_are_drawn_for_each_video(clips):
  load = video_views.ViewLoader(
      num_frames=2, num_variants=3, image_size=32, seed=0
  )
  path = str(clips / "class0" / "clip0.mp4")
  one, other = (load(video_views.VideoFile(path, name)) for name in "ab")
  np.testing.assert_array_equal(one[:, 0], other[:, 0], strict=True)
  assert (one[:, 1:] != other[:, 1:]).any()


def test_features_that_float16_cannot_hold_are_refused():
  def extract(_, frames):
    return np.full((len(frames), 4), 1e5, np.float32)

  backbone = loading.Backbone("vgg16", 4, 8, "", None, extract)
  views = np.zeros((3, 2, 8, 8, 3), np.uint8)
  with pytest.raises(errors.InputError, match="'vgg16' must fit float16"):
    frame_features.extract_features(backbone, views, batch_size=4)


def test_what_cannot_be_read_is_listed(prepared):
  manifest = json.loads((_folder(prepared) / "manifest.json").read_text())
  skipped = {one["source"]: one["reason"] for one in manifest["skipped"]}
  assert skipped.keys() == {"class0/text.mp4", "class1/sound.mp4"}
  assert all(skipped.values())


def test_strict_makes_an_unreadable_file_an_error(clips, tmp_path, capsys):
  assert prepare.main(_arguments(clips, tmp_path / "out", "--strict")) == 2
  assert (
      "--strict allows nothing to be skipped, got 2" in capsys.readouterr().err
  )


@pytest.mark.parametrize(
    "how", [["--num_workers=2"], ["--task=1/2", "--task=0/2"]]
)
def test_processes_and_job_arrays_give_the_same_files(
    clips, prepared, tmp_path, how
):
  jobs = how if len(how) > 1 else [how[0]]
  for job in jobs:
    assert prepare.main(_arguments(clips, tmp_path / "out", job)) == 0
  assert _contents(tmp_path / "out") == _contents(prepared)


def test_apache_beam_gives_the_same_files(clips, prepared, tmp_path):
  pytest.importorskip("apache_beam", reason="the extra [beam] is not installed")
  options = (
      "--runner=DirectRunner",
      "--runner_options=--direct_num_workers=2"
      " --direct_running_mode=multi_processing",
  )
  assert prepare.main(_arguments(clips, tmp_path / "out", *options)) == 0
  assert _contents(tmp_path / "out") == _contents(prepared)


def test_a_video_that_hangs_the_decoder_is_listed(clips, prepared, tmp_path):
  kind, *flags = _arguments(clips, tmp_path / "out", "--num_workers=2")
  assert kind == "videos"
  plan, reader = video_preparation.make_plan(
      video_preparation.make_parser().parse_args(flags)
  )
  hanging = video_files.HangingLoader(*reader.load)
  reader = dataclasses.replace(reader, load=hanging, timeout_seconds=3.0)
  engine.prepare(plan, reader, engine.How(), read_many=reader.read_many)
  manifest = json.loads(
      (_folder(tmp_path / "out") / "manifest.json").read_text()
  )
  skipped = {one["source"]: one["reason"] for one in manifest["skipped"]}
  assert skipped.pop("class0/clip4.mp4") == "took longer than 3 s"
  assert skipped.keys() == {"class0/text.mp4", "class1/sound.mp4"}
  source = dataset_folder.open_dataset(tmp_path / "out").split("train")
  whole = dataset_folder.open_dataset(prepared).split("train")
  assert set(whole.ids) - set(source.ids) == {"class0/clip4.mp4"}


def test_labels_changed_in_between_are_refused(clips, tmp_path, capsys):
  (tmp_path / "list.csv").write_text("class0/clip0.mp4,a\nclass1/clip1.mp4,b\n")
  arguments = _arguments(clips, tmp_path / "out", f"--csv={tmp_path}/list.csv")
  assert prepare.main(arguments) == 0
  (tmp_path / "list.csv").write_text("class0/clip0.mp4,b\nclass1/clip1.mp4,a\n")
  assert prepare.main(arguments) == 2
  assert "differs in settings" in capsys.readouterr().err


def test_a_dead_link_is_listed(clips, tmp_path):
  own = pathlib.Path(shutil.copytree(clips / "class0", tmp_path / "own"))
  (own / "gone.mp4").symlink_to(tmp_path / "nowhere")
  assert prepare.main(_arguments(own, tmp_path / "out")) == 0
  manifest = json.loads(
      (_folder(tmp_path / "out") / "manifest.json").read_text()
  )
  skipped = {one["source"]: one["reason"] for one in manifest["skipped"]}
  assert skipped["gone.mp4"] == "no such file"


def _messy(clips, folder):
  """Two classes of a video each, among all that a folder of a disk may hold."""
  for name in ("class0/clip0.mp4", "class1/clip1.mp4"):
    (folder / name).parent.mkdir(parents=True)
    shutil.copy(clips / name, folder / name)
  (folder / "class0" / "self").symlink_to(".")
  (folder / "class0" / "gone").symlink_to("nowhere")
  (folder / "class1" / "lost").symlink_to("lost")
  for name in ('it\'s "a" \\.mp4', "two\nlines.mp4", "\x07.mp4"):
    shutil.copy(clips / "class1" / "clip1.mp4", folder / "class1" / name)
  (folder / "class1" / os.fsdecode(b"\xff.mp4")).touch()
  for name in ("b.xyz", "c.rec", "d.srt", "e.jpg"):
    (folder / "class1" / name).touch()
  return folder


def test_a_messy_folder_costs_what_is_bad_in_it(clips, tmp_path, capsys):
  folder = _messy(clips, tmp_path / "messy")
  arguments = _arguments(folder, tmp_path / "out")
  assert prepare.main(arguments) == 0
  printed = capsys.readouterr()
  assert "3 videos, 2 classes by folder" in printed.out.splitlines()
  assert "note: 2 files are not taken, the name does not end" in printed.err
  assert "class1/b.xyz, class1/c.rec" in printed.err
  assert "beside videos: 1 .jpg, 1 .srt" in printed.err
  bad = {
      "class0/gone": "no such file",
      "class0/self": "the folder class0 again",
      "class1/lost": "Too many levels of symbolic links",
      "class1/two\\nlines.mp4": "without control characters",
      "class1/\\x07.mp4": "without control characters",
      "class1/\\udcff.mp4": "must be UTF-8",
  }
  for name, reason in bad.items():
    (line,) = (one for one in printed.out.splitlines() if f" {name}:" in one)
    assert line.startswith("skipped: ") and reason in line
  manifest = json.loads(
      (_folder(tmp_path / "out") / "manifest.json").read_text()
  )
  assert {one["source"] for one in manifest["skipped"]} == bad.keys()
  source = dataset_folder.open_dataset(tmp_path / "out").split("train")
  assert source.ids.tolist() == [
      "class0/clip0.mp4",
      "class1/clip1.mp4",
      'class1/it\'s "a" \\.mp4',
  ]
  assert prepare.main([*arguments, "--strict"]) == 2
  assert "got 6 (see" in capsys.readouterr().err


def test_labels_are_as_told_and_said(clips, tmp_path, capsys):
  (tmp_path / "list.csv").write_text("class0/clip0.mp4,a\n")
  found = {}
  for labels in ("folders", "none", f"{tmp_path}/list.csv"):
    parsed = video_preparation.make_parser().parse_args(
        _arguments(clips, tmp_path / "out", f"--labels={labels}")[1:]
    )
    plan, _ = video_preparation.make_plan(parsed)
    found[labels] = capsys.readouterr().out, plan.num_classes
  assert found == {
      "folders": ("10 videos, 2 classes by folder\n", 2),
      "none": ("10 videos, no classes\n", 0),
      f"{tmp_path}/list.csv": (
          f"1 video, 1 class by {tmp_path}/list.csv\n",
          1,
      ),
  }


def test_features_that_cannot_be_stored_cost_one_video(
    clips, tmp_path, monkeypatch
):
  extract = frame_features.extract_features
  calls = []

  def fail_once(backbone, views):
    calls.append(views)
    if len(calls) == 2:
      raise errors.InputError("features must fit float16")
    return extract(backbone, views)

  monkeypatch.setattr(frame_features, "extract_features", fail_once)
  folder = shutil.copytree(clips / "class1", tmp_path / "own")
  assert prepare.main(_arguments(folder, tmp_path / "out")) == 0
  manifest = json.loads(
      (_folder(tmp_path / "out") / "manifest.json").read_text()
  )
  skipped = {one["source"]: one["reason"] for one in manifest["skipped"]}
  assert skipped["clip3.mp4"] == "features must fit float16"


def test_a_negative_seed_is_refused(clips, tmp_path, capsys):
  assert prepare.main(_arguments(clips, tmp_path / "out", "--seed=-1")) == 2
  assert "--seed must be >= 0, got -1" in capsys.readouterr().err


_KILLED = """
import os, signal, sys
from chain_jax import prepare
from chain_jax.preparation import tasks

write_json, finished = tasks.write_json, []

def write_then_die(path, content):
  write_json(path, content)
  os.kill(os.getpid(), signal.SIGKILL)

tasks.write_json = write_then_die
prepare.main(sys.argv[1:])
"""


def test_a_killed_preparation_goes_on_where_it_was(
    clips, prepared, tmp_path, capsys
):
  arguments = _arguments(clips, tmp_path / "out")
  killed = subprocess.run(
      [sys.executable, "-c", _KILLED, *arguments], capture_output=True
  )
  assert killed.returncode == -9
  assert prepare.main(arguments) == 0
  assert "1 of 4 shards are done already" in capsys.readouterr().out
  assert _contents(tmp_path / "out") == _contents(prepared)


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run")
  config = config_lib.ExperimentConfig(name="videos")
  config.data.dataset, config.data.root = "prepared", str(prepared)
  config.data.feature_dim, config.data.num_frames = 128, 6
  config.data.prepared.gallery_split = "train"
  config.data.prepared.query_split = "train"
  config.model.width, config.model.depth = 32, 1
  config.model.num_bits = 32
  config.data.cache_in_memory = True
  config.train.batch_size, config.train.max_steps = 8, 4
  config.evaluation.batch_size = 8
  run.run(config, path=str(workdir), mode="train")
  return workdir


def test_a_video_of_the_gallery_finds_itself(clips, trained, tmp_path):
  files = [str(clips / f"class{n % 2}" / f"clip{n}.mp4") for n in (3, 4)]
  output = tmp_path / "found.jsonl"
  arguments = [f"--gallery={trained}/codes/gallery", "--video", *files]
  assert search.main([*arguments, "--top_k=2", f"--output={output}"]) == 0
  found = [json.loads(line) for line in output.read_text().splitlines()]
  assert [one["id"] for one in found] == files
  for file, one in zip(files, found, strict=True):
    nearest = [n["id"] for n in one["neighbours"] if n["distance"] == 0]
    assert any(file.endswith(name) for name in nearest)


def test_the_codes_of_files_are_those_of_the_export(clips, trained):
  gallery = codes_lib.read_code_directory(trained / "codes" / "gallery")
  encoder = video_encoder.load_video_encoder(
      str(trained), features=gallery.manifest["features"], weights=None
  )
  paths = [clips / name for name in gallery.ids]
  packed = encoder.codes(list(encoder.features(paths, num_workers=0)))
  np.testing.assert_array_equal(packed, gallery.packed, strict=True)


def _refused(arguments, capsys):
  assert search.main(arguments) == 2
  line = capsys.readouterr().err.splitlines()[-1]
  assert line.startswith("error: ")
  return line


def test_misuse_is_one_line(clips, trained, tmp_path, capsys):
  gallery = f"--gallery={trained}/codes/gallery"
  file = str(clips / "class0" / "clip0.mp4")
  assert "either --query or --video" in _refused([gallery], capsys)
  line = _refused([gallery, "--video", str(tmp_path / "no.mp4")], capsys)
  assert "no.mp4 must be a video that can be decoded: no such file" in line
  line = _refused([gallery, "--video", file, "--weights=w.h5"], capsys)
  assert "`weights` must be left out for the backbone 'random'" in line


def test_a_gallery_of_another_step_is_refused(clips, trained):
  gallery = codes_lib.read_code_directory(trained / "codes" / "gallery")
  gallery.manifest["step"] += 1
  with pytest.raises(errors.InputError, match="run --mode=export again"):
    video_encoder.encode_videos(
        [str(clips / "class0" / "clip0.mp4")],
        gallery_path=str(trained / "codes" / "gallery"),
        gallery=gallery,
        workdir=None,
        weights=None,
    )


def test_a_gallery_of_other_features_is_refused(trained):
  with pytest.raises(errors.InputError, match="needs a gallery of video files"):
    video_encoder.load_video_encoder(str(trained), features={}, weights=None)


def test_other_weights_are_refused(trained):
  features = {"backbone": "random", "weights_checksum": "f" * 64}
  with pytest.raises(errors.InputError, match="prepared with .SHA-256 ffff"):
    video_encoder.load_video_encoder(
        str(trained), features=features, weights=None
    )


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--backbone=vgg16"], "`weights` must name a file"),
        (["--num_frames=0"], "--num_frames must be >= 1, got 0"),
        (["--csv=none.csv"], "none.csv"),
        (["--labels=folder"], "folders, none or a CSV file that exists"),
        (["--labels="], "folders, none or a CSV file that exists, got ''"),
        (["--labels=none", "--csv=a.csv"], "got both; give --labels"),
        ([f"--timeout_seconds={10**400}"], "--timeout_seconds must be <="),
    ],
)
def test_bad_usage_is_one_line(clips, tmp_path, capsys, more, words):
  assert prepare.main(_arguments(clips, tmp_path / "out", *more)) == 2
  line = capsys.readouterr().err.splitlines()[-1]
  assert line.startswith("error: ") and words in line
  assert not (tmp_path / "out").exists()
