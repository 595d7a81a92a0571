"""Prepared datasets open fast, read exactly, and name what is damaged."""

import json
import pickle
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from array_record.python import array_record_module

from chain_jax import prepare
from chain_jax.data import dataset_folder, examples, sources
from chain_jax.errors import InputError

_RNG = np.random.default_rng(0)
_LENGTHS = np.array([3, 1, 2, 3, 2])
_FEATURES = _RNG.integers(0, 256, (5, 3, 2, 4)).astype(np.float16)
_LABELS = np.array([[1, 0], [0, 1], [1, 1], [0, 0], [0, 1]])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """Five videos of one to three frames in two variants; two record files."""
  folder = tmp_path_factory.mktemp("prepared")
  np.savez(
      folder / "set.npz",
      feats=_FEATURES,
      labels=_LABELS,
      num_frames=_LENGTHS,
      ids=np.array(["a", "b", "ç", "d", "e"]),
  )
  arguments = [
      "features",
      f"--train={folder}/set.npz",
      f"--output={folder}/out",
      "--videos_per_shard=3",
      "--num_workers=0",
  ]
  assert prepare.main(arguments) == 0
  return folder / "out"


def _folder(root):
  return root / "video_features" / "1.0.0"


def _train(root):
  return dataset_folder.open_dataset(root).split("train")


def _expected(video):
  return _FEATURES[video, : _LENGTHS[video]]


@pytest.mark.parametrize("inside", [False, True])
def test_every_video_comes_back(prepared, inside):
  source = _train(_folder(prepared) if inside else prepared)
  assert isinstance(source, sources.VideoSource)
  assert source.ids.tolist() == ["a", "b", "ç", "d", "e"]
  assert [source.labels.of(i).tolist() for i in range(5)] == [
      [0],
      [1],
      [0, 1],
      [],
      [1],
  ]
  assert (source.feature_dim, source.num_variants) == (4, 2)
  np.testing.assert_array_equal(
      source.num_frames, _LENGTHS.astype(np.int32), strict=True
  )
  np.testing.assert_array_equal(
      source.shard_starts, np.array([0, 3, 5]), strict=True
  )
  for video in range(5):
    np.testing.assert_array_equal(
        source.read_frames(video), _expected(video), strict=True
    )


def test_a_gather_is_what_single_reads_give(prepared):
  source = _train(prepared)
  videos = np.array([4, 0, 2])
  indices = np.array([[[0, 1], [1, 1]], [[0, 2], [2, 1]], [[1, 0], [0, 0]]])
  variants = np.array([[0, 1], [1, 1], [1, 0]])
  expected = np.array(
      [
          [
              _expected(video)[indices[row, view], variants[row, view]]
              for view in range(2)
          ]
          for row, video in enumerate(videos)
      ]
  )
  gathered = sources.gather_frames(source, videos, indices, variants)
  np.testing.assert_array_equal(gathered, expected, strict=True)
  plain = sources.gather_frames(source, videos, indices, None)
  np.testing.assert_array_equal(plain[1, 0], _expected(0)[[0, 2], 0])


def test_a_source_works_after_pickling(prepared):
  source = _train(prepared)
  source.read_frames(0)
  again = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(again.read_frames(3), _expected(3))


def test_a_forked_process_waits_for_no_lock_of_its_parent(
    prepared, monkeypatch
):
  source = _train(prepared)
  source._lock.acquire()  # As by another thread at the moment of the fork.
  monkeypatch.setattr(dataset_folder.os, "getpid", lambda: -1)
  read = []
  thread = threading.Thread(
      target=lambda: read.append(source.read_frames(0)), daemon=True
  )
  thread.start()
  thread.join(timeout=5)
  np.testing.assert_array_equal(read[0], _expected(0), strict=True)


def test_a_value_that_is_not_finite_is_named(own):
  # No checksum holds against who writes the file.
  path = sorted(_folder(own).glob("*.array_record-00000*"))[0]
  records = array_record_module.ArrayRecordReader(str(path)).read_all()
  frames = _expected(1).copy()
  frames[0, 0, 0] = np.nan
  records[1] = examples.encode_video(examples.Video("b", np.array([1]), frames))
  writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
  for record in records:
    writer.write(record)
  writer.close()
  source = _train(own)
  source.read_frames(0)
  with pytest.raises(InputError, match="record 1: features must be finite"):
    source.read_frames(1)


def test_opening_and_reading_import_neither_jax_nor_tensorflow(prepared):
  program = (
      "import sys; from chain_jax.data import dataset_folder;"
      f"dataset_folder.open_dataset({str(prepared)!r}).split('train')"
      ".read_frames(0); print([name for name in ('tensorflow',"
      " 'flax', 'jax') if name in sys.modules])"
  )
  printed = subprocess.run(
      [sys.executable, "-c", program],
      capture_output=True,
      text=True,
      check=True,
  ).stdout
  assert printed.strip() == "[]"


@pytest.fixture
def own(prepared, tmp_path):
  """A copy to damage."""
  return shutil.copytree(prepared, tmp_path / "own")


def test_a_flipped_bit_is_named_when_its_video_is_read(own):
  file = sorted(_folder(own).glob("*.array_record-00000*"))[0]
  content = bytearray(file.read_bytes())
  content[content.index(_expected(1).tobytes()) + 3] ^= 1
  file.write_bytes(content)
  source = _train(own)
  np.testing.assert_array_equal(source.read_frames(0), _expected(0))
  with pytest.raises(InputError, match=r"must be whole in record 1 \('b'\)"):
    source.read_frames(1)


def test_a_cut_file_is_named(own):
  file = sorted(_folder(own).glob("*.array_record-00001*"))[0]
  file.write_bytes(file.read_bytes()[:700])
  with pytest.raises(InputError, match="00001-of-00002: .*record 0 .*'d'"):
    _train(own).read_frames(3)


def test_a_missing_file_is_named_when_the_split_is_opened(own):
  sorted(_folder(own).glob("*.array_record-00001*"))[0].unlink()
  with pytest.raises(InputError, match="00001-of-00002 is missing"):
    _train(own)


@pytest.mark.parametrize("name", ["index-train.npz", "metadata.json"])
def test_damaged_metadata_is_named(own, name):
  (_folder(own) / name).write_bytes(b"{}")
  with pytest.raises(InputError, match=name):
    _train(own)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float99"},
        {"dtype": 3},
        {"dim": "wide"},
        {"dim": None},
        {"scale": [1.0, 2.0]},
        {"offset": "none"},
        {"dim": 0},
        {"dim": -4},
        {"dim": "4"},
        {"dim": 4.5},
        {"dim": True},
        {"dim": 2**40},
        {"num_variants": 0},
        {"num_variants": -2},
        {"num_variants": "2"},
        {"num_variants": 2.5},
        {"num_variants": True},
        {"num_variants": None},
        {"num_variants": 2**62},
        {"scale": float("nan")},
        {"offset": 1e300},
        {"settings": [1]},
        [],
    ],
)
def test_metadata_of_another_kind_are_named(own, change):
  path = _folder(own) / "metadata.json"
  metadata = json.loads(path.read_text())
  path.write_text(json.dumps(change and metadata | change))
  with pytest.raises(InputError, match="metadata.json: must be that of"):
    _train(own)


@pytest.mark.parametrize("name", ["ids", "num_frames", "shard_lengths"])
def test_an_index_of_another_length_is_named(own, name):
  path = _folder(own) / "index-train.npz"
  with np.load(path) as file:
    arrays = dict(file)
  np.savez(path, **arrays | {name: arrays[name][1:]})
  with pytest.raises(InputError, match="index-train.npz: .* and .* videos"):
    _train(own)


def _own_index(own, **changes):
  path = _folder(own) / "index-train.npz"
  with np.load(path) as file:
    arrays = dict(file) | changes
  np.savez(path, **arrays)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_frames": np.array([3, 1, 2, 0, 2])},
        {"num_frames": np.array([3, 1, 2, -3, 2])},
        {"num_frames": np.array([3, 1, 2, 2**40, 2])},
        {"num_frames": np.array([3.5, 1, 2, 3, 2])},
        {"shard_lengths": np.array([7, -2])},
        {"ids": np.arange(5)},
        {"ids": np.array(["a", "b", "c", "d", "\ud800"])},
        {"indices": np.array([0, 1, 0, 1, 2])},
        {"indices": np.array([0, 1, 0, 1, -1])},
        {"indptr": np.array([0, 1, 2, 3, 9, 5])},
        {"num_classes": np.array(-1)},
        {"num_classes": np.array([2, 2])},
    ],
)
def test_an_index_that_cannot_be_is_named(own, changes):
  _own_index(own, **changes)
  with pytest.raises(InputError, match="index-train.npz: must be the index"):
    _train(own)


def test_a_split_that_is_not_there_is_named(prepared):
  dataset = dataset_folder.open_dataset(prepared)
  assert dataset.splits == ["train"]
  with pytest.raises(InputError, match="split 'query', got train"):
    dataset.split("query")


def test_what_is_no_dataset_is_named(own, tmp_path):
  with pytest.raises(InputError, match="`data.root` must be .* got none"):
    dataset_folder.open_dataset(tmp_path / "nothing")
  shutil.copytree(_folder(own), own / "video_features" / "2.0.0")
  with pytest.raises(InputError, match="got several"):
    dataset_folder.open_dataset(own)
  shutil.rmtree(own / "video_features" / "2.0.0")
  (_folder(own) / "metadata.json").unlink()
  with pytest.raises(InputError, match="got an unfinished one"):
    dataset_folder.open_dataset(own)


def test_scale_and_offset_turn_bytes_into_features(tmp_path):
  np.savez(tmp_path / "set.npz", feats=_FEATURES[:, :, 0])
  arguments = ["features", f"--train={tmp_path}/set.npz", "--dtype=uint8"]
  assert prepare.main([*arguments, f"--output={tmp_path}/out"]) == 0
  source = _train(tmp_path / "out")
  assert source.dtype == np.uint8 and source.labels is None
  scale, offset = source.scaling
  restored = source.read_frames(2) * scale + offset
  np.testing.assert_allclose(restored, _FEATURES[2, :, 0], atol=scale.max() / 2)
  metadata = json.loads(
      (_folder(tmp_path / "out") / "metadata.json").read_text()
  )
  np.testing.assert_allclose(scale, metadata["scale"], rtol=1e-6)
