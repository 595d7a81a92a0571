"""Feature files of every form open alike, and wrong ones are named."""

import io
import zipfile

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


def test_a_damaged_byte_in_a_packed_npz_is_named(tmp_path):
  path = tmp_path / "set.npz"
  np.savez_compressed(path, feats=_FEATURES)
  content = bytearray(path.read_bytes())
  for place in range(60, 140):
    path.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
    try:
      feature_files.open_feature_file(path)
    except InputError as error:
      assert str(path) in str(error)


def _huge_header(shape):
  file = io.BytesIO()
  np.lib.format.write_array_header_1_0(
      file, {"descr": "<f2", "fortran_order": False, "shape": shape}
  )
  return file.getvalue()


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_header_of_a_trillion_rows_is_named(suffix, tmp_path):
  path = tmp_path / f"set{suffix}"
  header = _huge_header((10**12, 3, 5))
  path.write_bytes(header)
  if suffix == ".npz":
    with zipfile.ZipFile(path, "w") as archive:
      archive.writestr("feats.npy", header)
  with pytest.raises(InputError, match="1000000000000"):
    feature_files.open_feature_file(path)


def test_an_npz_that_unpacks_to_much_more_than_it_is_is_refused(tmp_path):
  path = tmp_path / "set.npz"
  np.savez_compressed(path, feats=np.zeros((3, 2**15, 2**12), np.uint8))
  with pytest.raises(InputError, match="unpacks to .* too many"):
    feature_files.open_feature_file(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_file_of_the_other_kind_is_named(suffix, tmp_path):
  path = _write(tmp_path / f"set{suffix}", feats=_FEATURES)
  other = tmp_path / ("set.npz" if suffix == ".npy" else "set.npy")
  path.rename(other)
  with pytest.raises(InputError, match=f"{other}: must be a whole NumPy file"):
    feature_files.open_feature_file(other)


def test_a_file_cut_in_mid_run_is_named(tmp_path):
  path = tmp_path / "set.npy"
  np.save(path, np.ones((4, 100, 100), np.float32))
  file = feature_files.open_feature_file(path)
  file.read_frames(3)
  with open(path, "r+b") as opened:
    opened.truncate(1000)
  with pytest.raises(InputError, match="set.npy: must be .* too early"):
    file.read_frames(3)


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".npy", ".mat"])
def test_one_column_tells_two_classes_apart(suffix, tmp_path):
  column = np.array([[0], [1], [0], [1]])
  path, labels = _write(tmp_path / "set.npz", feats=_FEATURES), None
  if suffix in (".h5", ".npz"):
    path = _write(tmp_path / f"set{suffix}", feats=_FEATURES, labels=column)
  else:
    labels = tmp_path / f"labels{suffix}"
    np.save(tmp_path / "labels.npy", column)
    scipy.io.savemat(tmp_path / "labels.mat", {"labels": column})
  file = feature_files.open_feature_file(path, labels_path=labels)
  assert [file.labels.of(row).tolist() for row in range(4)] == [
      [0],
      [1],
      [0],
      [1],
  ]
  assert file.labels.num_classes == 2


@pytest.mark.parametrize("shape", [(10**12, 0), (4, 0)])
def test_labels_of_no_class_are_refused(shape, tmp_path):
  path = _write(tmp_path / "set.npz", feats=_FEATURES)
  (tmp_path / "labels.npy").write_bytes(_huge_header(shape))
  with pytest.raises(InputError, match="labels.npy"):
    feature_files.open_feature_file(path, labels_path=tmp_path / "labels.npy")


@pytest.mark.parametrize("name", ["labels", "num_frames"])
def test_arrays_that_are_not_in_the_file_are_refused(name, tmp_path):
  _write(tmp_path / "other.h5", values=_LABELS)
  path = _write(tmp_path / "set.h5", feats=_FEATURES)
  with h5py.File(path, "a") as file:
    file[name] = h5py.ExternalLink(str(tmp_path / "other.h5"), "values")
  with pytest.raises(InputError, match=f"{name}' must lie in this file"):
    feature_files.open_feature_file(path)
  with h5py.File(path, "a") as file:
    del file[name]
    file.create_dataset(name, (4, 10**9), np.uint8, chunks=(1, 1000))
  with pytest.raises(InputError, match=f"{name}' must (fit|be written)"):
    feature_files.open_feature_file(path)
