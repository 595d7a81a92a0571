"""Lists and frames out of the bytes of a `tf.train.SequenceExample`.

TensorFlow writes the frames of one list as equal-sized messages, so that they
lie in memory as a matrix with a few constant bytes before each row. Such
records are read by walking the wire format and viewing that matrix, which is
several times faster than protobuf. Whatever is encoded in another way is left
to protobuf.

Field numbers: tensorflow/core/example, example.proto and feature.proto. Wire
format: protobuf.dev/programming-guides/encoding.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from google.protobuf import message
from jaxtyping import UInt8
from tensorflow_datasets.proto import tf_example_pb2

# Tags of length-delimited fields: number << 3 | 2.
_FIRST, _SECOND = 0x0A, 0x12
_KIND_TAGS = {"bytes_list": 0x0A, "float_list": 0x12, "int64_list": 0x1A}
_SHORT_VARINT_BYTES = 5  # Holds every length; longer ones go to protobuf.


class RecordError(ValueError):
  """A record is not what it must be; the text is a short reason."""


class Lists(NamedTuple):
  """The wanted parts of a record, as far as they are there.

  Attributes:
    context: Values by key: bytes, float or int.
    frames: uint8 `[num_frames, width]` by key; perhaps views of the payload.
    keys: Of everything that the record holds, the unwanted too.
  """

  context: dict[str, list]
  frames: dict[str, UInt8[np.ndarray, "num_frames width"]]
  keys: tuple[str, ...]


class _OddError(Exception):
  """The encoding is not the usual one."""


def decode(
    payload: bytes | memoryview,
    *,
    kinds: Mapping[str, str],
    widths: Mapping[str, int],
) -> Lists:
  """Reads the wanted parts of a `SequenceExample`; other keys are ignored.

  Args:
    payload: The serialised message.
    kinds: Wanted context keys: `bytes_list`, `float_list` or `int64_list`.
    widths: Wanted frame lists: the bytes of each frame.

  Returns:
    What is there of it.

  Raises:
    RecordError: If the message is malformed, a list is of another kind, or a
      frame of another width.
  """
  try:
    return _walk(memoryview(payload).cast("B"), kinds, widths)
  except _OddError:
    return _parse(payload, kinds, widths)


def _parse(
    payload: bytes | memoryview,
    kinds: Mapping[str, str],
    widths: Mapping[str, int],
) -> Lists:
  """Does the same by protobuf: any valid encoding, and the errors."""
  try:
    example = tf_example_pb2.SequenceExample.FromString(bytes(payload))
  except message.DecodeError:
    raise RecordError("not a SequenceExample: malformed protobuf") from None
  context = example.context.feature
  lists = example.feature_lists.feature_list
  values = {}
  for key in kinds.keys() & context.keys():
    kind = context[key].WhichOneof("kind") or kinds[key]  # None if empty.
    if kind != kinds[key]:
      raise RecordError(f"`{key}` must be of {kinds[key]}, got {kind}")
    values[key] = list(getattr(context[key], kind).value)
  frames = {}
  for key in widths.keys() & lists.keys():
    rows = [
        _one_frame(
            feature.bytes_list.value, f"`{key}` frame {index}", widths[key]
        )
        for index, feature in enumerate(lists[key].feature)
    ]
    frames[key] = np.frombuffer(b"".join(rows), np.uint8).reshape(
        -1, widths[key]
    )
  return Lists(values, frames, (*context, *lists))


def _one_frame(values: Sequence[bytes], what: str, width: int) -> bytes:
  if len(values) != 1:
    raise RecordError(f"{what} must be one string, got {len(values)}")
  if len(values[0]) != width:
    raise RecordError(f"{what} must be {width} bytes, got {len(values[0])}")
  return values[0]


def _walk(
    data: memoryview, kinds: Mapping[str, str], widths: Mapping[str, int]
) -> Lists:
  """Reads the usual encoding, raises `_OddError` on any other."""
  parts, at = {}, 0
  while at < len(data):
    tag = data[at]
    if tag not in (_FIRST, _SECOND) or tag in parts:
      raise _OddError
    start, at = _field(data, at, len(data), tag)
    parts[tag] = start, at
  context, frames, keys = {}, {}, []
  # SequenceExample: 1 is the context, 2 the feature lists.
  for key, start, end in _map_entries(data, *parts.get(_FIRST, (0, 0))):
    keys.append(key)
    if key in kinds:
      context[key] = _values(data, start, end, kinds[key])
  for key, start, end in _map_entries(data, *parts.get(_SECOND, (0, 0))):
    keys.append(key)
    if key in widths:
      frames[key] = _frame_rows(data, start, end, widths[key])
  return Lists(context, frames, tuple(keys))


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
  """Returns a number of at most 35 bits, and where it ends."""
  if at < end and data[at] < 0x80:  # Most lengths are short.
    return data[at], at + 1
  value = 0
  for place, byte in enumerate(data[at : min(at + _SHORT_VARINT_BYTES, end)]):
    value |= (byte & 0x7F) << (7 * place)
    if byte < 0x80:
      return value, at + place + 1
  raise _OddError


def _field(data: memoryview, at: int, end: int, tag: int) -> tuple[int, int]:
  """Returns start and end of the field at `at`, which must have this tag."""
  if at >= end or data[at] != tag:
    raise _OddError
  length, start = _varint(data, at + 1, end)
  if start + length > end:
    raise _OddError
  return start, start + length


def _map_entries(
    data: memoryview, start: int, end: int
) -> Iterator[tuple[str, int, int]]:
  """Yields key, start and end of the value for each entry of a map."""
  while start < end:
    entry, start = _field(data, start, end, _FIRST)
    key_start, key_end = _field(data, entry, start, _FIRST)
    value_start, value_end = _field(data, key_end, start, _SECOND)
    if value_end != start:
      raise _OddError
    try:
      key = str(data[key_start:key_end], "utf-8")
    except UnicodeDecodeError:
      raise _OddError from None
    yield key, value_start, value_end


def _values(data: memoryview, start: int, end: int, kind: str) -> list:
  """Decodes a `Feature` of the given kind."""
  start, stop = _field(data, start, end, _KIND_TAGS[kind])
  if stop != end:
    raise _OddError
  if start == end:
    return []
  if kind == "bytes_list":
    values = []
    while start < end:
      first, start = _field(data, start, end, _FIRST)
      values.append(bytes(data[first:start]))
    return values
  start, stop = _field(data, start, end, _FIRST)  # Packed numbers, one run.
  if stop != end or (kind == "float_list" and (end - start) % 4):
    raise _OddError
  if kind == "float_list":
    return np.frombuffer(data[start:end], "<f4").tolist()
  values = []
  while start < end:
    value, start = _varint(data, start, end)
    values.append(value)
  return values


def _frame_rows(
    data: memoryview, start: int, end: int, width: int
) -> UInt8[np.ndarray, "num_frames width"]:
  """Views a `FeatureList` as one row a frame, no copy."""
  header = _frame_header(width)
  stride = len(header) + width
  if (end - start) % stride:
    raise _OddError
  rows = np.frombuffer(data[start:end], np.uint8).reshape(-1, stride)
  if (rows[:, : len(header)] != header).any():
    raise _OddError
  return rows[:, len(header) :]


@functools.cache
def _frame_header(width: int) -> UInt8[np.ndarray, "header"]:
  """The bytes before a frame: `Feature`, `BytesList` and string, nested."""
  header = b""
  for _ in range(3):
    length, inner = width + len(header), b""
    while length >= 0x80:
      inner += bytes([length & 0x7F | 0x80])
      length >>= 7
    header = bytes([_FIRST]) + inner + bytes([length]) + header
  return np.frombuffer(header, np.uint8)
