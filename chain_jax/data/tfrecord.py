"""TFRecord files: read with their checksums, past damage; and written.

A record is the payload's length (uint64), the masked CRC32C of these 8 bytes,
the payload, and the masked CRC32C of the payload, all little-endian
(TensorFlow, core/lib/io/record_writer.h). Nothing else marks where a record
starts, so a damaged length loses the place: reading then goes on at the next
header whose own checksum and whose payload's checksum both hold. A payload that
holds TFRecord bytes itself can so be taken apart, but only behind damage.
"""

import functools
import os
import pathlib
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import crc32c
import numpy as np
from jaxtyping import Int64, UInt8, UInt32

from chain_jax import whole_files
from chain_jax.errors import InputError

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_OVERHEAD = _HEADER.size + _CHECKSUM.size
_MASK_DELTA = 0xA282EAD8  # TensorFlow, core/lib/hash/crc32c.h.
_MAX_PAYLOAD_BYTES = 64 * 2**20
_SEARCH_BYTES = 2**20  # Searched for a header at a time.
# A file can be made so that false headers cost a whole payload each. Payloads
# of one file whose checksum fails may add up to this many times the file; by
# chance they add up to twice at most.
_MAX_WASTE = 4


class Record(NamedTuple):
  """One record whose checksums hold; `offset` is its first byte in the file."""

  offset: int
  payload: memoryview


class BadRecord(NamedTuple):
  """One damaged stretch of a file that starts at byte `offset`, and why."""

  offset: int
  reason: str


def write_records(
    path: str | os.PathLike, payloads: Iterable[bytes | memoryview]
) -> None:
  """Writes a TFRecord file; it appears under its name when it is complete.

  Args:
    path: Of the file; replaced if there is one. Its folder exists.
    payloads: Of the records, in order.
  """
  with whole_files.written_whole(pathlib.Path(path)) as partial:
    with open(partial, "wb") as file:
      for payload in payloads:
        length = struct.pack("<Q", len(payload))
        file.write(length + _CHECKSUM.pack(_masked_crc(length)))
        file.write(payload)
        file.write(_CHECKSUM.pack(_masked_crc(payload)))


def read_records(
    path: str | os.PathLike, *, max_payload_bytes: int = _MAX_PAYLOAD_BYTES
) -> Iterator[Record | BadRecord]:
  """Reads the records of a TFRecord file in order, one in memory at a time.

  A flipped bit costs the record that it is in and no other. Every damaged
  stretch, an empty file included, is one `BadRecord`.

  Args:
    path: Of an uncompressed file.
    max_payload_bytes: A longer record counts as bad.

  Returns:
    An iterator over what is there, by rising offset. It raises `OSError`
    where the disk fails.

  Raises:
    InputError: If `path` is not a file.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    got = "a folder" if path.is_dir() else "nothing that can be read there"
    raise InputError(
        f"{path}: must be a TFRecord file, got {got}; give the path of one"
        " shard."
    )
  return _read(path, max_payload_bytes)


def _read(
    path: pathlib.Path, max_payload_bytes: int
) -> Iterator[Record | BadRecord]:
  with open(path, "rb") as file:
    shard = _Shard(file, max_payload_bytes)
    if not shard.num_bytes:
      yield BadRecord(0, "the file is empty")
    offset = 0
    while offset < shard.num_bytes:
      length = shard.length_at(offset)
      payload = None if length is None else shard.payload_at(offset, length)
      if payload is not None:
        yield Record(offset, payload)
        offset += len(payload) + _OVERHEAD
        continue
      damaged, offset = offset, shard.next_after(offset, length)
      yield BadRecord(damaged, shard.describe(damaged, length, offset))


class _Shard:
  """One open file, and how much was spent on payloads that were none."""

  def __init__(self, file: BinaryIO, max_payload_bytes: int) -> None:
    self._file = file
    self._max_payload_bytes = max_payload_bytes
    self._wasted_bytes = 0
    self.num_bytes = os.fstat(file.fileno()).st_size

  def _bytes_at(self, offset: int, num_bytes: int) -> memoryview:
    self._file.seek(offset)
    return memoryview(self._file.read(num_bytes))

  def length_at(self, offset: int) -> int | None:
    """Returns the length of the payload, None without a sound header."""
    header = self._bytes_at(offset, _HEADER.size)
    if len(header) < _HEADER.size:
      return None
    length, checksum = _HEADER.unpack(header)
    return length if checksum == _masked_crc(header[:8]) else None

  def payload_at(self, offset: int, length: int) -> memoryview | None:
    """Returns the payload behind a sound header, None if it is not sound."""
    end = offset + length + _OVERHEAD
    if length > self._max_payload_bytes or end > self.num_bytes:
      return None
    body = self._bytes_at(offset + _HEADER.size, length + _CHECKSUM.size)
    payload = body[:length]
    if bytes(body[length:]) == _CHECKSUM.pack(_masked_crc(payload)):
      return payload
    self._wasted_bytes += length
    return None

  def next_after(self, offset: int, length: int | None) -> int:
    """Returns where reading goes on after the bad record at `offset`.

    Args:
      offset: Of the bad record.
      length: Of its payload, None where its header is not sound.

    Returns:
      An offset behind it; the size of the file if nothing more can be read.
    """
    if length is not None:
      end = offset + length + _OVERHEAD
      if end == self.num_bytes or (
          end < self.num_bytes and self.length_at(end) is not None
      ):
        return end
    for start in self._headers_from(offset + 1):
      if self._wasted_bytes > _MAX_WASTE * self.num_bytes:
        break
      found = self.length_at(start)
      if found is not None and self.payload_at(start, found) is not None:
        return start
    return self.num_bytes

  def _headers_from(self, start: int) -> Iterator[int]:
    """Yields all offsets, in order, at which a header can be."""
    while start + _OVERHEAD <= self.num_bytes:
      data = self._bytes_at(start, _SEARCH_BYTES + _HEADER.size - 1)
      if len(data) < _HEADER.size:
        return
      block = np.frombuffer(data, np.uint8)
      for place in _header_places(block):
        yield start + int(place)
      start += len(block) - _HEADER.size + 1

  def describe(self, offset: int, length: int | None, next_offset: int) -> str:
    """Says in one line what is wrong at `offset` and what comes next."""
    left = self.num_bytes - offset
    at_end = next_offset >= self.num_bytes
    if length is None and offset == 0 and at_end:
      gzip = self._bytes_at(0, 2) == b"\x1f\x8b"
      return "not a TFRecord file" + (", but a gzip file" if gzip else "")
    if length is None and left < _OVERHEAD:
      reason = f"the file ends {left} bytes into a record"
    elif length is None:
      reason = "the checksum of its length does not hold"
    elif length > self._max_payload_bytes:
      reason = (
          f"its payload of {length} bytes is over the limit of"
          f" {self._max_payload_bytes}"
      )
    elif length + _OVERHEAD > left:
      reason = f"the file ends {left} bytes into its {length + _OVERHEAD}"
    else:
      reason = "the checksum of its payload does not hold"
    if at_end:
      return f"{reason}; no record can be read after it"
    return f"{reason}; reading goes on at byte {next_offset}"


def _masked_crc(data: bytes | memoryview) -> int:
  crc = crc32c.crc32c(data)
  return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _header_places(block: UInt8[np.ndarray, "n"]) -> Int64[np.ndarray, "found"]:
  """Finds where 8 bytes are below 2^32 and followed by their checksum."""
  num_places = len(block) - _HEADER.size + 1
  zero = block == 0
  high = zero[4 : 4 + num_places].copy()  # The high half of the length.
  for place in (5, 6, 7):
    high &= zero[place : place + num_places]
  places = np.flatnonzero(high)
  # CRC32C is linear over XOR: the CRC of 8 bytes is that of 8 zeros, changed
  # by what each byte changes alone.
  crc = np.full(len(places), crc32c.crc32c(bytes(8)), np.uint32)
  stored = np.zeros(len(places), np.uint32)
  for place, changes in enumerate(_crc_changes()):
    crc ^= changes[block[places + place]]
    stored |= block[places + 8 + place].astype(np.uint32) << np.uint32(
        8 * place
    )
  masked = (crc >> np.uint32(15) | crc << np.uint32(17)) + np.uint32(
      _MASK_DELTA
  )
  return places[masked == stored]


@functools.cache
def _crc_changes() -> UInt32[np.ndarray, "4 256"]:
  """How a byte's value, at places 0 to 3 of 8, changes the CRC of zeros."""
  values = np.zeros((4, 256, 8), np.uint8)
  for place in range(4):
    values[place, :, place] = np.arange(256)
  crcs = [[crc32c.crc32c(row.tobytes()) for row in rows] for rows in values]
  return np.array(crcs, np.uint32) ^ np.uint32(crc32c.crc32c(bytes(8)))
