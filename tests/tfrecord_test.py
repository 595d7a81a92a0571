"""TFRecord files: what is read is what was written, whatever happened to it."""

import gzip
import itertools
import struct

import grain
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain_jax.data import tfrecord
from chain_jax.errors import InputError

PAYLOADS = [b"first", b"", bytes(range(40)), b"\0" * 24, b"last one"]


def _crc32c(data):
  """CRC32C bit by bit: polynomial 0x1EDC6F41, reflected (RFC 3720, 12.1)."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc ^= byte
    for _ in range(8):
      crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
  return crc ^ 0xFFFFFFFF


def _record(payload, *, length=None):
  def checksum(data):
    crc = _crc32c(data)
    rotated = (crc >> 15) | (crc << 17) & 0xFFFFFFFF
    return struct.pack("<I", (rotated + 0xA282EAD8) % 2**32)

  header = struct.pack("<Q", len(payload) if length is None else length)
  return header + checksum(header) + payload + checksum(payload)


FILE = b"".join(_record(payload) for payload in PAYLOADS)
# Where each record starts, and where the last ends.
STARTS = np.cumsum([0] + [len(payload) + 16 for payload in PAYLOADS])


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  return tmp_path_factory.mktemp("tfrecord") / "a.tfrecord"


def _read(file, data):
  """Payloads and bad records of a file with these bytes."""
  file.write_bytes(data)
  found = list(tfrecord.read_records(file))
  offsets = [one.offset for one in found]
  assert offsets == sorted(set(offsets))
  good = [one for one in found if isinstance(one, tfrecord.Record)]
  for record in good:
    assert data[record.offset + 12 :].startswith(record.payload)
  return (
      [bytes(record.payload) for record in good],
      [one for one in found if isinstance(one, tfrecord.BadRecord)],
  )


def _without(index):
  return PAYLOADS[:index] + PAYLOADS[index + 1 :]


def _record_of(byte):
  return int(np.searchsorted(STARTS, byte, side="right")) - 1


def test_the_slow_checksum_is_crc32c():
  # The check value of the catalogue, and RFC 3720, B.4.
  assert _crc32c(b"123456789") == 0xE3069283
  assert _crc32c(bytes(32)) == 0x8A9136AA


def test_a_written_file_is_laid_out_as_the_format_says(file):
  tfrecord.write_records(file, PAYLOADS)
  assert file.read_bytes() == FILE
  assert _read(file, FILE) == (PAYLOADS, [])


def test_another_reader_reads_what_is_written(file):
  tfrecord.write_records(file, PAYLOADS)
  assert list(grain.experimental.TFRecordIterDataset(str(file))) == PAYLOADS


def test_a_write_that_fails_leaves_no_file(tmp_path):
  def payloads():
    yield b"first"
    raise RuntimeError

  with pytest.raises(RuntimeError):
    tfrecord.write_records(tmp_path / "a.tfrecord", payloads())
  assert not list(tmp_path.iterdir())


# A search that takes 16 bytes at a time meets headers on every boundary.
@pytest.mark.parametrize("search_bytes", [16, 2**20])
def test_a_flipped_bit_anywhere_loses_its_record_and_is_named_once(
    file, search_bytes, monkeypatch
):
  monkeypatch.setattr(tfrecord, "_SEARCH_BYTES", search_bytes)
  for byte, bit in itertools.product(range(len(FILE)), (0, 3, 7)):
    damaged = bytearray(FILE)
    damaged[byte] ^= 1 << bit
    index = _record_of(byte)
    payloads, bad = _read(file, bytes(damaged))
    assert payloads == _without(index), (byte, bit)
    assert [one.offset for one in bad] == [STARTS[index]]


def test_the_reason_says_what_is_damaged_and_where_reading_goes_on(file):
  def damaged(byte):
    data = bytearray(FILE)
    data[byte] ^= 1
    (bad,) = _read(file, bytes(data))[1]
    return bad.reason

  end = STARTS[3]
  behind = f"does not hold; reading goes on at byte {end}"
  for byte in (STARTS[2], STARTS[2] + 11):
    assert damaged(byte) == f"the checksum of its length {behind}"
  for byte in (STARTS[2] + 12, end - 1):
    assert damaged(byte) == f"the checksum of its payload {behind}"
  assert damaged(len(FILE) - 1).endswith("; no record can be read after it")


@pytest.mark.parametrize("change", ["insert", "remove"])
def test_a_byte_too_many_or_too_few_loses_at_most_its_record(file, change):
  for byte in range(len(FILE)):
    if change == "insert":
      data = FILE[:byte] + b"\x55" + FILE[byte:]
      # A byte between two records is part of neither.
      between = byte in STARTS
    else:
      data, between = FILE[:byte] + FILE[byte + 1 :], False
    payloads, bad = _read(file, data)
    wanted = PAYLOADS if between else _without(_record_of(byte))
    assert (payloads, len(bad)) == (wanted, 1), byte


def test_a_file_cut_anywhere_gives_the_whole_records_before_the_cut(file):
  for size in range(1, len(FILE)):
    payloads, bad = _read(file, FILE[:size])
    index = _record_of(size)
    assert payloads == PAYLOADS[:index]
    if size in STARTS:
      assert not bad
    elif size > 12:  # Before, it could be the start of anything.
      assert len(bad) == 1 and bad[0].offset == STARTS[index]
      assert bad[0].reason.startswith(f"the file ends {size - STARTS[index]} ")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"id,label\nabcd,3\n" * 50, "not a TFRecord file"),
        (b"short", "not a TFRecord file"),
        (gzip.compress(FILE), "not a TFRecord file, but a gzip file"),
        (bytes(2**21), "not a TFRecord file"),
    ],
    ids=["empty", "text", "short", "gzip", "zeros"],
)
def test_a_file_that_is_none_is_one_bad_record(file, data, reason):
  assert _read(file, data) == ([], [tfrecord.BadRecord(0, reason)])


def test_zeros_behind_the_records_are_one_bad_record(file):
  payloads, (bad,) = _read(file, FILE + bytes(2**21))
  assert payloads == PAYLOADS and bad.offset == len(FILE)


@pytest.mark.parametrize("what", ["folder", "missing"])
def test_what_is_no_file_is_refused_before_reading(tmp_path, what):
  path = tmp_path if what == "folder" else tmp_path / "b.tfrecord"
  with pytest.raises(InputError, match=f"{path}: must be a TFRecord file"):
    tfrecord.read_records(path)


def test_a_record_over_the_limit_is_skipped(file):
  file.write_bytes(FILE)
  found = list(tfrecord.read_records(file, max_payload_bytes=39))
  assert [isinstance(one, tfrecord.Record) for one in found] == [
      True,
      True,
      False,
      True,
      True,
  ]
  assert "40 bytes is over the limit of 39" in found[2].reason


@pytest.mark.parametrize("length", [2**32 - 1, 2**63, 2**64 - 1])
def test_a_sound_header_of_an_impossible_length_loses_one_record(file, length):
  data = FILE + _record(b"liar", length=length) + _record(b"end")
  payloads, (bad,) = _read(file, data)
  assert payloads == [*PAYLOADS, b"end"] and bad.offset == len(FILE)


def test_a_file_full_of_false_headers_is_read_in_linear_time(file, monkeypatch):
  # Each promises a payload up to the end of the file: 600 times half of it.
  num_headers = 600
  headers = [
      _record(b"", length=12 * (num_headers - i))[:12]
      for i in range(num_headers)
  ]
  data = b"x" + b"".join(headers) + bytes(64)
  checked, checksum = [], tfrecord._masked_crc

  def counted(piece):
    checked.append(len(piece))
    return checksum(piece)

  monkeypatch.setattr(tfrecord, "_masked_crc", counted)
  payloads, bad = _read(file, data)
  assert (payloads, len(bad)) == ([], 1)
  # Wasted at most 4 times the file, each header read once more.
  assert sum(checked) < 6 * len(data)


_EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "copy"]),
        st.integers(0, 10**6),
        st.integers(0, 80),
        st.binary(max_size=20),
    ),
    max_size=6,
)


def _edited(data, edits):
  for kind, place, size, new in edits:
    place %= len(data) + 1
    before, piece = data[:place], data[place : place + size]
    after = data[place + size :]
    if kind == "flip" and after:
      data = before + piece + bytes([after[0] ^ 1 << size % 8]) + after[1:]
    elif kind == "cut":
      data = before + after
    elif kind == "insert":
      data = before + new + piece + after
    elif kind == "copy":
      data = before + piece + piece + after
  return data


@settings(max_examples=400, deadline=None, database=None, derandomize=True)
@given(payloads=st.lists(st.binary(max_size=60), max_size=8), edits=_EDITS)
def test_records_read_from_a_damaged_file_were_written(file, payloads, edits):
  tfrecord.write_records(file, payloads)
  data = _edited(file.read_bytes(), edits)
  found, bad = _read(file, data)
  assert set(found) <= set(payloads)
  # Nothing goes missing in silence.
  num_bytes = sum(len(payload) + 16 for payload in found)
  assert bad or (num_bytes == len(data) and data)
