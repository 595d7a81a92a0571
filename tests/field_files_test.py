"""The field's folders: which file is which split, and what is refused."""

import pathlib

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from chain_jax.data import field_files
from chain_jax.errors import InputError

# As the peers' code names them; labels None where no file is passed around.
FILES = {
    "fcvid": {
        "train": ("fcv_train_feats.h5", None, None),
        "gallery": ("fcv_test_feats.h5", "fcv_test_labels.mat", "labels"),
        "query": ("fcv_test_feats.h5", "fcv_test_labels.mat", "labels"),
    },
    "activitynet": {
        "train": ("train_feats.h5", None, None),
        "gallery": ("test_feats.h5", "re_label.mat", "re_label"),
        "query": ("query_feats.h5", "q_label.mat", "q_label"),
    },
    "ucf101": {
        "train": ("ucf_train_feats.h5", "ucf_train_labels.mat", "labels"),
        "gallery": ("ucf_train_feats.h5", "ucf_train_labels.mat", "labels"),
        "query": ("ucf_test_feats.h5", "ucf_test_labels.mat", "labels"),
    },
    "hmdb51": {
        "train": ("hmdb_train_feats.h5", "hmdb_train_labels.mat", "labels"),
        "gallery": ("hmdb_train_feats.h5", "hmdb_train_labels.mat", "labels"),
        "query": ("hmdb_test_feats.h5", "hmdb_test_labels.mat", "labels"),
    },
}
REAL = pathlib.Path(__file__).parents[2] / "shared" / "data" / "ucf101_vgg16"


def _class_of(file, row):
  return (len(file) + row) % 3


def _write_dataset(root, name):
  """Each video is filled with a number that tells its file and row."""
  for features, labels, key in FILES[name].values():
    rows = np.arange(4 + len(features) % 3)
    with h5py.File(root / features, "w") as file:
      values = (len(features) + rows / 8).astype(np.float32)
      file["feats"] = np.broadcast_to(values[:, None, None], (len(rows), 2, 5))
    if labels:
      matrix = np.zeros((len(rows), 3), np.uint8)
      matrix[rows, [_class_of(features, row) for row in rows]] = 1
      scipy.io.savemat(root / labels, {key: matrix})


@pytest.mark.parametrize("cache_in_memory", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_each_split_comes_from_its_files(tmp_path, name, cache_in_memory):
  _write_dataset(tmp_path, name)
  dataset = field_files.open_field_dataset(
      name, tmp_path, cache_in_memory=cache_in_memory
  )
  for split, (features, labels, _) in FILES[name].items():
    source = getattr(dataset, split)
    assert len(source) == 4 + len(features) % 3
    for row in range(len(source)):
      frames = source.read_frames(row)
      np.testing.assert_array_equal(
          frames,
          np.full((2, 5), len(features) + row / 8, np.float32),
          strict=True,
      )
      if labels:
        assert source.labels.of(row).tolist() == [_class_of(features, row)]
    if not labels:
      assert source.labels is None


@pytest.mark.parametrize("cache_in_memory", [False, True])
def test_one_file_is_one_source_with_the_same_ids(tmp_path, cache_in_memory):
  for name, splits in (("fcvid", (1, 2)), ("ucf101", (0, 1))):
    _write_dataset(tmp_path, name)
    dataset = field_files.open_field_dataset(
        name, tmp_path, cache_in_memory=cache_in_memory
    )
    assert dataset[splits[0]] is dataset[splits[1]]
  assert dataset.query.ids[0] == "ucf_test_feats-000000"


def test_an_unknown_dataset_is_refused(tmp_path):
  with pytest.raises(InputError, match=r"`data\.dataset`.*fcvid.*got 'yfcc'"):
    field_files.open_field_dataset("yfcc", tmp_path, cache_in_memory=False)


def test_missing_files_are_named_beside_those_looked_for(tmp_path):
  _write_dataset(tmp_path, "ucf101")
  (tmp_path / "ucf_test_feats.h5").unlink()
  (tmp_path / "ucf_train_labels.mat").unlink()
  with pytest.raises(InputError) as caught:
    field_files.open_field_dataset("ucf101", tmp_path, cache_in_memory=False)
  message = str(caught.value)
  assert message.startswith("`data.root`") and str(tmp_path) in message
  assert message.endswith(
      "lacks ucf_train_labels.mat, ucf_test_feats.h5; set `data.root` to the"
      " folder that has them."
  )
  assert (
      "ucf_train_feats.h5, ucf_train_labels.mat, ucf_test_feats.h5" in message
  )


def test_splits_with_other_numbers_of_classes_are_refused(tmp_path):
  _write_dataset(tmp_path, "activitynet")
  matrix = np.eye(4 + len("query_feats.h5") % 3, dtype=np.uint8)
  scipy.io.savemat(tmp_path / "q_label.mat", {"q_label": matrix})
  with pytest.raises(InputError, match="number of classes, got 3 and 6"):
    field_files.open_field_dataset(
        "activitynet", tmp_path, cache_in_memory=False
    )


def test_splits_are_cached_all_together_or_not_at_all(tmp_path, monkeypatch):
  _write_dataset(tmp_path, "hmdb51")  # 5 + 4 videos of 40 bytes.
  monkeypatch.setattr(
      "chain_jax.data.cached_source.available_memory", lambda: 300
  )
  with pytest.raises(InputError, match=r"`data\.cache_in_memory`"):
    field_files.open_field_dataset("hmdb51", tmp_path, cache_in_memory=True)
  field_files.open_field_dataset("hmdb51", tmp_path, cache_in_memory=False)


MATRIX = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    "matrix",
    [
        MATRIX.astype(np.uint8),
        MATRIX.astype(np.float64),
        MATRIX.astype(bool),
        scipy.sparse.csc_matrix(MATRIX.astype(np.float64)),
    ],
    ids=["uint8", "double", "logical", "sparse"],
)
def test_a_label_matrix_of_any_kind_becomes_labels(tmp_path, matrix):
  scipy.io.savemat(tmp_path / "l.mat", {"labels": matrix})
  labels = field_files.read_label_matrix(tmp_path / "l.mat", key="labels")
  assert [labels.of(row).tolist() for row in range(4)] == [[1, 2], [], [0], [2]]
  assert labels.num_classes == 3


@pytest.mark.parametrize(
    ("variables", "match"),
    [
        ({"re_label": MATRIX, "b": 1}, "matrix 'labels', got b, re_label;"),
        ({}, "matrix 'labels', got none;"),
        ({"labels": MATRIX * 7}, "must hold 0 and 1, .*got 7"),
        ({"labels": MATRIX - 1}, "must hold 0 and 1, .*got -1"),
        ({"labels": np.nan * MATRIX}, "must hold 0 and 1, .*got nan"),
        ({"labels": np.ones((2, 2, 2))}, r"float64 of shape \[2, 2, 2\]"),
        ({"labels": np.array(["ab"])}, "matrix of numbers"),
    ],
)
def test_a_wrong_label_matrix_is_refused(tmp_path, variables, match):
  path = tmp_path / "l.mat"
  scipy.io.savemat(path, variables)
  with pytest.raises(InputError, match=match) as caught:
    field_files.read_label_matrix(path, key="labels")
  assert str(path) in str(caught.value)


def test_a_matlab_7_3_file_is_refused_with_the_way_out(tmp_path):
  path = tmp_path / "l.mat"
  with h5py.File(path, "w", userblock_size=512) as file:
    file["labels"] = MATRIX
  header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
  with open(path, "r+b") as file:
    file.write(header)
  with pytest.raises(InputError, match=r"got version 7\.3; .*'-v7'"):
    field_files.read_label_matrix(path, key="labels")


@pytest.mark.parametrize("keep", [0, 60, 200])
def test_a_truncated_label_file_is_refused(tmp_path, keep):
  path = tmp_path / "l.mat"
  scipy.io.savemat(path, {"labels": np.ones((50, 50), np.uint8)})
  path.write_bytes(path.read_bytes()[:keep])
  with pytest.raises(InputError, match="MATLAB 5 file, could not be read"):
    field_files.read_label_matrix(path, key="labels")


@pytest.mark.skipif(
    not REAL.is_dir(), reason="needs ../shared/data/ucf101_vgg16"
)
def test_the_real_ucf101_files_open_and_agree_with_their_names():
  dataset = field_files.open_field_dataset(
      "ucf101", REAL, cache_in_memory=False
  )
  assert dataset.train is dataset.gallery
  assert (len(dataset.train), len(dataset.query)) == (969, 372)
  classes = {}
  for source in (dataset.train, dataset.query):
    assert source.read_frames(11).shape == (25, 4096)
    for row, video_id in enumerate(source.ids):
      name = video_id.split("_")[1]  # v_ApplyLipstick_g10_c03
      (label,) = source.labels.of(row)
      assert classes.setdefault(name, label) == label
  assert len(set(classes.values())) == len(classes) == 14
