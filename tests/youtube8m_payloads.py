"""YouTube-8M payloads: written in any encoding, read the slow way."""

import numpy as np
from tensorflow_datasets.proto import tf_example_pb2

from chain_jax.data import youtube8m


def make_frames(num_rgb, num_audio):
  rng = np.random.default_rng([num_rgb, num_audio])
  return (
      rng.integers(0, 256, (num_rgb, 1024), np.uint8),
      rng.integers(0, 256, (num_audio, 128), np.uint8),
  )


def make_example(num_rgb=7, num_audio=7, **context):
  """Context values are bytes, or lists of ints or floats; None leaves out."""
  example = tf_example_pb2.SequenceExample()
  for key, value in ({"id": b"eXbF", "labels": [3, 0]} | context).items():
    feature = example.context.feature
    if isinstance(value, bytes):
      feature[key].bytes_list.value.append(value)
    elif value is not None and any(isinstance(one, float) for one in value):
      feature[key].float_list.value.extend(value)
    elif value is not None:
      feature[key].int64_list.value.extend(value)
  for key, rows in zip(
      ("rgb", "audio"), make_frames(num_rgb, num_audio), strict=True
  ):
    frames = example.feature_lists.feature_list[key].feature
    for row in rows:
      frames.add().bytes_list.value.append(row.tobytes())
  return example


def make_payload(*args, **context):
  return make_example(*args, **context).SerializeToString()


def by_protobuf(payload):
  """Id, labels and frames, the slow way."""
  example = tf_example_pb2.SequenceExample.FromString(payload)
  context = example.context.feature
  key = "id" if "id" in context else "video_id"
  lists = example.feature_lists.feature_list
  num_frames = min(len(lists["rgb"].feature), len(lists["audio"].feature), 300)
  frames = [
      [*a.bytes_list.value[0], *b.bytes_list.value[0]]
      for a, b in zip(
          lists["rgb"].feature[:num_frames],
          lists["audio"].feature[:num_frames],
          strict=True,
      )
  ]
  return (
      context[key].bytes_list.value[0],
      sorted(set(context["labels"].int64_list.value)),
      frames,
  )


def assert_as_by_protobuf(payload):
  video = youtube8m.parse_video(payload)
  video_id, labels, frames = by_protobuf(bytes(payload))
  assert video.id == video_id
  np.testing.assert_array_equal(
      video.labels, np.array(labels, np.int64), strict=True
  )
  np.testing.assert_array_equal(
      video.frames, np.array(frames, np.uint8), strict=True
  )


# What follows writes any encoding that protobuf allows.


def varint(value, *, extra_bytes=0):
  groups = [value & 0x7F]
  while value := value >> 7:
    groups.append(value & 0x7F)
  groups += [0] * extra_bytes
  return bytes([g | 0x80 for g in groups[:-1]] + groups[-1:])


def message(number, body, *, extra_bytes=0):
  length = varint(len(body), extra_bytes=extra_bytes)
  return bytes([number << 3 | 2]) + length + body


def entry(key, value, *, value_first=False, extra_bytes=0):
  fields = [
      message(1, key),
      message(2, value, extra_bytes=extra_bytes),
  ]
  return message(1, b"".join(fields[::-1] if value_first else fields))


def frame_list(rows, **options):
  return b"".join(
      message(1, message(1, message(1, row.tobytes(), **options)))
      for row in rows
  )


RGB, AUDIO = make_frames(5, 6)
ID = entry(b"id", message(1, message(1, b"eXbF")))
PACKED = entry(b"labels", message(3, message(1, varint(3861) + b"\0")))
UNPACKED = entry(b"labels", message(3, b"\x08" + varint(3861) + b"\x08\0"))
LISTS = [entry(b"rgb", frame_list(RGB)), entry(b"audio", frame_list(AUDIO))]


def whole(context, lists):
  return message(1, b"".join(context)) + message(2, b"".join(lists))
