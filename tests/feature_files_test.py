"""Feature files of every form open alike, and wrong ones are named."""

import h5py
import numpy as np
import pytest
import scipy.io

from chain_jax.data import feature_files
from chain_jax.errors import InputError

_RNG = np.random.default_rng(0)
_FEATURES = _RNG.random((4, 3, 5)).astype(np.float16)
_IDS = np.array(["a", "b", "ç", "d"])
_LABELS = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0, 1]])


def _write(path, **arrays):
  if path.suffix == ".npy":
    np.save(path, arrays["feats"])
  elif path.suffix == ".npz":
    np.savez(path, **arrays)
  else:
    with h5py.File(path, "w") as file:
      for name, array in arrays.items():
        if array.dtype.kind == "U":
          array = array.astype(h5py.string_dtype())
        file[name] = array
  return path


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".npz", ".npy"])
def test_every_form_gives_the_same_videos(suffix, tmp_path):
  path = _write(
      tmp_path / f"set{suffix}", feats=_FEATURES, ids=_IDS, labels=_LABELS
  )
  np.save(tmp_path / "labels.npy", _LABELS)
  labels = tmp_path / "labels.npy" if suffix == ".npy" else None
  file = feature_files.open_feature_file(path, labels_path=labels)
  assert (len(file), file.feature_dim, file.num_variants) == (4, 5, 1)
  expected = ["set-000000", "set-000001", "set-000002", "set-000003"]
  assert file.ids.tolist() == (expected if suffix == ".npy" else _IDS.tolist())
  assert [file.labels.of(row).tolist() for row in range(4)] == [
      [0],
      [1, 2],
      [],
      [2],
  ]
  for row, frames in enumerate(_FEATURES):
    np.testing.assert_array_equal(file.read_frames(row), frames, strict=True)


def test_labels_come_from_matlab_or_as_class_numbers(tmp_path):
  path = _write(tmp_path / "set.npz", feats=_FEATURES)
  scipy.io.savemat(tmp_path / "labels.mat", {"re_label": _LABELS})
  file = feature_files.open_feature_file(
      path, labels_path=tmp_path / "labels.mat", labels_key="re_label"
  )
  assert file.labels.of(1).tolist() == [1, 2] and file.has_label_matrix
  np.save(tmp_path / "classes.npy", np.array([2, 0, 1, 0]))
  file = feature_files.open_feature_file(
      path, labels_path=tmp_path / "classes.npy"
  )
  assert file.labels.of(0).tolist() == [2] and not file.has_label_matrix


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_padding_is_left_out(suffix, tmp_path):
  counts = np.array([3, 1, 2, 3])
  path = _write(tmp_path / f"set{suffix}", feats=_FEATURES, num_frames=counts)
  file = feature_files.open_feature_file(path)
  assert [len(file.read_frames(row)) for row in range(4)] == counts.tolist()


def test_one_variant_is_no_variant(tmp_path):
  path = _write(tmp_path / "set.npz", feats=_FEATURES[:, :, None])
  file = feature_files.open_feature_file(path)
  assert file.num_variants == 1
  np.testing.assert_array_equal(file.read_frames(1), _FEATURES[1], strict=True)


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".npy"])
def test_nan_is_found_when_its_video_is_read(suffix, tmp_path):
  features = _FEATURES.copy()
  features[2, 1, 0] = np.nan
  file = feature_files.open_feature_file(
      _write(tmp_path / f"set{suffix}", feats=features)
  )
  file.read_frames(1)
  with pytest.raises(InputError, match="row 2.*must be finite, got nan"):
    file.read_frames(2)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"features": _FEATURES}, "'feats', got features"),
        ({"feats": _FEATURES[0]}, r"got float16 of shape \[3, 5\]"),
        ({"feats": _FEATURES[:0]}, r"of shape \[0, 3, 5\]"),
        ({"feats": _FEATURES.astype("U4")}, "must be numbers"),
        (
            {"feats": _FEATURES, "ids": _IDS[:3]},
            "'ids' must name each of the 4",
        ),
        ({"feats": _FEATURES, "ids": _IDS[[0, 1, 1, 2]]}, "got 'b' twice"),
        (
            {"feats": _FEATURES, "ids": np.array(["a", "b", "c", ""])},
            "1 to 1024",
        ),
        (
            {"feats": _FEATURES, "ids": np.array(["a", "b", "c", "d" * 1025])},
            "got 1025",
        ),
        (
            {"feats": _FEATURES, "ids": np.array(list("abc\n"))},
            "without control",
        ),
        ({"feats": _FEATURES, "ids": np.array(list("abc\ud800"))}, "be UTF-8"),
        (
            {"feats": _FEATURES, "ids": np.array([b"a", b"b", b"c", b"\xff"])},
            "'ids' must be UTF-8",
        ),
        (
            {
                "feats": _FEATURES,
                "labels": np.array([0, 1, 2, 2**63], np.uint64),
            },
            "class numbers",
        ),
        ({"feats": _FEATURES, "labels": _LABELS[:3]}, "got 3 rows"),
        ({"feats": _FEATURES, "labels": _LABELS * 2}, "must be 0/1 rows"),
        ({"feats": _FEATURES, "labels": np.array([0, -1, 0, 0])}, "0/1 rows"),
        ({"feats": _FEATURES, "num_frames": np.array([1, 2, 3, 4])}, "1 .. 3"),
    ],
)
def test_a_wrong_npz_is_named(arrays, words, tmp_path):
  path = _write(tmp_path / "set.npz", **arrays)
  with pytest.raises(InputError, match=words):
    feature_files.open_feature_file(path)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".h5"])
@pytest.mark.parametrize("content", [b"", b"no array", "cut"])
def test_a_damaged_file_is_named(suffix, content, tmp_path):
  path = tmp_path / f"set{suffix}"
  if content == "cut":
    content = _write(path, feats=_FEATURES).read_bytes()[:-60]
  path.write_bytes(content)
  with pytest.raises(InputError, match=str(path)):
    feature_files.open_feature_file(path)


def test_pickles_are_refused(tmp_path):
  ragged = np.empty(2, object)
  ragged[:] = [_FEATURES[0], _FEATURES[1, :2]]
  np.savez(tmp_path / "set.npz", feats=ragged)
  with pytest.raises(InputError, match="without pickled objects"):
    feature_files.open_feature_file(tmp_path / "set.npz")


@pytest.mark.parametrize(
    ("name", "words"),
    [("none.h5", "got none"), (".", "got a folder"), ("set.pt", "got '.pt'")],
)
def test_what_is_no_feature_file_is_refused(name, words, tmp_path):
  (tmp_path / "set.pt").write_bytes(b"")
  with pytest.raises(InputError, match=words):
    feature_files.open_feature_file(tmp_path / name)
