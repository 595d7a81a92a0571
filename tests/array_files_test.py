"""Arrays come back as written; a header never makes memory out of nothing."""

import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from chain_jax import array_files
from chain_jax.errors import InputError

_WORDS = {"must_be": "an array", "way_out": "write it again"}
_ARRAYS = {
    "plain": np.arange(24.0).reshape(2, 3, 4),
    "last axis first": np.asfortranarray(np.arange(24).reshape(2, 3, 4)),
    "other byte order": np.array(["a", "ç"], ">U3"),
    "bytes": np.array([b"a", b"bc"]),
    "one value": np.array("abc"),
    "empty": np.zeros((0, 3), np.float16),
    "switches": np.array([True, False]),
}


@pytest.fixture(params=_ARRAYS)
def array(request):
  return _ARRAYS[request.param]


def _npz(path, name="a"):
  return array_files.read_npz(path, [name], **_WORDS)[name]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_any_array_comes_back(array, save, tmp_path):
  np.save(tmp_path / "a.npy", array)
  read = array_files.read_npy(tmp_path / "a.npy", **_WORDS)
  np.testing.assert_array_equal(read, array, strict=True)
  save(tmp_path / "a.npz", a=array)
  read = _npz(tmp_path / "a.npz")
  np.testing.assert_array_equal(read, array, strict=True)


@pytest.mark.parametrize("name", ["plain", "last axis first"])
def test_rows_are_those_of_the_whole_array(name, tmp_path):
  array = _ARRAYS[name]
  np.save(tmp_path / "a.npy", array)
  rows = array_files.Rows(tmp_path / "a.npy", **_WORDS)
  assert (rows.shape, rows.dtype, len(rows)) == (array.shape, array.dtype, 2)
  for row in (0, 1, -1):
    np.testing.assert_array_equal(rows[row], array[row], strict=True)
  with pytest.raises(IndexError):
    rows[2]


@pytest.mark.parametrize("name", ["plain", "last axis first"])
def test_a_file_that_is_cut_while_it_is_read_is_named(name, tmp_path):
  path = tmp_path / "a.npy"
  # More than a page of memory: what is left of the last one can be read.
  np.save(path, np.repeat(_ARRAYS[name], 1000, axis=2))
  rows = array_files.Rows(path, **_WORDS)
  os.truncate(path, 200)
  with pytest.raises(InputError, match="a.npy: must be an array.*early|cut"):
    rows[1]


def test_what_is_not_asked_for_costs_nothing(tmp_path):
  path = tmp_path / "a.npz"
  # Larger than any member may be.
  np.savez_compressed(path, a=np.arange(3), b=np.zeros(2**28 + 1, np.uint8))
  tracemalloc.start()
  assert _npz(path).tolist() == [0, 1, 2]
  assert tracemalloc.get_traced_memory()[1] < 2**20
  tracemalloc.stop()
  with pytest.raises(InputError, match="unpacks to 2684.*too many"):
    _npz(path, "b")


def _with_size(path, size):
  """Changes the size that an archive of one member gives for it."""
  with zipfile.ZipFile(path) as archive:
    (member,) = archive.infolist()
  content = bytearray(path.read_bytes())
  old, new = (n.to_bytes(4, "little") for n in (member.file_size, size))
  for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
    place = content.index(signature) + offset
    if content[place : place + 4] == old:
      content[place : place + 4] = new
  path.write_bytes(content)


@pytest.mark.parametrize("num_real", [10, 2**25])
@pytest.mark.parametrize("num_said", [100, 2**26])
def test_a_member_whose_size_lies_is_refused_in_little_memory(
    num_real, num_said, tmp_path
):
  path = tmp_path / "a.npz"
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    with archive.open("a.npy", "w") as member:
      shape = {"descr": "|u1", "fortran_order": False, "shape": (num_said,)}
      np.lib.format.write_array_header_1_0(member, shape)
      member.write(bytes(num_real))
  with zipfile.ZipFile(path) as archive:
    start = archive.getinfo("a.npy").file_size - num_real
  _with_size(path, start + num_said)
  tracemalloc.start()
  with pytest.raises(InputError, match="a.npz: must be an array"):
    _npz(path)
  # What it says and a few blocks, never what is in it.
  blocks = 3 * min(num_said, 2**24) + 2**20
  assert tracemalloc.get_traced_memory()[1] < num_said + blocks
  tracemalloc.stop()


def _header(path, descr, shape, content=b""):
  with open(path, "wb") as file:
    np.lib.format.write_array_header_1_0(
        file, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    file.write(content)


@pytest.mark.parametrize(
    ("descr", "shape", "content"),
    [
        ("<f4", (10**12,), b""),
        ("<f4", (10**12, 0), b""),
        ("<U0", (10**12,), b""),
        ("<f4", (-1,), b"abcd"),
        ("<f4", (-1, -1), b"abcd"),
        ("<f4", (1,), b"abcde"),
        ("<f4", (2,), b"abcd"),
        ("|O", (1,), b"abcdefgh"),
        ([("a", "<f4")], (1,), b"abcd"),
        ("<M8[s]", (1,), b"abcdefgh"),
        ("<U1", (1,), b"\x00\xd8\x00\x00"),
        ("<U1", (1,), b"\x00\x00\x11\x00"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(descr, shape, content, tmp_path):
  path = tmp_path / "a.npy"
  _header(path, descr, shape, content)
  with pytest.raises(InputError, match="a.npy: must be an array"):
    array_files.read_npy(path, **_WORDS)
  with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
    archive.write(path, "a.npy")
  with pytest.raises(InputError, match="a.npz: must be an array"):
    _npz(tmp_path / "a.npz")


def test_a_name_that_is_no_text_is_told_by_its_place(tmp_path):
  np.save(tmp_path / "a.npy", np.array(["ab", "c\ud800"]))
  with pytest.raises(InputError, match=r"must be UTF-8, got U\+D800 in item 1"):
    array_files.read_npy(tmp_path / "a.npy", **_WORDS)


def test_every_flipped_byte_is_found_or_changes_nothing(tmp_path):
  path = tmp_path / "a.npz"
  expected = np.arange(40) ** 3
  np.savez_compressed(path, a=expected)
  whole = path.read_bytes()
  for place in range(len(whole)):
    path.write_bytes(
        whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :]
    )
    try:
      read = _npz(path)
    except InputError:
      continue
    np.testing.assert_array_equal(read, expected, strict=True)


@pytest.mark.parametrize("packing", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_packing_without_a_bound_is_refused(packing, tmp_path):
  np.save(tmp_path / "a.npy", np.arange(3))
  with zipfile.ZipFile(tmp_path / "a.npz", "w", packing) as archive:
    archive.write(tmp_path / "a.npy", "a.npy")
  with pytest.raises(InputError, match="packed by an unknown method"):
    _npz(tmp_path / "a.npz")


def test_a_pipe_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / "a.npz")
  with pytest.raises(InputError, match="it is no file"):
    _npz(tmp_path / "a.npz")


def test_what_packs_too_well_is_written_as_it_is(tmp_path, monkeypatch):
  monkeypatch.setattr(array_files, "_MOST_BYTES", 2**16)
  arrays = {"a": np.zeros(10**6, np.uint8), "b": np.arange(3)}
  with open(tmp_path / "a.npz", "wb") as file:
    array_files.write_npz(file, arrays)
  for name, values in arrays.items():
    np.testing.assert_array_equal(_npz(tmp_path / "a.npz", name), values)
