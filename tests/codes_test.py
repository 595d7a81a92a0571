import json
import os
import pathlib
import threading
import tracemalloc

import full_disk
import numpy as np
import pytest

from chain_jax import codes
from chain_jax.errors import InputError, RunError
from chain_jax.labels import Labels


def _write(path, *, num_videos=3, labels=True, **manifest):
  rng = np.random.default_rng(num_videos)
  packed = rng.integers(0, 256, (num_videos, 2), dtype=np.uint8)
  classes = np.arange(num_videos) % 2
  codes.write_code_directory(
      path,
      packed=packed,
      ids=np.array([f"video {i}" for i in range(num_videos)]),
      labels=Labels.from_classes(classes, num_classes=2) if labels else None,
      manifest=manifest,
  )
  return packed


def test_zero_of_either_sign_becomes_plus_one():
  logits = np.array([[1e-30, 0.0, -0.0, -1e-30]], np.float32)
  expected = np.array([[1, 1, 1, -1]], np.int8)
  np.testing.assert_array_equal(codes.binarise(logits), expected, strict=True)


def test_nan_has_no_sign():
  with pytest.raises(ValueError, match="NaN"):
    codes.binarise(np.array([[np.nan]]))


def test_first_bit_is_highest():
  signs = -np.ones((3, 16), np.int8)
  signs[0, 0] = 1  # 1000_0000 0000_0000
  signs[1, 7] = 1  # 0000_0001 0000_0000
  signs[2, [8, 15]] = 1  # 0000_0000 1000_0001
  expected = np.array([[128, 0], [1, 0], [0, 129]], np.uint8)
  np.testing.assert_array_equal(codes.pack_bits(signs), expected, strict=True)


@pytest.mark.parametrize("num_bits", [8, 16, 24, 64, 1024])
def test_packing_equals_packbits_and_comes_back(num_bits):
  rng = np.random.default_rng(num_bits)
  signs = rng.choice(np.array([-1, 1], np.int8), (5, num_bits))
  packed = codes.pack_bits(signs)
  expected = np.packbits(signs == 1, axis=1)
  np.testing.assert_array_equal(packed, expected, strict=True)
  np.testing.assert_array_equal(codes.unpack_bits(packed), signs, strict=True)


def test_bits_that_fill_no_byte_are_refused():
  with pytest.raises(InputError, match="multiple of 8, got 12; try 16"):
    codes.pack_bits(np.ones((2, 12), np.int8))


def test_bits_in_place_of_signs_are_refused():
  with pytest.raises(ValueError, match="`codes` must be \\+1 or -1"):
    codes.pack_bits(np.zeros((2, 8), np.int8))


@pytest.mark.parametrize("labels", [True, False])
def test_directory_comes_back_as_written(tmp_path, labels):
  packed = _write(
      tmp_path / "query", labels=labels, step=7, config="quickstart"
  )
  read = codes.read_code_directory(tmp_path / "query")
  np.testing.assert_array_equal(read.packed, packed, strict=True)
  assert read.ids.tolist() == ["video 0", "video 1", "video 2"]
  assert read.ids.dtype == np.dtype("<U7")
  if labels:
    assert [read.labels.of(i).tolist() for i in range(3)] == [[0], [1], [0]]
    assert read.labels.num_classes == 2
  else:
    assert read.labels is None
  manifest = read.manifest
  assert (manifest["step"], manifest["config"]) == (7, "quickstart")
  assert (manifest["format_version"], manifest["num_bits"]) == (1, 16)
  assert manifest["count"] == 3
  assert "numpy" in manifest["package_versions"]


def test_no_file_holds_a_pickle(tmp_path):
  _write(tmp_path / "query")
  names = {file.name for file in (tmp_path / "query").iterdir()}
  assert names == {"codes.npy", "ids.npy", "labels.npz", "manifest.json"}
  for name in names - {"manifest.json"}:
    np.load(tmp_path / "query" / name, allow_pickle=False)


def test_object_ids_are_stored_as_text(tmp_path):
  codes.write_code_directory(
      tmp_path / "query",
      packed=np.zeros((2, 1), np.uint8),
      ids=np.array(["a", "länger"], dtype=object),
      labels=None,
      manifest={},
  )
  read = codes.read_code_directory(tmp_path / "query")
  assert read.ids.tolist() == ["a", "länger"]


def test_existing_directory_is_replaced_without_leftovers(tmp_path):
  _write(tmp_path / "query", num_videos=3)
  _write(tmp_path / "query", num_videos=5, labels=False)
  assert len(codes.read_code_directory(tmp_path / "query").ids) == 5
  assert [path.name for path in tmp_path.iterdir()] == ["query"]
  assert not (tmp_path / "query" / "labels.npz").exists()


def test_something_else_is_never_replaced(tmp_path):
  (tmp_path / "thesis.tex").write_text("years of work")
  with pytest.raises(InputError, match="choose another path"):
    _write(tmp_path)
  assert (tmp_path / "thesis.tex").exists()


def test_failed_write_leaves_the_old_directory(tmp_path, monkeypatch):
  packed = _write(tmp_path / "query")

  def full_disk(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "fsync", full_disk)
  with pytest.raises(RunError, match="query: could not be written .*No space"):
    _write(tmp_path / "query", num_videos=9)
  monkeypatch.undo()
  read = codes.read_code_directory(tmp_path / "query")
  np.testing.assert_array_equal(read.packed, packed, strict=True)
  assert [path.name for path in tmp_path.iterdir()] == ["query"]


def test_a_full_disk_is_named_and_the_old_codes_stay(small_disk):
  packed = _write(small_disk / "query")
  full_disk.fill(small_disk, leaving=4096)
  with pytest.raises(RunError, match=f"^{small_disk}/query: could not be"):
    _write(small_disk / "query", num_videos=9000)
  read = codes.read_code_directory(small_disk / "query")
  np.testing.assert_array_equal(read.packed, packed, strict=True)
  assert sorted(os.listdir(small_disk)) == ["filler", "query"]


def test_leftovers_of_a_killed_writer_do_no_harm(tmp_path):
  for name in (".query.partial", ".query.previous"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "codes.npy").write_bytes(b"half")
  _write(tmp_path / "query")
  codes.read_code_directory(tmp_path / "query")
  assert [path.name for path in tmp_path.iterdir()] == ["query"]


def test_reader_beside_a_writer_sees_whole_directories_only(tmp_path):
  sizes = (2, 50)
  _write(tmp_path / "query", num_videos=2)

  def write_often():
    for turn in range(30):
      _write(tmp_path / "query", num_videos=sizes[turn % 2])

  writer = threading.Thread(target=write_often)
  writer.start()
  num_read = 0
  while writer.is_alive():
    try:
      read = codes.read_code_directory(tmp_path / "query")
    except InputError:  # Swapped while being read: refused, never mixed.
      continue
    num_read += 1
    expected = np.random.default_rng(len(read.ids)).integers(
        0, 256, (len(read.ids), 2), dtype=np.uint8
    )
    np.testing.assert_array_equal(read.packed, expected, strict=True)
  writer.join()
  assert num_read > 0


def _truncate(file: pathlib.Path):
  file.write_bytes(file.read_bytes()[:-1])


def _flip(file: pathlib.Path):
  content = bytearray(file.read_bytes())
  content[-1] ^= 1
  file.write_bytes(content)


@pytest.mark.parametrize("damage", [pathlib.Path.unlink, _truncate, _flip])
@pytest.mark.parametrize("name", ["codes.npy", "ids.npy", "labels.npz"])
def test_damaged_file_is_named_in_one_line(tmp_path, name, damage):
  _write(tmp_path / "query")
  damage(tmp_path / "query" / name)
  with pytest.raises(InputError, match=name) as caught:
    codes.read_code_directory(tmp_path / "query")
  assert "\n" not in str(caught.value)


def _edit_manifest(path, **fields):
  file = path / "manifest.json"
  manifest = json.loads(file.read_text())
  manifest.update(fields)
  file.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format_version": 2}, "`format_version` must be 1, got 2"),
        ({"bit_order": "little"}, "`bit_order` must be"),
        ({"num_bits": 12}, "`num_bits` must be a positive multiple of 8"),
        ({"num_bits": 24}, r"must be uint8 \[3, 3\]"),
        ({"count": 4}, r"must be uint8 \[4, 2\]"),
        ({"checksum": "0" * 64}, "codes.npy: must match the checksum"),
        ({"checksums": 3}, "`checksums` must be an object"),
    ],
)
def test_manifest_that_contradicts_is_refused(tmp_path, fields, message):
  _write(tmp_path / "query")
  _edit_manifest(tmp_path / "query", **fields)
  with pytest.raises(InputError, match=message):
    codes.read_code_directory(tmp_path / "query")


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_manifest_that_is_no_object_is_refused(tmp_path, text):
  _write(tmp_path / "query")
  (tmp_path / "query" / "manifest.json").write_bytes(text.encode("latin-1"))
  with pytest.raises(InputError, match="manifest.json: must be"):
    codes.read_code_directory(tmp_path / "query")


def test_missing_directory_is_named(tmp_path):
  with pytest.raises(InputError, match="nowhere: must be a code directory"):
    codes.read_code_directory(tmp_path / "nowhere")


def _by_hand(path, *, ids=None, labels=None):
  """A directory without `checksums`, as someone may make by hand."""
  _write(path)
  _edit_manifest(path, checksums={})
  if ids is not None:
    np.save(path / "ids.npy", ids)
  if labels is not None:
    np.savez(path / "labels.npz", **labels)


@pytest.mark.parametrize(
    ("indptr", "indices", "message"),
    [
        ([0, 1, 2, 3], [0, 1, 5], "must be in 0 to 1, got 5"),
        ([0, 1, 2, 3], [0, -1, 1], "must be in 0 to 1, got -1"),
        ([0, 2, 1, 3], [0, 1, 1], "must rise from 0"),
        ([0, 1, 2, 4], [0, 1, 1], "must rise from 0"),
        ([0, 0, 0, 2], [1, 1], "must rise and each stand once"),
        ([0, 1, 3, 3], [0, 1, 0], "must rise and each stand once"),
        ([0, 1, 2], [0, 1], "one length"),
        ([0.5, 1, 2, 3], [0, 1, 1], "must be integers"),
        ([[0, 3]], [0, 1, 1], "must be integers"),
    ],
)
def test_impossible_labels_are_refused(tmp_path, indptr, indices, message):
  labels = {"indptr": indptr, "indices": indices, "num_classes": 2}
  _by_hand(tmp_path / "query", labels=labels)
  with pytest.raises(InputError, match=message):
    codes.read_code_directory(tmp_path / "query")


def test_labels_without_a_field_are_refused(tmp_path):
  _by_hand(tmp_path / "query", labels={"indptr": [0, 1, 2, 3]})
  with pytest.raises(InputError, match="labels.npz: must be integers"):
    codes.read_code_directory(tmp_path / "query")


def test_pickled_ids_are_never_loaded(tmp_path):
  _by_hand(tmp_path / "query", ids=np.array(["a", "b", "c"], dtype=object))
  with pytest.raises(InputError, match="ids.npy: .*it holds object"):
    codes.read_code_directory(tmp_path / "query")


@pytest.mark.parametrize(
    ("ids", "message"),
    [(np.arange(3), "must be Unicode"), (np.array(["a", "b"]), "one length")],
)
def test_ids_of_the_wrong_kind_are_refused(tmp_path, ids, message):
  _by_hand(tmp_path / "query", ids=ids)
  with pytest.raises(InputError, match=message):
    codes.read_code_directory(tmp_path / "query")


def test_lengths_that_differ_are_not_written(tmp_path):
  with pytest.raises(InputError, match="one length"):
    codes.write_code_directory(
        tmp_path / "query",
        packed=np.zeros((3, 1), np.uint8),
        ids=np.array(["a", "b"]),
        labels=None,
        manifest={},
    )
  assert not (tmp_path / "query").exists()


def test_empty_split_comes_back(tmp_path):
  _write(tmp_path / "query", num_videos=0, labels=False)
  assert codes.read_code_directory(tmp_path / "query").packed.shape == (0, 2)


def test_a_damaged_byte_without_a_checksum_is_one_line(tmp_path):
  _by_hand(tmp_path / "query")
  path = tmp_path / "query" / "labels.npz"
  whole = path.read_bytes()
  num_refused = 0
  for place in range(0, len(whole), 3):
    path.write_bytes(
        whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]
    )
    try:
      codes.read_code_directory(tmp_path / "query")
    except InputError as error:
      assert "labels.npz" in str(error)
      num_refused += 1
  assert num_refused > 20


def test_labels_beside_something_huge_are_read_alone(tmp_path):
  _by_hand(tmp_path / "query")
  with np.load(tmp_path / "query" / "labels.npz") as file:
    labels = dict(file)
  np.savez_compressed(
      tmp_path / "query" / "labels.npz",
      **labels,
      unused=np.zeros(2**28 + 1, np.uint8),
  )
  tracemalloc.start()
  read = codes.read_code_directory(tmp_path / "query")
  assert tracemalloc.get_traced_memory()[1] < 2**22
  tracemalloc.stop()
  np.testing.assert_array_equal(read.labels.indices, labels["indices"])


def test_so_many_classes_that_counting_them_fails_are_refused(tmp_path):
  labels = {"indptr": [0, 1, 2, 3], "indices": [0, 1, 1], "num_classes": 2**62}
  _by_hand(tmp_path / "query", labels=labels)
  with pytest.raises(
      InputError, match="`num_classes` must be in 0 to 16777216"
  ):
    codes.read_code_directory(tmp_path / "query")


@pytest.mark.parametrize("code", [0xD800, 0x110000])
def test_ids_that_cannot_be_printed_are_refused_by_name(code, tmp_path):
  ids = np.array(["a", "b", "c"])
  ids.view(np.uint32)[1] = code
  _by_hand(tmp_path / "query", ids=ids)
  with pytest.raises(InputError, match=rf"ids.npy: .* U\+{code:X} in item 1"):
    codes.read_code_directory(tmp_path / "query")


@pytest.mark.parametrize(
    "text", ["[" * 10**5, '{"a": ' * 500 + "1" + "}" * 500]
)
def test_a_deeply_nested_manifest_is_refused(text, tmp_path):
  _write(tmp_path / "query")
  (tmp_path / "query" / "manifest.json").write_text(text)
  with pytest.raises(InputError, match="manifest.json: must be"):
    codes.read_code_directory(tmp_path / "query")
