"""YouTube-8M videos: what a record means, or the reason why it is refused."""

import numpy as np
import pytest
import youtube8m_payloads as payloads

from chain_jax.data import youtube8m
from chain_jax.data.youtube8m import RecordError


def test_a_video_shares_no_memory_with_its_payload():
  payload = bytearray(payloads.make_payload())
  video = youtube8m.parse_video(memoryview(payload))
  before = video.frames.copy()
  payload[:] = bytes(len(payload))
  np.testing.assert_array_equal(video.frames, before, strict=True)


@pytest.mark.parametrize(
    ("stored", "kept", "dropped"),
    [((9, 9), 9, 0), ((9, 7), 7, 2), ((7, 9), 7, 2), ((310, 308), 300, 10)],
)
def test_frames_that_one_modality_lacks_or_over_the_limit_are_counted(
    stored, kept, dropped
):
  video = youtube8m.parse_video(payloads.make_payload(*stored))
  assert (len(video.frames), video.num_dropped_frames) == (kept, dropped)
  rgb, audio = payloads.make_frames(*stored)
  np.testing.assert_array_equal(
      video.frames, np.hstack([rgb[:kept], audio[:kept]]), strict=True
  )


def test_labels_are_sorted_and_each_is_there_once():
  video = youtube8m.parse_video(payloads.make_payload(labels=[3861, 5, 0, 5]))
  np.testing.assert_array_equal(
      video.labels, np.array([0, 5, 3861], np.int64), strict=True
  )


@pytest.mark.parametrize("labels", [None, []])
def test_a_video_may_have_no_labels(labels):
  video = youtube8m.parse_video(payloads.make_payload(labels=labels))
  assert video.labels.shape == (0,) and video.labels.dtype == np.int64


def test_older_data_names_the_id_otherwise():
  example = payloads.make_example(video_id=b"old")
  del example.context.feature["id"]
  assert youtube8m.parse_video(example.SerializeToString()).id == b"old"


def test_ratings_are_grouped_by_start_and_unrated_is_not_negative():
  video = youtube8m.parse_video(
      payloads.make_payload(
          30,
          30,
          segment_start_times=[20, 5, 20, 20, 5, 5, 5],
          segment_labels=[7, 9, 3, 8, 9, 4, 4],
          segment_scores=[1.0, 0.0, 0.5, 0.49, 1.0, 1.0, 0.0],
      )
  )
  assert video.segments == (
      youtube8m.Segment(5, (4, 9), ()),  # Rated both ways: they hold.
      youtube8m.Segment(20, (3, 7), (8,)),
  )


def _rated(start=0, label=1, score=1.0):
  return dict(
      segment_start_times=[start],
      segment_labels=[label],
      segment_scores=[float(score)],
  )


def _wide(key, width, *, count=1):
  example = payloads.make_example()
  value = example.feature_lists.feature_list[key].feature[2].bytes_list.value
  value[:] = [bytes(width)] * count
  return example.SerializeToString()


def _lacking(key):
  example = payloads.make_example()
  lists, context = example.feature_lists.feature_list, example.context.feature
  del (lists if key in lists else context)[key]
  return example.SerializeToString()


# Together as long as two frames of 1024 bytes.
_UNEVEN = b"".join(
    payloads.frame_list(np.zeros((1, width), np.uint8))
    for width in (1025, 1023)
)
_SHORT_SCORES = payloads.entry(
    b"segment_scores", payloads.message(2, payloads.message(1, b"???"))
)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "lacks `rgb`; it has nothing"),
        (b"not protobuf", "not a SequenceExample"),
        (payloads.make_payload()[:-1], "not a SequenceExample"),
        (bytes(2**22 + 1), "must be at most 4194304 bytes"),
        (_lacking("id"), r"lacks `id` \(or `video_id`\); it has audio, labels"),
        (_lacking("audio"), "lacks `audio`; it has id, labels, rgb$"),
        (_lacking("rgb"), "lacks `rgb`; it has audio, id, labels$"),
        (
            payloads.whole(
                [
                    payloads.ID,
                    payloads.entry(b"mean_rgb", payloads.message(2, b"")),
                ],
                [],
            ),
            "lacks `rgb`; this is a video-level record; it has id, mean_rgb",
        ),
        (
            payloads.whole([payloads.entry(b"a\nb\x1b[2J", b"")], []),
            r"it has a\\nb\\x1b\[2J$",
        ),
        (
            payloads.make_payload(id=b""),
            "`id` must be 1 to 255 bytes .* got 0 bytes",
        ),
        (
            payloads.make_payload(id=b"\xff\xfe"),
            r"printable UTF-8, got 2 bytes, b'\\xff",
        ),
        (payloads.make_payload(id=b"a\0"), "printable UTF-8"),
        (payloads.make_payload(id=b"a" * 256), "got 256 bytes, b'a{16}'"),
        (
            payloads.make_payload(id=[3]),
            "`id` must be of bytes_list, got int64_list",
        ),
        (payloads.make_payload(labels=b"3"), "`labels` must be of int64_list"),
        (
            payloads.make_payload(labels=[3, 3862]),
            r"`labels` must be in 0\.\.3861, got 3862",
        ),
        (payloads.make_payload(labels=[-1]), "`labels` must be .* got -1"),
        (
            payloads.make_payload(labels=[2**62]),
            f"`labels` must be .* got {2**62}",
        ),
        (
            payloads.make_payload(0, 0),
            "must have frames, got 0 of rgb and 0 of audio",
        ),
        (
            payloads.make_payload(3, 0),
            "must have frames, got 3 of rgb and 0 of audio",
        ),
        (_wide("rgb", 1025), "`rgb` frame 2 must be 1024 bytes, got 1025"),
        (
            payloads.whole(
                [payloads.ID],
                [payloads.LISTS[1], payloads.entry(b"rgb", _UNEVEN)],
            ),
            "`rgb` frame 0 must be 1024 bytes, got 1025",
        ),
        (
            payloads.whole(
                [payloads.ID, payloads.UNPACKED], payloads.LISTS[:1]
            ),
            "lacks `audio`; it has id, labels, rgb$",
        ),
        (
            payloads.whole([payloads.ID, _SHORT_SCORES], payloads.LISTS),
            "not a SequenceExample",
        ),
        (_wide("audio", 0), "`audio` frame 2 must be 128 bytes, got 0"),
        (_wide("audio", 128, count=2), "`audio` frame 2 must be one string, g"),
        (
            payloads.make_payload(segment_start_times=[3]),
            "equally long, got 1, 0, 0",
        ),
        (payloads.make_payload(**_rated(start=7)), r"must be in 0\.\.6, got 7"),
        (
            payloads.make_payload(**_rated(start=-1)),
            r"must be in 0\.\.6, got -1",
        ),
        (
            payloads.make_payload(**_rated(label=4000)),
            "`segment_labels` .* got 4000",
        ),
        (
            payloads.make_payload(**_rated(score="nan")),
            "`segment_scores` .* got NaN",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_record_is_refused_with_the_reason(payload, reason):
  with pytest.raises(RecordError, match=reason) as refusal:
    youtube8m.parse_video(payload)
  assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 300


def test_dequantised_bytes_are_those_of_the_release():
  # google/youtube-8m, utils.Dequantize(byte, 2, -2).
  byte = np.array([0.0, 128.0, 255.0])
  np.testing.assert_allclose(
      byte * youtube8m.FEATURE_SCALE + youtube8m.FEATURE_OFFSET,
      np.array([-1.9921875, 0.015655637, 2.0078125]),
      rtol=1e-7,  # The digits given.
      strict=True,
  )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantised_features_come_back_within_one_step(dtype):
  features = np.linspace(-2, 2, 5001).astype(dtype)
  back = (
      youtube8m.quantise(features) * youtube8m.FEATURE_SCALE
      + youtube8m.FEATURE_OFFSET
  )
  # Rounding errs by half a step, 2/255; the release's offset adds 4/512.
  error = back - features
  assert error.min() > -1e-4 and error.max() < 2 / 255 + 4 / 512 + 1e-6


def test_every_byte_comes_back_from_its_feature():
  every = np.arange(256, dtype=np.uint8)
  features = every * youtube8m.FEATURE_SCALE + youtube8m.FEATURE_OFFSET
  np.testing.assert_array_equal(
      youtube8m.quantise(features), every, strict=True
  )


def test_quantise_clips_and_leaves_its_input_alone():
  features = np.array([[-np.inf, -2.5, 2.5, np.inf]], np.float32)
  before = features.copy()
  np.testing.assert_array_equal(
      youtube8m.quantise(features),
      np.array([[0, 0, 255, 255]], np.uint8),
      strict=True,
  )
  np.testing.assert_array_equal(features, before, strict=True)
  with pytest.raises(ValueError, match="NaN"):
    youtube8m.quantise(np.array([np.nan]))
