"""The records of YouTube-8M at frame level, read without TensorFlow.

A record holds one video, in features of one frame a second: 1024 bytes of
`rgb` and 128 of `audio`, quantised. Segments (2019) are five seconds long and
rated by people: a label can hold there, not hold, or be unrated.

Source: research.google.com/youtube8m/download.html; google/youtube-8m.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64, UInt8

from chain_jax.data import sequence_example
from chain_jax.data.sequence_example import RecordError

NUM_CLASSES = 3862  # Of the 2018 release.
RGB_DIM, AUDIO_DIM = 1024, 128
FEATURE_DIM = RGB_DIM + AUDIO_DIM
MAX_FRAMES = 300
SEGMENT_FRAMES = 5
# feature = FEATURE_SCALE * byte + FEATURE_OFFSET; google/youtube-8m,
# utils.Dequantize with its default range of -2 to 2.
FEATURE_SCALE = 4 / 255
FEATURE_OFFSET = 4 / 512 - 2

_FEATURE_MIN, _FEATURE_MAX = -2.0, 2.0
# 300 frames take 350 kB. Larger payloads can blow up when they are decoded.
_MAX_PAYLOAD_BYTES = 4 * 2**20
_MAX_ID_BYTES = 255
_MIN_SCORE = 0.5  # A rating from here on says that the label holds.
_KINDS = {
    "id": "bytes_list",
    "video_id": "bytes_list",  # What older releases call it.
    "labels": "int64_list",
    "segment_start_times": "int64_list",
    "segment_labels": "int64_list",
    "segment_scores": "float_list",
}
_WIDTHS = {"rgb": RGB_DIM, "audio": AUDIO_DIM}


class Segment(NamedTuple):
  """Five frames from frame `start` on that people have rated.

  Attributes:
    start: First frame, which is also the second.
    labels: Those that hold here, ascending.
    negative_labels: Those that do not, ascending. Others are unrated.
  """

  start: int
  labels: tuple[int, ...]
  negative_labels: tuple[int, ...]


class Youtube8mVideo(NamedTuple):
  """What one record holds.

  Attributes:
    id: UTF-8; of the public releases not YouTube's id, but a key to it.
    labels: Classes of the whole video, ascending; may be none.
    frames: rgb, then audio, quantised.
    num_dropped_frames: At the end, left out because the other modality lacks
      them or they are over the limit.
    segments: By rising start; none before 2019. The last can reach beyond
      `frames` where some were dropped.
  """

  id: bytes
  labels: Int64[np.ndarray, "num_labels"]
  frames: UInt8[np.ndarray, "num_frames 1152"]
  num_dropped_frames: int
  segments: tuple[Segment, ...]


def parse_video(
    payload: bytes | memoryview, *, max_frames: int = MAX_FRAMES
) -> Youtube8mVideo:
  """Reads one `tf.train.SequenceExample` of YouTube-8M.

  Args:
    payload: Of one TFRecord record.
    max_frames: Later frames are dropped, as the release's own reader does.

  Returns:
    The video; it shares no memory with `payload`.

  Raises:
    RecordError: If something is malformed, missing, or out of range.
  """
  if len(payload) > _MAX_PAYLOAD_BYTES:
    raise RecordError(
        f"must be at most {_MAX_PAYLOAD_BYTES} bytes, got {len(payload)}"
    )
  lists = sequence_example.decode(payload, kinds=_KINDS, widths=_WIDTHS)
  frames, num_stored = _join_frames(lists, max_frames)
  return Youtube8mVideo(
      id=_video_id(lists),
      labels=_labels(lists.context.get("labels", [])),
      frames=frames,
      num_dropped_frames=num_stored - len(frames),
      segments=_segments(lists.context, num_stored),
  )


def quantise(
    features: Float[np.ndarray, "... dim"],
) -> UInt8[np.ndarray, "... dim"]:
  """Turns features into the bytes that YouTube-8M stores.

  Args:
    features: Clipped to [-2, 2].

  Returns:
    The bytes. Times `FEATURE_SCALE` plus `FEATURE_OFFSET` they are 0 to 0.016
    above the clipped features.

  Raises:
    ValueError: If a feature is NaN.

  Source: google/youtube-8m, feature_extractor, quantize.

  >>> quantise(np.array([-9.0, -2.0, 0.0, 0.01, 2.0])).tolist()
  [0, 0, 128, 128, 255]
  """
  if np.isnan(features).any():
    raise ValueError("`features` must not be NaN; leave such frames out.")
  steps = np.clip(features, _FEATURE_MIN, _FEATURE_MAX)
  steps -= _FEATURE_MIN
  steps *= 255 / (_FEATURE_MAX - _FEATURE_MIN)
  return np.rint(steps, out=steps).astype(np.uint8)


def _join_frames(
    lists: sequence_example.Lists, max_frames: int
) -> tuple[UInt8[np.ndarray, "num_frames 1152"], int]:
  """Returns the frames that both modalities have, and how many one has."""
  for key in _WIDTHS:
    if key not in lists.frames:
      raise _missing(f"`{key}`", lists)
  rgb, audio = lists.frames["rgb"], lists.frames["audio"]
  num_frames = min(len(rgb), len(audio), max_frames)
  if not num_frames:
    raise RecordError(
        f"must have frames, got {len(rgb)} of rgb and {len(audio)} of audio"
    )
  frames = np.empty((num_frames, FEATURE_DIM), np.uint8)
  frames[:, :RGB_DIM] = rgb[:num_frames]
  frames[:, RGB_DIM:] = audio[:num_frames]
  return frames, max(len(rgb), len(audio))


def _missing(what: str, lists: sequence_example.Lists) -> RecordError:
  hint = "; this is a video-level record" if "mean_rgb" in lists.keys else ""
  there = ", ".join(sorted(lists.keys)[:16]) or "nothing"
  there = ascii(there)[1:-1]  # A damaged key can hold anything.
  return RecordError(f"lacks {what}{hint}; it has {there:.200}")


def _video_id(lists: sequence_example.Lists) -> bytes:
  values = lists.context.get("id", lists.context.get("video_id"))
  if values is None:
    raise _missing("`id` (or `video_id`)", lists)
  if len(values) != 1:
    raise RecordError(f"`id` must be one string, got {len(values)}")
  (video_id,) = values
  try:
    printable = video_id.decode("utf-8").isprintable()
  except UnicodeDecodeError:
    printable = False
  if not printable or not 0 < len(video_id) <= _MAX_ID_BYTES:
    raise RecordError(
        f"`id` must be 1 to {_MAX_ID_BYTES} bytes of printable UTF-8, got"
        f" {len(video_id)} bytes, {video_id[:16]!r}"
    )
  return video_id


def _labels(values: Sequence[int]) -> Int64[np.ndarray, "num_labels"]:
  return np.array(sorted(_checked_labels("labels", values)), np.int64)


def _checked_labels(key: str, values: Sequence[int]) -> set[int]:
  for label in (min(values, default=0), max(values, default=0)):
    if not 0 <= label < NUM_CLASSES:
      raise RecordError(f"`{key}` must be in 0..{NUM_CLASSES - 1}, got {label}")
  return set(values)


def _segments(context: dict[str, list], num_stored: int) -> tuple[Segment, ...]:
  """Groups the ratings by start; a label rated both ways holds."""
  keys = ("segment_start_times", "segment_labels", "segment_scores")
  starts, labels, scores = (context.get(key, []) for key in keys)
  if not len(starts) == len(labels) == len(scores):
    raise RecordError(
        f"{', '.join(keys)} must be equally long, got"
        f" {len(starts)}, {len(labels)}, {len(scores)}"
    )
  _checked_labels("segment_labels", labels)
  ratings: dict[int, dict[int, float]] = {}
  for start, label, score in zip(starts, labels, scores, strict=True):
    if not 0 <= start < num_stored:
      raise RecordError(
          f"`segment_start_times` must be in 0..{num_stored - 1}, got {start}"
      )
    if math.isnan(score):
      raise RecordError("`segment_scores` must be numbers, got NaN")
    rated = ratings.setdefault(start, {})
    rated[label] = max(score, rated.get(label, score))
  return tuple(_segment(start, ratings[start]) for start in sorted(ratings))


def _segment(start: int, rated: dict[int, float]) -> Segment:
  holds = {label for label, score in rated.items() if score >= _MIN_SCORE}
  return Segment(
      start, tuple(sorted(holds)), tuple(sorted(rated.keys() - holds))
  )
