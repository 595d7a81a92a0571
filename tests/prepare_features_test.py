"""Feature files become datasets without loss, or with a measured one."""

import json

import numpy as np
import pytest
from array_record.python import array_record_module

from chain_jax import prepare
from chain_jax.data import examples
from chain_jax.preparation import rounding

_RNG = np.random.default_rng(0)
_TRAIN = _RNG.gamma(1.0, size=(7, 3, 4)).astype(np.float32)
_QUERY = _RNG.gamma(1.0, size=(3, 3, 4)).astype(np.float32)


@pytest.fixture
def files(tmp_path):
  np.savez(tmp_path / "train.npz", feats=_TRAIN, labels=np.arange(7) % 3)
  np.savez(tmp_path / "query.npz", feats=_QUERY, labels=np.arange(3) % 2)
  return tmp_path


def _prepare(files, *more):
  return prepare.main(
      [
          "features",
          f"--output={files / 'out'}",
          "--videos_per_shard=3",
          "--num_workers=0",
          *more,
      ]
  )


def _folder(files):
  return files / "out" / "video_features" / "1.0.0"


def _read(files, split, dtype, dim=4):
  stored = {}
  for file in sorted(_folder(files).glob(f"*-{split}.array_record-*")):
    for record in array_record_module.ArrayRecordReader(str(file)).read_all():
      example = examples.decode_example(record)
      frames = np.frombuffer(example.frames, dtype).reshape(-1, dim)
      stored[example.id] = (frames, example.labels)
  return stored


def test_float16_keeps_every_value(files):
  _prepare(files, f"--train={files}/train.npz", f"--query={files}/query.npz")
  for split, features in (("train", _TRAIN), ("query", _QUERY)):
    stored = _read(files, split, np.float16)
    assert list(stored) == [f"{split}-{i:06d}" for i in range(len(features))]
    for row, (frames, labels) in enumerate(stored.values()):
      expected = features[row].astype(np.float16)
      np.testing.assert_array_equal(frames, expected, strict=True)
      assert labels == [row % (3 if split == "train" else 2)]


def test_uint8_is_within_half_a_step_and_says_so(files, capsys):
  assert _prepare(files, f"--train={files}/train.npz", "--dtype=uint8") == 0
  metadata = json.loads((_folder(files) / "metadata.json").read_text())
  scale = np.array(metadata["scale"])
  offset = np.array(metadata["offset"])
  # Each dimension's range over the train split, in 255 steps.
  np.testing.assert_allclose(
      scale, np.ptp(_TRAIN, axis=(0, 1)) / 255, rtol=1e-6
  )
  np.testing.assert_allclose(offset, _TRAIN.min(axis=(0, 1)), rtol=1e-6)
  stored = _read(files, "train", np.uint8)
  restored = np.array([f for f, _ in stored.values()]) * scale + offset
  assert (np.abs(restored - _TRAIN) <= scale / 2 * 1.001).all()
  error = np.sqrt(np.square(restored - _TRAIN).sum() / np.square(_TRAIN).sum())
  manifest = json.loads((_folder(files) / "manifest.json").read_text())
  assert manifest["notes"]["relative_rms_error_of_rounding"] == pytest.approx(
      error, rel=1e-4
  )
  assert "relative rms error of rounding: 0.0" in capsys.readouterr().out


def test_range_and_classes_are_of_all_that_is_given(files):
  # The range is that of train, and classes are counted over both files.
  flags = (f"--train={files}/train.npz", f"--query={files}/query.npz")
  assert _prepare(files, *flags, "--dtype=uint8") == 0
  metadata = json.loads((_folder(files) / "metadata.json").read_text())
  np.testing.assert_allclose(
      metadata["offset"], _TRAIN.min(axis=(0, 1)), rtol=1e-6
  )
  assert metadata["num_classes"] == 3


def test_queries_beyond_the_range_of_train_are_clipped():
  stored = rounding.quantise(
      np.array([[-5.0, 500.0]]), np.array(0.5), np.array(1.0)
  )
  np.testing.assert_array_equal(stored, np.array([[0, 255]], np.uint8))


def test_a_dimension_that_never_changes_comes_back(files):
  features = _TRAIN.copy()
  features[..., 2] = 3.25
  np.savez(files / "train.npz", feats=features)
  _prepare(files, f"--train={files}/train.npz", "--dtype=uint8")
  metadata = json.loads((_folder(files) / "metadata.json").read_text())
  frames, _ = _read(files, "train", np.uint8)["train-000000"]
  assert (
      frames[:, 2] * metadata["scale"][2] + metadata["offset"][2]
  ).tolist() == ([3.25] * 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e5])
def test_a_video_that_cannot_be_stored_is_listed(files, value):
  features = _TRAIN.copy()
  features[4, 1, 1] = value
  np.savez(files / "train.npz", feats=features)
  assert _prepare(files, f"--train={files}/train.npz") == 0
  assert len(_read(files, "train", np.float16)) == 6
  manifest = json.loads((_folder(files) / "manifest.json").read_text())
  (skipped,) = manifest["skipped"]
  assert (skipped["source"], skipped["where"]) == ("train.npz", 4)
  assert "must be" in skipped["reason"]


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_a_number_beyond_float32_is_listed(files, dtype):
  features = _TRAIN.astype(np.float64)
  features[4, 1, 1] = 1e300
  np.savez(files / "train.npz", feats=features)
  assert _prepare(files, f"--train={files}/train.npz", f"--dtype={dtype}") == 0
  manifest = json.loads((_folder(files) / "manifest.json").read_text())
  (skipped,) = manifest["skipped"]
  assert skipped["where"] == 4 and "at most 3.4e+38" in skipped["reason"]


@pytest.mark.parametrize("dtype", [">f2", ">f4", "<f8", "uint8"])
def test_numbers_of_any_kind_come_back(files, dtype):
  features = _RNG.integers(0, 256, (2, 3, 4)).astype(dtype)
  np.savez(files / "set.npz", feats=features)
  assert _prepare(files, f"--train={files}/set.npz") == 0
  for row in range(2):
    frames, _ = _read(files, "train", np.float16)[f"set-{row:06d}"]
    np.testing.assert_array_equal(
        frames, features[row].astype(np.float16), strict=True
    )


def test_features_that_are_all_zero_are_stored_exactly(files):
  np.savez(files / "train.npz", feats=np.zeros((3, 2, 4), np.float32))
  assert _prepare(files, f"--train={files}/train.npz", "--dtype=uint8") == 0
  manifest = json.loads((_folder(files) / "manifest.json").read_text())
  assert manifest["notes"]["relative_rms_error_of_rounding"] == 0
  metadata = json.loads((_folder(files) / "metadata.json").read_text())
  frames, _ = _read(files, "train", np.uint8)["train-000002"]
  restored = frames * np.array(metadata["scale"]) + metadata["offset"]
  np.testing.assert_array_equal(restored, np.zeros((2, 4)), strict=True)


def test_a_range_too_small_to_be_cut_in_steps_stays_finite(files):
  features = _TRAIN * np.float32(1e-45)
  np.savez(files / "train.npz", feats=features)
  assert _prepare(files, f"--train={files}/train.npz", "--dtype=uint8") == 0
  metadata = json.loads((_folder(files) / "metadata.json").read_text())
  assert min(metadata["scale"]) > 0


def test_variants_stay_apart(files):
  features = _RNG.random((2, 3, 2, 4)).astype(np.float16)
  np.savez(files / "set.npz", feats=features)
  _prepare(files, f"--train={files}/set.npz")
  metadata = json.loads((_folder(files) / "metadata.json").read_text())
  assert metadata["num_variants"] == 2
  frames, labels = _read(files, "train", np.float16)["set-000001"]
  np.testing.assert_array_equal(frames.reshape(3, 2, 4), features[1])
  assert labels == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), "give either --input"),
        (("--input={0}/train.npz", "--train={0}/train.npz"), "give either"),
        (
            ("--input={0}/train.npz", "--train_labels={0}/train.npz"),
            "--train_labels must come with --train, got --input instead",
        ),
        (
            ("--train={0}/train.npz", "--query_labels={0}/query.npz"),
            "--query_labels must come with --query, got --train",
        ),
        (
            ("--train={0}/train.npz", "--input_labels={0}/train.npz"),
            "--input_labels must come with --input, got --train",
        ),
        (("--train={0}/none.npz",), "must be a file of features, got none"),
        (
            ("--train={0}/train.npz", "--query={0}/train.npz"),
            "must be different files",
        ),
        (("--train={0}/train.npz", "--query={0}/wide.npz"), "feature_dim of"),
        (("--train={0}/ids.npz", "--query={0}/ids2.npz"), "got 'a' in both"),
        (("--train={0}/train.npz", "--videos_per_shard=0"), ">= 1, got 0"),
        (
            ("--train={0}/m2.npz", "--query={0}/m3.npz"),
            "got 2 and 3 classes",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(files, more, words, capsys):
  one = np.ones((1, 2, 4), np.float32)
  np.savez(files / "wide.npz", feats=np.ones((1, 2, 5), np.float32))
  np.savez(files / "ids.npz", feats=one, ids=np.array(["a"]))
  np.savez(files / "ids2.npz", feats=one, ids=np.array(["a"]))
  np.savez(files / "m2.npz", feats=one, labels=np.eye(2)[:1])
  np.savez(
      files / "m3.npz", feats=one, labels=np.eye(3)[:1], ids=np.array("b")[None]
  )
  code = _prepare(files, *(flag.format(files) for flag in more))
  line = capsys.readouterr().err
  assert code == 2 and words in line and line.count("\n") == 1
