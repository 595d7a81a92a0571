"""Where the values of an HDF5 file may lie: in it, written, and in their room."""

import os
import zlib

import h5py
import numpy as np
import pytest

from chain_jax.data import sources
from chain_jax.data.hdf5_source import Hdf5Source
from chain_jax.errors import InputError


def _features(shape=(7, 3, 4), dtype=np.float16):
  return np.random.default_rng(0).random(shape).astype(dtype)


@pytest.fixture
def other(tmp_path):
  """A good file, whose features lie elsewhere than in the one that links."""
  with h5py.File(tmp_path / "other.h5", "w") as file:
    file["padding"] = np.zeros(1000)
    file["feats"] = _features()
    file["ids"] = [f"{row}" for row in range(7)]
  return "other.h5"


@pytest.fixture
def file(tmp_path):
  with h5py.File(tmp_path / "a.h5", "w") as file:
    yield file


def _source(file):
  file.close()
  return Hdf5Source(file.path, labels=None)


@pytest.fixture(autouse=True)
def _path(file, tmp_path, monkeypatch):
  # h5py's own name goes when the file is closed.
  monkeypatch.setattr(h5py.File, "path", tmp_path / "a.h5", raising=False)


def _refused(file, match):
  file.close()
  with pytest.raises(InputError, match=match) as caught:
    Hdf5Source(file.path, labels=None)
  assert str(file.path) in str(caught.value)


def _reads(file, features):
  source = _source(file)
  indices = np.array([[[0, 2]], [[1, 1]]], np.int32)
  np.testing.assert_array_equal(
      source.read_block(0, len(features)), features, strict=True
  )
  np.testing.assert_array_equal(
      sources.gather_frames(source, np.array([5, 2]), indices, None),
      features[np.array([[[5]], [[2]]]), indices],
      strict=True,
  )


def _links_there(file, other):
  file["feats"] = h5py.ExternalLink(other, "/feats")


def _links_through_a_group(file, other):
  file["there"] = h5py.ExternalLink(other, "/")
  file["feats"] = h5py.SoftLink("/there/feats")


def _waits_for_a_pipe(file, other):
  os.mkfifo(file.path.with_name("pipe"))
  file["feats"] = h5py.ExternalLink("pipe", "/feats")


def _ids_wait_for_a_pipe(file, other):
  file["feats"] = _features()
  os.mkfifo(file.path.with_name("pipe"))
  file["ids"] = h5py.ExternalLink("pipe", "/ids")


def _links_in_a_circle(file, other):
  file["feats"] = h5py.SoftLink("/there")
  file["there"] = h5py.SoftLink("/feats")


def _values_elsewhere(file, other):
  file.create_dataset(
      "feats", data=_features(), external=[(other, 0, h5py.h5f.UNLIMITED)]
  )


def _ids_without_end(file, other):
  file["feats"] = _features()
  space = [("/dev/zero", 0, h5py.h5f.UNLIMITED)]
  file.create_dataset("ids", (7,), "S1000000", external=space)


def _puts_views_together(file, other):
  layout = h5py.VirtualLayout((7, 3, 4), np.float16)
  layout[:] = h5py.VirtualSource(other, "feats", (7, 3, 4))
  file.create_virtual_dataset("feats", layout)


@pytest.mark.parametrize(
    "write",
    [
        _links_there,
        _links_through_a_group,
        _waits_for_a_pipe,
        _ids_wait_for_a_pipe,
        _links_in_a_circle,
        _values_elsewhere,
        _ids_without_end,
        _puts_views_together,
    ],
)
def test_values_in_other_files_are_refused_with_the_way_out(file, other, write):
  write(file, other)
  _refused(file, "must lie in this file, got .*; copy it into one file")


def test_a_soft_link_is_followed(file):
  file["deep/down/values"] = _features()
  file["deep/up"] = h5py.SoftLink("down/./values")
  file["feats"] = h5py.SoftLink("/deep/up")
  _reads(file, _features())


def test_a_soft_link_that_leads_nowhere_is_refused(file):
  file["feats"] = h5py.SoftLink("/there")
  _refused(file, "must hold a dataset 'feats'")


_WAYS = {
    "one piece": {},
    "chunks": {"chunks": (1, 3, 4)},
    "packed": {"chunks": (2, 3, 4), "compression": "gzip"},
}


@pytest.mark.parametrize("way", _WAYS)
@pytest.mark.parametrize("num_videos", [7, 10**7, 10**12])
def test_features_that_were_never_written_are_refused(file, way, num_videos):
  file.create_dataset("feats", (num_videos, 3, 4), np.float16, **_WAYS[way])
  _refused(file, "must (be written for every video|fit in this file)")


def test_videos_without_a_chunk_are_refused(file):
  features = file.create_dataset("feats", (7, 3, 4), "f2", chunks=(2, 3, 4))
  features[:4] = 1
  _refused(file, r"written for every video, got float16 of shape \[7, 3, 4\]")


def test_padding_that_was_never_written_is_zeros(file):
  features = file.create_dataset("feats", (7, 3, 4), "f2", chunks=(1, 1, 4))
  features[:, :2] = 1
  expected = np.ones((7, 3, 4), np.float16)
  expected[:, 2] = 0
  _reads(file, expected)


def _write_packed(file, shape, chunks, *, filters=("deflate",)):
  """Writes one chunk of zeros, packed once by each filter."""
  plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
  plan.set_chunk(chunks)
  for _ in filters:
    plan.set_deflate(9)
  space = h5py.h5s.create_simple(shape, (h5py.h5s.UNLIMITED,) * 3)
  made = h5py.h5d.create(
      file.id, b"feats", h5py.h5t.IEEE_F16LE, space, dcpl=plan
  )
  data = bytes(2 * int(np.prod(chunks)))
  for _ in filters:
    data = zlib.compress(data, 9)
  made.write_direct_chunk((0, 0, 0), data)


def test_more_than_zlib_packs_with_reason_is_refused(file):
  _write_packed(file, (1000, 100, 1000), (1000, 100, 1000))
  _refused(file, r"must fit in this file, got float16 .* \(200000000 bytes\)")


def test_a_chunk_larger_than_its_dataset_is_refused(file):
  _write_packed(file, (1, 1, 1), (1000, 100, 1000))
  _refused(file, r"must fit in this file, .* \(200000000 bytes\)")


def test_values_packed_twice_are_refused(file):
  _write_packed(file, (7, 3, 4), (7, 3, 4), filters=("deflate", "deflate"))
  _refused(file, "must fit in this file")


@pytest.mark.parametrize("size", [10**6, 2**31 - 1])
def test_ids_of_a_length_that_the_file_cannot_hold_are_refused(file, size):
  file["feats"] = _features()
  text = h5py.h5t.C_S1.copy()
  text.set_size(size)
  space = h5py.h5s.create_simple((7,))
  h5py.h5d.create(file.id, b"ids", text, space)
  _refused(file, "'ids' must fit in this file")


@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8", "<f8"])
def test_either_byte_order_is_read(file, dtype):
  file["feats"] = _features(dtype=dtype)
  _reads(file, _features(dtype=dtype))


# Sign, exponent at, exponent bits, mantissa at, mantissa bits; bytes; bias.
_ODD_FLOATS = {
    "bfloat16": ((15, 7, 8, 0, 7), 2, 127),
    "float8, 4 bits of exponent": ((7, 3, 4, 0, 3), 1, 7),
    "float8, 5 bits of exponent": ((7, 2, 5, 0, 2), 1, 15),
}


@pytest.mark.parametrize("name", _ODD_FLOATS)
def test_floats_that_numpy_lacks_become_what_they_mean(file, name):
  fields, size, bias = _ODD_FLOATS[name]
  kind = h5py.h5t.IEEE_F32LE.copy()
  kind.set_fields(*fields)
  kind.set_size(size)
  kind.set_ebias(bias)
  space = h5py.h5s.create_simple((7, 3, 4))
  dataset = h5py.Dataset(h5py.h5d.create(file.id, b"feats", kind, space))
  # Exact in each: 1 to 4 times a power of two.
  expected = np.arange(84).reshape(7, 3, 4) % 4 + 1.0
  dataset[...] = expected
  _reads(file, expected.astype(dataset.dtype))


@pytest.mark.parametrize(
    "dtype",
    [
        bool,
        np.int16,
        np.complex64,
        np.longdouble,
        np.dtype([("x", "f4"), ("y", "f4")]),
        h5py.vlen_dtype(np.float32),
        h5py.string_dtype(),
        h5py.ref_dtype,
        np.dtype("V4"),
    ],
    ids=str,
)
def test_what_is_no_float_is_refused(file, dtype):
  file.create_dataset("feats", (7, 3, 4), dtype)
  _refused(file, "must be float16 or float32")


def test_features_without_values_are_refused(file):
  file["feats"] = h5py.Empty("f4")
  _refused(file, r"must be float16 or float32.*shape \[\]")


def test_values_in_the_header_are_read(file):
  plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
  plan.set_layout(h5py.h5d.COMPACT)
  space = h5py.h5s.create_simple((7, 3, 4))
  made = h5py.h5d.create(
      file.id, b"feats", h5py.h5t.IEEE_F16LE, space, dcpl=plan
  )
  h5py.Dataset(made)[...] = _features()
  _reads(file, _features())


def test_a_file_behind_a_block_of_the_user_is_read(tmp_path):
  path = tmp_path / "b.h5"
  with h5py.File(path, "w", userblock_size=512) as file:
    file["feats"] = _features()
  source = Hdf5Source(path, labels=None)
  np.testing.assert_array_equal(source.read_block(0, 7), _features())


@pytest.mark.parametrize("length", range(1, 9))
def test_values_at_any_place_are_read(tmp_path, length):
  # The name of what is written before moves what comes behind it.
  path = tmp_path / "b.h5"
  with h5py.File(path, "w", libver="latest") as file:
    file.attrs["a" * length] = np.uint8(1)
    file.create_dataset("packed", data=np.arange(length, dtype=np.uint8))
    file["feats"] = _features(dtype=np.float64)
  source = Hdf5Source(path, labels=None)
  np.testing.assert_array_equal(
      source.read_block(0, 7), _features(dtype=np.float64), strict=True
  )


@pytest.mark.parametrize(
    "dtype", [bool, float, [("x", "f4")], h5py.vlen_dtype(int)], ids=str
)
def test_ids_that_are_no_names_are_refused(file, dtype):
  file["feats"] = _features()
  file.create_dataset("ids", (7,), dtype)
  _refused(file, "'ids' must be strings, got")


def test_ids_may_be_whole_numbers(file):
  file["feats"] = _features()
  file["ids"] = np.arange(10, 17)
  assert _source(file).ids.tolist() == [f"{row}" for row in range(10, 17)]


@pytest.mark.parametrize("way", _WAYS)
def test_a_file_cut_short_in_mid_run_is_one_line(file, way):
  features = _features((20, 300, 128), np.float32)  # Many pages of memory.
  settings = dict(_WAYS[way])
  if settings:
    settings["chunks"] = (1, 300, 128)
  file.create_dataset("feats", data=features, **settings)
  source = _source(file)
  indices = np.array([[[0, 299]]], np.int32)
  # HDF5 keeps what it has read; the map would be touched.
  seen = [0] if settings else [0, 19]
  source.gather(np.array(seen), indices[[0] * len(seen)], None)
  os.truncate(file.path, 4096)
  for read in (
      lambda: source.gather(np.array([19]), indices, None),
      lambda: source.read_frames(18),
  ):
    with pytest.raises(InputError) as caught:
      read()
    assert str(file.path) in str(caught.value)
