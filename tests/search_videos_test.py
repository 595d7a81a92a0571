"""Searching with video files: bad ones cost themselves, weights are found."""

import functools
import json
import os
import shutil

import backbone_files
import pytest

from chain_jax import config as config_lib
from chain_jax import frame_features, prepare, run, search

pytest.importorskip("av", reason="the extra [video] is not installed")

import video_files

_NUM_CLIPS = 8  # As many as devices.


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
  folder = tmp_path_factory.mktemp("clips")
  for number in range(_NUM_CLIPS):
    video_files.write_video(
        folder / f"clip{number}.mp4",
        video_files.moving_frames(4, seed=number),
    )
  return folder


def _prepare(clips, output, *more):
  return prepare.main(
      [
          "videos",
          f"--input={clips}",
          f"--output={output}",
          "--num_frames=2",
          "--num_variants=1",
          "--num_workers=0",
          "--query_share=0",
          *more,
      ]
  )


def _train(output, workdir, feature_dim):
  config = config_lib.ExperimentConfig(name="videos")
  config.data.dataset, config.data.root = "prepared", str(output)
  config.data.feature_dim, config.data.num_frames = feature_dim, 2
  config.data.prepared.gallery_split = "train"
  config.data.prepared.query_split = "train"
  config.model.width, config.model.depth, config.model.num_bits = 16, 1, 32
  config.train.batch_size, config.train.max_steps = 8, 1
  config.evaluation.batch_size = 8
  run.run(config, path=str(workdir), mode="train")
  return f"--gallery={workdir}/codes/gallery"


@pytest.fixture(scope="module")
def gallery(clips, tmp_path_factory):
  """The flag that names a gallery of the clips."""
  folder = tmp_path_factory.mktemp("run")
  assert _prepare(clips, folder / "data", "--backbone=random") == 0
  return _train(folder / "data", folder / "run", 128)


@pytest.fixture
def bad(tmp_path):
  (tmp_path / "bad.mp4").write_text("no video")
  return str(tmp_path / "bad.mp4")


def _search(gallery, tmp_path, *arguments):
  """Returns the exit code and the ids that were answered with their nearest."""
  output = tmp_path / "found.jsonl"
  output.unlink(missing_ok=True)
  code = search.main(
      [gallery, f"--output={output}", "--num_workers=0", *arguments]
  )
  if not output.exists():
    return code, None
  found = map(json.loads, output.read_text("utf-8").splitlines())
  return code, {one["id"]: one["neighbours"][0]["distance"] for one in found}


def _errors(capsys):
  lines = capsys.readouterr().err.splitlines()
  return [one for one in lines if not one.startswith("warning: ")]


def test_a_bad_file_costs_itself(gallery, clips, bad, tmp_path, capsys):
  good = [str(clips / f"clip{number}.mp4") for number in (0, 2)]
  files = ["--video", good[0], bad, good[1], "missing.mp4"]
  code, found = _search(gallery, tmp_path, *files)
  assert code == 0 and found == dict.fromkeys(good, 0)
  reason = "not a video, or damaged at its beginning"
  left_out = [
      f"left out: {bad}: {reason}",
      "left out: missing.mp4: no such file",
  ]
  assert _errors(capsys) == left_out
  code, found = _search(gallery, tmp_path, *files, "--strict")
  assert code == 2 and found == dict.fromkeys(good, 0)
  *listed, line = _errors(capsys)
  assert listed == left_out
  assert line.startswith("error: --strict allows nothing to be left out")
  assert _search(gallery, tmp_path, "--video", *good, "--strict")[0] == 0


def test_bad_files_alone_are_one_line(gallery, bad, tmp_path, capsys):
  code, found = _search(gallery, tmp_path, "--video", bad, "missing.mp4")
  assert code == 2 and found is None
  (line,) = _errors(capsys)
  assert line.startswith(f"error: --video={bad} must be a video that can be")
  assert "; nor can 1 more; check" in line


def test_a_folder_is_searched_with_at_any_depth(
    gallery, clips, bad, tmp_path, capsys
):
  folder = tmp_path / "some"
  (folder / "a" / "b").mkdir(parents=True)
  shutil.copy(clips / "clip1.mp4", folder / "a" / "b" / "x.mp4")
  shutil.copy(clips / "clip2.mp4", folder / "y.MP4")
  shutil.copy(bad, folder / "a" / "bad.mp4")
  (folder / "a" / "up").symlink_to("..")
  (folder / "z.xyz").touch()
  (tmp_path / "empty").mkdir()
  code, found = _search(
      gallery, tmp_path, "--video", str(folder), str(tmp_path / "empty")
  )
  assert code == 0 and found == {"a/b/x.mp4": 0, "y.MP4": 0}
  lines = _errors(capsys)
  for part in (
      f"note: {folder}: 1 file is not taken, the name does not end",
      "left out: a/up: the folder with all this again",
      "left out: a/bad.mp4: not a video",
      f"left out: {tmp_path}/empty: no video in this folder",
  ):
    assert sum(line.startswith(part) for line in lines) == 1
  assert len(lines) == 4
  assert _search(gallery, tmp_path, "--video", f"{tmp_path}/empty")[0] == 2
  (line,) = _errors(capsys)
  assert "empty must be a video that can be decoded: no video in this" in line


def test_names_of_any_kind_are_answered_or_left_out(
    gallery, clips, tmp_path, capsys
):
  good = tmp_path / 'it\'s "a" \\ 視頻.mp4'
  names = [good, tmp_path / "a\nb.mp4", tmp_path / os.fsdecode(b"\xff.mp4")]
  for name in names:
    shutil.copy(clips / "clip1.mp4", name)
  code, found = _search(gallery, tmp_path, "--video", *map(str, names))
  assert code == 0 and found == {str(good): 0}
  lines = _errors(capsys)
  assert [line.startswith("left out: ") for line in lines] == [True, True]
  assert all(line.isprintable() for line in lines)


def test_a_video_that_takes_too_long_is_left_out(
    gallery, clips, tmp_path, capsys, monkeypatch
):
  from chain_jax import video_encoder

  monkeypatch.setattr(video_encoder, "ViewLoader", video_files.HangingLoader)
  hanging = tmp_path / "clip4.mp4"
  shutil.copy(clips / "clip0.mp4", hanging)
  good = str(clips / "clip1.mp4")
  code, found = _search(
      gallery,
      tmp_path,
      "--video",
      str(hanging),
      good,
      "--num_workers=1",
      "--timeout_seconds=5",
  )
  assert code == 0 and found == {good: 0}
  assert _errors(capsys) == [f"left out: {hanging}: took longer than 5 s"]


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--timeout_seconds=0", "--timeout_seconds must be 1 to"),
        (f"--timeout_seconds={10**400}", "--timeout_seconds must be 1 to"),
        ("--num_workers=-1", "--num_workers must be 0 to"),
    ],
)
def test_numbers_outside_their_range_are_refused(
    gallery, clips, tmp_path, capsys, flag, words
):
  video = f"--video={clips}/clip0.mp4"
  assert _search(gallery, tmp_path, video, flag) == (2, None)
  assert words in _errors(capsys)[-1]


def test_the_weights_are_where_they_were_or_asked_for(
    clips, tmp_path, capsys, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  weights, moved = tmp_path / "w.h5", tmp_path / "moved.h5"
  backbone_files.write_keras(weights, backbone_files.squeezenet_tensors())
  # A network of 224 pixels: no more pictures than there are.
  extract = functools.partial(frame_features.extract_features, batch_size=2)
  monkeypatch.setattr(frame_features, "extract_features", extract)
  flags = ["--backbone=squeezenet", "--videos_per_shard=4"]
  assert _prepare(clips, "data", *flags, "--weights=w.h5") == 0
  folder = tmp_path / "data" / "video_features" / "1.0.0"
  metadata = json.loads((folder / "metadata.json").read_text())
  assert metadata["settings"]["weights"] == str(weights)
  # Where a file lies is not what a preparation is.
  shutil.copy(weights, moved)
  plan = (folder / "preparation" / "plan.json").read_text()
  assert "w.h5" not in plan
  assert _prepare(clips, "data", *flags, f"--weights={moved}") == 0
  assert "2 of 2 shards are done already" in capsys.readouterr().out
  assert _prepare(clips, "data", *flags, "--weights=w.h5") == 0
  gallery = _train("data", tmp_path / "run", 512)
  video = f"--video={clips}/clip0.mp4"
  monkeypatch.chdir(clips)
  assert _search(gallery, tmp_path, video)[1] == {f"{clips}/clip0.mp4": 0}
  capsys.readouterr()
  for change, words in (
      (lambda: weights.write_bytes(b"other"), "is another file by now"),
      (weights.unlink, "is not there any more"),
      (lambda: os.mkfifo(weights), "is not there any more"),
  ):
    change()
    assert _search(gallery, tmp_path, video) == (2, None)
    (line,) = _errors(capsys)
    assert line.startswith(f"error: {weights}: the file of weights")
    assert words in line and "give it by --weights=FILE (SHA-256" in line
  given = _search(gallery, tmp_path, video, f"--weights={moved}")
  assert given == (0, {f"{clips}/clip0.mp4": 0})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": 7}, "must tell `features.weights`, a text, got 7"),
        ({"weights": "a\0b"}, "a\\x00b: the file of weights that"),
        ({"weights_checksum": None}, "must tell `features.weights_checksum`"),
        ({"backbone": ["random"]}, "must tell `features.backbone`"),
        ({"backbone": "none"}, "`backbone` must be one of"),
        ({"num_frames": "2"}, "must tell `features.num_frames`, a number"),
        ({"num_frames": 0}, "must tell `features.num_frames`, a number >= 1"),
        (["backbone"], "needs a gallery of video files"),
        (7, "needs a gallery of video files"),
    ],
)
def test_a_manifest_that_tells_nonsense_is_refused(
    gallery, clips, tmp_path, capsys, change, words
):
  copy = tmp_path / "run"
  shutil.copytree(gallery.partition("=")[2] + "/../..", copy)
  file = copy / "codes" / "gallery" / "manifest.json"
  manifest = json.loads(file.read_text())
  if isinstance(change, dict):
    manifest["features"] |= change
  else:
    manifest["features"] = change
  file.write_text(json.dumps(manifest))
  video = f"--video={clips}/clip0.mp4"
  found = _search(f"--gallery={copy}/codes/gallery", tmp_path, video)
  assert found == (2, None)
  (line,) = _errors(capsys)
  assert line.startswith("error: ") and words in line
