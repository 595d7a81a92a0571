"""A video survives being a record, whoever reads or writes the record."""

import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from chain_jax.data import examples

_RNG = np.random.default_rng(0)
_VIDEOS = [
    examples.Video(
        "a", np.array([3, 300, 3861]), _RNG.integers(0, 256, (5, 8), np.uint8)
    ),
    examples.Video(
        "clips/é.mp4",
        np.zeros(0, np.int64),
        _RNG.random((3, 2, 4)).astype(np.float16),
    ),
    # Its size needs three bytes of a varint.
    examples.Video("long", np.array([0]), np.full((300, 1152), 7, np.uint8)),
]


@pytest.mark.parametrize("video", _VIDEOS, ids=lambda video: video.id)
def test_protobuf_reads_what_is_written(video):
  feature = tf_example_pb2.Example.FromString(
      examples.encode_video(video)
  ).features.feature
  assert sorted(feature) == ["frames", "id", "labels"]
  assert feature["id"].bytes_list.value == [video.id.encode()]
  assert feature["labels"].int64_list.value == video.labels.tolist()
  assert feature["frames"].bytes_list.value == [video.frames.tobytes()]


def _by_protobuf(video):
  example = tf_example_pb2.Example()
  feature = example.features.feature
  feature["frames"].bytes_list.value.append(video.frames.tobytes())
  feature["id"].bytes_list.value.append(video.id.encode())
  feature["labels"].int64_list.value.extend(video.labels.tolist())
  return example.SerializeToString()


@pytest.mark.parametrize("encode", [examples.encode_video, _by_protobuf])
@pytest.mark.parametrize("video", _VIDEOS, ids=lambda video: video.id)
def test_frames_come_back_whoever_wrote_them(video, encode):
  frames = examples.decode_frames(
      encode(video), shape=video.frames.shape, dtype=video.frames.dtype
  )
  np.testing.assert_array_equal(frames, video.frames, strict=True)
  whole = examples.decode_example(encode(video))
  assert (whole.id, whole.labels) == (video.id, video.labels.tolist())


def test_frames_that_come_last_are_not_copied():
  record = examples.encode_video(_VIDEOS[0])
  frames = examples.decode_frames(
      record, shape=(5, 8), dtype=np.dtype(np.uint8)
  )
  assert np.shares_memory(frames, np.frombuffer(record, np.uint8))


@pytest.mark.parametrize("shape", [(4, 8), (6, 8), (500, 8)])
def test_frames_of_another_size_are_refused(shape):
  record = examples.encode_video(_VIDEOS[0])
  with pytest.raises(ValueError, match="frames must be .* bytes"):
    examples.decode_frames(record, shape=shape, dtype=np.dtype(np.uint8))


@pytest.mark.parametrize("record", [b"", b"\x0a\x00", b"\xff" * 40])
def test_what_is_no_record_is_refused(record):
  with pytest.raises(ValueError, match="a record must"):
    examples.decode_frames(record, shape=(9, 9), dtype=np.dtype(np.uint8))
