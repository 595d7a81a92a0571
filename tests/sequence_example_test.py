"""SequenceExamples: every encoding is read as protobuf reads it."""

import random

import numpy as np
import pytest
import youtube8m_payloads as payloads
from hypothesis import given, settings
from hypothesis import strategies as st

from chain_jax.data import sequence_example, youtube8m
from chain_jax.data.youtube8m import RecordError

ENCODINGS = {
    "usual": payloads.whole([payloads.ID, payloads.PACKED], payloads.LISTS),
    "unpacked labels": payloads.whole(
        [payloads.UNPACKED, payloads.ID], payloads.LISTS
    ),
    "two runs of labels": payloads.whole(
        [
            payloads.ID,
            payloads.entry(
                b"labels", payloads.message(3, payloads.message(1, b"\5") * 2)
            ),
        ],
        payloads.LISTS,
    ),
    "labels in a long varint": payloads.whole(
        [
            payloads.ID,
            payloads.entry(
                b"labels",
                payloads.message(3, payloads.message(1, b"\x85\x80\0")),
            ),
        ],
        payloads.LISTS,
    ),
    "no labels": payloads.whole(
        [payloads.ID, payloads.entry(b"labels", payloads.message(3, b""))],
        payloads.LISTS,
    ),
    "labels without a kind": payloads.whole(
        [payloads.ID, payloads.entry(b"labels", b"")], payloads.LISTS
    ),
    "lists first": payloads.message(2, b"".join(payloads.LISTS[::-1]))
    + payloads.message(1, payloads.PACKED + payloads.ID),
    "parts in pieces": payloads.message(1, payloads.ID)
    + payloads.message(2, payloads.LISTS[1])
    + payloads.message(1, payloads.PACKED)
    + payloads.message(2, payloads.LISTS[0]),
    "value before key": payloads.whole(
        [payloads.ID, payloads.PACKED],
        [
            payloads.LISTS[0],
            payloads.entry(
                b"audio", payloads.frame_list(payloads.AUDIO), value_first=True
            ),
        ],
    ),
    "a value twice, the last counts": payloads.whole(
        [
            payloads.message(
                1,
                payloads.message(1, b"id")
                + payloads.message(
                    2, payloads.message(1, payloads.message(1, b"old"))
                )
                + payloads.message(2, payloads.message(3, b""))
                + payloads.message(
                    2, payloads.message(1, payloads.message(1, b"eXbF"))
                ),
            )
        ],
        payloads.LISTS,
    ),
    "long lengths of frames": payloads.whole(
        [payloads.ID],
        [
            payloads.LISTS[0],
            payloads.entry(
                b"audio", payloads.frame_list(payloads.AUDIO, extra_bytes=1)
            ),
        ],
    ),
    "a long length of a list": payloads.whole(
        [payloads.ID],
        [
            payloads.entry(
                b"rgb", payloads.frame_list(payloads.RGB), extra_bytes=2
            ),
            payloads.LISTS[1],
        ],
    ),
    "a key twice, the last counts": payloads.whole(
        [
            payloads.entry(
                b"id", payloads.message(1, payloads.message(1, b"old"))
            ),
            payloads.ID,
        ],
        [payloads.entry(b"rgb", b""), *payloads.LISTS],
    ),
    "unknown fields and keys": payloads.message(9, b"?")
    + payloads.whole(
        [
            payloads.entry(
                b"mean_rgb", payloads.message(2, payloads.message(1, bytes(8)))
            ),
            payloads.ID,
        ],
        [
            payloads.entry(b"flow", payloads.frame_list(payloads.RGB[:, :3])),
            *payloads.LISTS,
        ],
    ),
    "the last frame has an unknown field": payloads.whole(
        [payloads.ID],
        [
            payloads.LISTS[0],
            payloads.entry(
                b"audio",
                payloads.frame_list(payloads.AUDIO[:5])
                + payloads.message(
                    1,
                    payloads.message(
                        1,
                        payloads.message(1, bytes(128))
                        + payloads.message(7, b""),
                    ),
                ),
            ),
        ],
    ),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_gives_what_protobuf_gives(encoding):
  payloads.assert_as_by_protobuf(ENCODINGS[encoding])
  video = youtube8m.parse_video(ENCODINGS[encoding])
  assert video.id == b"eXbF" and video.num_dropped_frames == 1
  np.testing.assert_array_equal(
      video.frames, np.hstack([payloads.RGB, payloads.AUDIO[:5]]), strict=True
  )


@pytest.mark.parametrize("shape", [(1, 1), (7, 6), (299, 300), (300, 300)])
@pytest.mark.parametrize("wrap", [bytes, memoryview])
def test_every_frame_is_that_of_protobuf(shape, wrap):
  payloads.assert_as_by_protobuf(wrap(payloads.make_payload(*shape)))


def test_fields_in_any_order_give_what_protobuf_gives():
  shuffle = random.Random(0).shuffle
  extra = payloads.entry(
      b"mean_audio", payloads.message(2, payloads.message(1, bytes(16)))
  )
  for _ in range(20):
    context, lists = [payloads.ID, payloads.PACKED, extra], list(payloads.LISTS)
    shuffle(context)
    shuffle(lists)
    payloads.assert_as_by_protobuf(payloads.whole(context, lists))


def test_the_usual_encoding_is_read_without_protobuf(monkeypatch):
  # 7 times faster; the frames of the release are encoded like these.
  payload = payloads.make_payload(
      segment_start_times=[0], segment_labels=[3], segment_scores=[0.5]
  )
  monkeypatch.setattr(sequence_example, "_parse", None)
  youtube8m.parse_video(payload)


_FUZZED = payloads.make_payload(
    2,
    3,
    mean_rgb=[0.5, 0.25],
    segment_start_times=[0],
    segment_labels=[3],
    segment_scores=[1.0],
)
# Where a change can matter: all bytes but those of the frames.
_STRUCTURE = [
    place
    for place in range(len(_FUZZED))
    if not any(
        start <= place < start + rows.shape[1]
        for rows in payloads.make_frames(2, 3)
        for start in (_FUZZED.find(row.tobytes()) for row in rows)
    )
]


@settings(max_examples=600, deadline=None, database=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(_STRUCTURE),
            st.sampled_from(["flip", "cut", "insert", "set"]),
            st.integers(0, 255),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_damaged_payload_gives_what_protobuf_gives_or_a_reason(edits):
  payload = _FUZZED
  for place, kind, value in edits:
    before, old = payload[:place], payload[place:]
    if kind == "flip" and old:
      old = bytes([old[0] ^ 1 << value % 8]) + old[1:]
    elif kind == "cut":
      old = old[1 + value % 4 :]
    elif kind == "insert":
      old = bytes([value]) + old
    elif kind == "set" and old:
      old = bytes([value]) + old[1:]
    payload = before + old
  try:
    youtube8m.parse_video(payload)
  except RecordError:
    return
  try:
    payloads.by_protobuf(payload)
  except Exception:  # What we ignore unread may be malformed.
    return
  payloads.assert_as_by_protobuf(payload)
