"""Features of one HDF5 file: what is read, by whom, and what is refused."""

import concurrent.futures
import multiprocessing
import os
import pickle

import h5py
import numpy as np
import pytest

from chain_jax.data import cached_source, pooling, sources
from chain_jax.data.hdf5_source import Hdf5Source
from chain_jax.errors import InputError
from chain_jax.labels import Labels

LAYOUTS = {
    "contiguous": {},
    "a chunk a video": {"chunks": (1, 3, 4), "compression": "gzip"},
    "chunks across videos": {"chunks": (4, 2, 3), "compression": "gzip"},
    "chunks by h5py": {"chunks": True, "shuffle": True},
}


def _features(shape=(7, 3, 4), dtype=np.float16):
  return np.random.default_rng(0).random(shape).astype(dtype)


def _write(path, features, *, key="feats", ids=None, **layout):
  with h5py.File(path, "w") as file:
    file.create_dataset(key, data=features, **layout)
    if ids is not None:
      file.create_dataset("ids", data=ids)
  return path


@pytest.fixture
def path(tmp_path):
  return _write(tmp_path / "a.h5", _features())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_each_row_is_the_video_in_the_dtype_of_the_file(
    tmp_path, layout, dtype
):
  features = _features(dtype=dtype)
  path = _write(tmp_path / "a.h5", features, **LAYOUTS[layout])
  source = Hdf5Source(path, labels=None)
  assert (len(source), source.feature_dim) == (7, 4)
  for row in (6, 0, 3, 3):
    np.testing.assert_array_equal(
        source.read_frames(row), features[row], strict=True
    )
  np.testing.assert_array_equal(
      source.read_block(2, 5), features[2:5], strict=True
  )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_cache_holds_the_file(tmp_path, layout, monkeypatch):
  # Blocks of 100 bytes: several in this small file, the last one shorter.
  monkeypatch.setattr("chain_jax.data.hdf5_source._BLOCK_BYTES", 100)
  features = _features()
  path = _write(tmp_path / "a.h5", features, **LAYOUTS[layout])
  cached = cached_source.CachedSource(Hdf5Source(path, labels=None))
  actual = np.stack([cached.read_frames(row) for row in range(7)])
  np.testing.assert_array_equal(actual, features, strict=True)


def test_stored_variants_come_along_and_the_first_is_pooled(tmp_path):
  features = _features((5, 3, 2, 4), np.float32)
  source = Hdf5Source(_write(tmp_path / "a.h5", features), labels=None)
  assert source.read_frames(1).shape == (3, 2, 4)
  np.testing.assert_allclose(
      pooling.pooled_features(source, l2_normalise=False),
      features[:, :, 0].mean(axis=1),
      rtol=1e-6,  # Sums of 3 float32.
      strict=True,
  )


def test_blocks_hold_whole_chunks_so_that_none_is_unpacked_twice(tmp_path):
  features = _features((40, 3, 4), np.float32)  # 48 bytes a video.
  path = _write(tmp_path / "a.h5", features, chunks=(8, 1, 4))
  source = Hdf5Source(path, labels=None)
  assert source.rows_per_block % 8 == 0


@pytest.mark.parametrize("row", [-1, 7])
def test_a_row_that_is_not_there_is_refused(path, row):
  with pytest.raises(IndexError, match="of 7"):
    Hdf5Source(path, labels=None).read_frames(row)


def test_ids_are_those_of_the_file(tmp_path):
  ids = np.array([f"v_{row}".encode() for row in range(7)])
  path = _write(tmp_path / "a.h5", _features(), ids=ids)
  source = Hdf5Source(path, labels=None)
  assert source.ids.tolist() == [f"v_{row}" for row in range(7)]
  assert source.ids.dtype.kind == "U"


def test_ids_may_be_strings_of_any_length(tmp_path):
  ids = ["é" * row + str(row) for row in range(7)]
  path = _write(tmp_path / "a.h5", _features(), ids=ids)
  assert Hdf5Source(path, labels=None).ids.tolist() == ids


def test_ids_are_stem_and_row_where_the_file_has_none(path):
  assert Hdf5Source(path, labels=None).ids[[0, 6]].tolist() == [
      "a-000000",
      "a-000006",
  ]


def test_threads_read_what_one_thread_reads(path):
  source = Hdf5Source(path, labels=None)
  rows = np.random.default_rng(0).integers(7, size=400).tolist()
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    actual = list(pool.map(source.read_frames, rows))
  np.testing.assert_array_equal(np.stack(actual), _features()[rows])


def test_a_pickled_source_reads_the_same(path):
  source = Hdf5Source(path, labels=None)
  source.read_frames(0)  # The file is open now.
  copy = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(
      copy.read_frames(2), _features()[2], strict=True
  )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
# Python 3.12 and jax warn of forking with threads; the child here only reads.
@pytest.mark.filterwarnings("ignore:.*fork.*")
@pytest.mark.parametrize("chunks", [None, (1, 3, 4)])
def test_a_forked_process_reads_the_same_from_a_handle_of_its_own(
    tmp_path, chunks
):
  path = _write(tmp_path / "a.h5", _features(), chunks=chunks)
  source = Hdf5Source(path, labels=None)
  source.read_frames(0)
  source._lock.acquire()  # As if a thread was opening the file at the fork.
  context = multiprocessing.get_context("fork")
  ours, theirs = context.Pipe()

  def read():
    theirs.send((source.read_frames(5), source._process == os.getpid()))

  child = context.Process(target=read, daemon=True)
  child.start()
  assert ours.poll(20), "the forked process did not answer"
  frames, has_own_handle = ours.recv()
  child.join()
  np.testing.assert_array_equal(frames, _features()[5], strict=True)
  # A map of the file, which data in one piece get, serves both processes.
  assert has_own_handle or chunks is None


def _refused(path, match, labels=None):
  with pytest.raises(InputError, match=match) as caught:
    Hdf5Source(path, labels=labels)
  assert str(path) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
  _refused(tmp_path / "a.h5", "must be a file, got none")


def test_a_wrong_key_is_refused_with_the_keys_that_are_there(tmp_path):
  path = _write(tmp_path / "a.h5", _features(), key="features", ids=[b"x"])
  _refused(path, "dataset 'feats', got features, ids;")


def test_a_group_in_place_of_the_dataset_is_refused(tmp_path):
  with h5py.File(tmp_path / "a.h5", "w") as file:
    file.create_group("feats")
  _refused(tmp_path / "a.h5", "dataset 'feats', got feats;")


def test_a_truncated_file_is_refused(path):
  os.truncate(path, os.path.getsize(path) - 100)
  _refused(path, r"whole HDF5 file, .*\(.*truncated.*\); copy it again")


@pytest.mark.parametrize("content", [b"", b"not an HDF5 file" * 100])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
  (tmp_path / "a.h5").write_bytes(content)
  _refused(tmp_path / "a.h5", "must be a whole HDF5 file, could not")


@pytest.mark.parametrize(
    ("features", "got"),
    [
        (np.ones((7, 4), np.float32), r"got float32 of shape \[7, 4\]"),
        (np.ones((1, 1, 1, 1, 1), np.float32), r"shape \[1, 1, 1, 1, 1\]"),
        (np.ones((7, 3, 4), np.int64), r"got int64 of shape \[7, 3, 4\]"),
        (np.float32(1), r"got float32 of shape \[\]"),
    ],
)
def test_another_rank_or_dtype_is_refused(tmp_path, features, got):
  _refused(_write(tmp_path / "a.h5", features), f"float16 or float32.*{got}")


@pytest.mark.parametrize("shape", [(0, 3, 4), (7, 0, 4), (7, 3, 0)])
def test_an_empty_dataset_is_refused(tmp_path, shape):
  path = _write(tmp_path / "a.h5", np.ones(shape, np.float32))
  _refused(path, r"at least one video.*got shape \[")


def test_labels_of_another_length_are_refused(path):
  labels = Labels.from_classes(np.array([0, 1]), num_classes=2)
  _refused(path, "got 7 videos and 2 rows of labels", labels=labels)


@pytest.mark.parametrize(
    ("ids", "match"),
    [
        ([b"a", b"b", b"c", b"d", b"b", b"e", b"f"], "got 'b' in rows 1 and 4"),
        ([b"a", b"b"], r"each of the 7 videos, got shape \[2\]"),
        (b"a", r"each of the 7 videos, got shape \[\]"),
        ([b"a", b"\xff", b"c", b"d", b"g", b"e", b"f"], r"UTF-8, got b'\\xff'"),
    ],
)
def test_ids_that_do_not_name_the_videos_are_refused(tmp_path, ids, match):
  _refused(_write(tmp_path / "a.h5", _features(), ids=ids), match)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_refused_when_it_is_read(tmp_path, bad):
  features = _features()
  features[4, 1, 2] = bad
  path = _write(tmp_path / "a.h5", features)
  source = Hdf5Source(path, labels=None)
  source.read_frames(3)
  for read in (
      lambda: source.read_frames(4),
      lambda: cached_source.CachedSource(source),
      lambda: pooling.pooled_features(source),
  ):
    with pytest.raises(InputError, match=r"a\.h5, row 4: .*in frame 1"):
      read()


def test_damaged_data_are_refused_when_they_are_read(tmp_path):
  path = _write(
      tmp_path / "a.h5", _features(), chunks=(1, 3, 4), compression="gzip"
  )
  with h5py.File(path) as file:
    chunk = file["feats"].id.get_chunk_info(2)
  with open(path, "r+b") as file:
    file.seek(chunk.byte_offset)
    file.write(bytes(chunk.size))
  source = Hdf5Source(path, labels=None)
  source.read_frames(1)
  with pytest.raises(InputError, match=r"a\.h5: rows 2 \.\. 2: .*undamaged"):
    source.read_frames(2)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(7, 3, 4), (7, 3, 2, 4)])
def test_gathered_frames_are_those_of_the_file(tmp_path, layout, shape):
  settings = LAYOUTS[layout]
  if len(shape) == 4 and isinstance(settings.get("chunks"), tuple):
    settings = settings | {"chunks": True}
  features = _features(shape)
  source = Hdf5Source(
      _write(tmp_path / "a.h5", features, **settings), labels=None
  )
  rng = np.random.default_rng(0)
  videos = np.array([6, 0, 6, 2])
  indices = rng.integers(3, size=(4, 2, 5)).astype(np.int32)
  expected = features[videos[:, None, None], indices]
  variants = None
  if len(shape) == 4:
    variants = rng.integers(2, size=(4, 2)).astype(np.int32)
    expected = np.take_along_axis(
        expected, variants[:, :, None, None, None], axis=3
    )[:, :, :, 0]
  np.testing.assert_array_equal(
      sources.gather_frames(source, videos, indices, variants),
      expected,
      strict=True,
  )


@pytest.mark.parametrize("layout", ["contiguous", "a chunk a video"])
def test_a_gather_refuses_a_value_that_is_not_finite(tmp_path, layout):
  features = _features()
  features[4, 1, 2] = np.nan
  path = _write(tmp_path / "a.h5", features, **LAYOUTS[layout])
  source = Hdf5Source(path, labels=None)
  indices = np.ones((2, 1, 3), np.int32)
  source.gather(np.array([3, 5]), indices, None)
  for _ in range(2):  # A video that failed is not taken for checked.
    with pytest.raises(InputError, match=r"a\.h5, row 4: .*in frame 1"):
      source.gather(np.array([3, 4]), indices, None)
