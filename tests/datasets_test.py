"""TFDS reads what `prepare` writes, and TensorFlow stays away."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from chain_jax import prepare
from chain_jax.data import datasets, tfrecord, youtube8m
from chain_jax.errors import InputError
from chain_jax.preparation import demo

# TFDS 4.9.10 reads dataset_info.json by a call that protobuf 6 calls old.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*label\\(\\) is deprecated:DeprecationWarning"
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  folder = tmp_path_factory.mktemp("prepared")
  demo.write_demo(
      str(folder / "shards"),
      num_shards=3,
      videos_per_shard=4,
      num_classes=8,
      seed=0,
  )
  arguments = [
      "youtube8m",
      f"--train={folder}/shards/train*",
      f"--evaluation={folder}/shards/validate*",
      f"--output={folder}/out",
      "--query_share=0",
      "--num_workers=0",
  ]
  assert prepare.main(arguments) == 0
  return folder


def _parsed(folder, pattern):
  return [
      youtube8m.parse_video(record.payload)
      for path in sorted((folder / "shards").glob(pattern))
      for record in tfrecord.read_records(path)
  ]


@pytest.mark.parametrize(
    ("split", "pattern"), [("train", "train*"), ("gallery", "validate*")]
)
def test_a_data_source_gives_every_video(prepared, split, pattern):
  source = tfds.data_source(
      "yt8m_frames", split=split, data_dir=prepared / "out"
  )
  expected = _parsed(prepared, pattern)
  assert len(source) == len(expected)
  for example, video in zip(source, expected, strict=True):
    assert example["id"] == video.id
    np.testing.assert_array_equal(example["labels"], video.labels, strict=True)
    np.testing.assert_array_equal(example["frames"], video.frames, strict=True)


def test_a_builder_knows_sizes_and_scale(prepared):
  builder = tfds.builder("yt8m_frames", data_dir=prepared / "out")
  assert isinstance(builder, datasets.Yt8mFrames)
  sizes = {
      name: info.num_examples for name, info in builder.info.splits.items()
  }
  assert sizes == {"train": 8, "gallery": 4}
  metadata = builder.info.metadata
  # google/youtube-8m, utils.Dequantize: 255 becomes 2 + 4 / 512.
  assert 255 * metadata["scale"] + metadata["offset"] == pytest.approx(
      2.0078125
  )
  builder.download_and_prepare()  # It is there already.


def test_features_read_by_their_folder_alone(prepared, tmp_path):
  np.savez(tmp_path / "set.npz", feats=np.ones((2, 3, 2, 4), np.float16))
  arguments = ["features", f"--train={tmp_path}/set.npz"]
  assert prepare.main([*arguments, f"--output={tmp_path}/out"]) == 0
  folder = tmp_path / "out" / "video_features" / "1.0.0"
  for builder in (
      tfds.builder_from_directory(folder),
      tfds.builder("video_features", data_dir=tmp_path / "out"),
  ):
    first, _ = builder.as_data_source("train")
    assert first["frames"].shape == (3, 2, 4)
    assert first["frames"].dtype == np.float16
  assert json.loads((folder / "metadata.json").read_text())["dim"] == 4


@pytest.mark.parametrize("name", datasets.BUILDERS)
def test_a_dataset_that_is_not_there_says_how_to_make_it(name, tmp_path):
  builder = tfds.builder(name, data_dir=tmp_path)
  with pytest.raises(InputError, match="python -m chain_jax.prepare"):
    builder.download_and_prepare()


def test_tensorflow_is_never_imported(prepared):
  program = (
      "import sys, tensorflow_datasets as tfds, chain_jax.data.datasets;"
      "source = tfds.data_source('yt8m_frames', split='train',"
      f" data_dir={str(prepared / 'out')!r}); source[0];"
      "print('tensorflow' in sys.modules)"
  )
  printed = subprocess.run(
      [sys.executable, "-c", program],
      capture_output=True,
      text=True,
      check=True,
  ).stdout
  assert printed.strip() == "False"
