"""One video of a dataset folder <-> the bytes of one record.

A record is a `tf.train.Example` with `id`, `labels` and, last, `frames` as raw
bytes: what TFDS reads as `FeaturesDict`, written and read without TensorFlow.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, Num
from tensorflow_datasets.proto import tf_example_pb2

# Wire types and field numbers of tf.train.Example, Features, Feature and their
# lists: protobuf.dev/programming-guides/encoding, tensorflow/core/example.
_FIRST, _SECOND, _INT64_LIST = b"\x0a", b"\x12", b"\x1a"


class Video(NamedTuple):
  """What one record holds.

  Attributes:
    id: Name, UTF-8.
    labels: Classes, ascending; may be none.
    frames: uint8 or float16, `[num_frames, dim]` or, with spatial variants,
      `[num_frames, num_variants, dim]`.
  """

  id: str
  labels: Int64[np.ndarray, "num_labels"]
  frames: Num[np.ndarray, "num_frames *variants dim"]


def encode_video(video: Video) -> bytes:
  """Serialises a video; `frames` come last, so that they can be found.

  >>> video = Video("a", np.array([3]), np.zeros((2, 4), np.uint8))
  >>> example = tf_example_pb2.Example.FromString(encode_video(video))
  >>> example.features.feature["labels"].int64_list.value
  [3]
  """
  frames = np.ascontiguousarray(video.frames)
  packed = b"".join(_varint(int(label)) for label in video.labels)
  head = _entry(b"id", _field(_FIRST, _field(_FIRST, video.id.encode())))
  labels = _field(_FIRST, packed) if packed else b""
  head += _entry(b"labels", _field(_INT64_LIST, labels))
  # The frames' own headers, from the inside out, so that they are copied once.
  headers = [_FIRST + _varint(frames.nbytes)]
  for outside in (_FIRST, _SECOND):
    size = frames.nbytes + sum(map(len, headers))
    headers.insert(0, outside + _varint(size))
  headers.insert(0, _field(_FIRST, b"frames"))
  size = frames.nbytes + sum(map(len, headers))
  headers.insert(0, _FIRST + _varint(size))
  size = len(head) + frames.nbytes + sum(map(len, headers))
  return b"".join([_FIRST + _varint(size), head, *headers, frames.data])


def decode_frames(
    record: bytes, *, shape: tuple[int, ...], dtype: np.dtype
) -> Num[np.ndarray, "num_frames *variants dim"]:
  """Returns the frames of a record, without a copy where they come last.

  Args:
    record: A serialised `tf.train.Example`.
    shape: Of the frames, as the dataset's index knows it.
    dtype: Of the frames.

  Raises:
    ValueError: If the record holds no frames of this size.
  """
  num_bytes = math.prod(shape) * dtype.itemsize
  start = len(record) - num_bytes
  header = _FIRST + _varint(num_bytes)
  if record[max(start - len(header), 0) : max(start, 0)] != header:
    record, start = decode_example(record).frames, 0
    if len(record) != num_bytes:
      raise ValueError(
          f"frames must be {num_bytes} bytes ({list(shape)} of {dtype}), got"
          f" {len(record)}"
      )
  return np.frombuffer(record, dtype, offset=start).reshape(shape)


class Example(NamedTuple):
  """A record as the protobuf library reads it; frames are bytes."""

  id: str
  labels: list[int]
  frames: bytes


def decode_example(record: bytes) -> Example:
  """Reads a whole record; slower than `decode_frames`.

  Raises:
    ValueError: If it is not such a record.
  """
  try:
    feature = tf_example_pb2.Example.FromString(record).features.feature
    return Example(
        id=feature["id"].bytes_list.value[0].decode(),
        labels=list(feature["labels"].int64_list.value),
        frames=feature["frames"].bytes_list.value[0],
    )
  except (IndexError, UnicodeDecodeError) as error:
    raise ValueError("a record must hold `id` and `frames`") from error
  except Exception as error:  # The library's DecodeError has no stable home.
    raise ValueError(f"a record must be a tf.train.Example: {error}") from error


def _varint(value: int) -> bytes:
  """Encodes a non-negative number, 7 bits a byte, the lowest first."""
  encoded = bytearray()
  while value > 0x7F:
    encoded.append(value & 0x7F | 0x80)
    value >>= 7
  encoded.append(value)
  return bytes(encoded)


def _field(tag: bytes, content: bytes) -> bytes:
  return tag + _varint(len(content)) + content


def _entry(key: bytes, feature: bytes) -> bytes:
  """Encodes one entry of the map `Features.feature`."""
  return _field(_FIRST, _field(_FIRST, key) + _field(_SECOND, feature))
