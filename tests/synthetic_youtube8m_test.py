"""Synthetic shards: readable by others, repeatable, shaped like the release."""

import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from chain_jax.data import synthetic_youtube8m, tfrecord, youtube8m
from chain_jax.errors import InputError

SIZES = dict(num_shards=2, videos_per_shard=5, seed=3)


@pytest.fixture(scope="module")
def train():
  """300 videos of the train part, parsed."""
  world = synthetic_youtube8m.make_world(num_classes=40, seed=0)
  return [
      youtube8m.parse_video(
          synthetic_youtube8m.make_record(world, part="train", video=video)
      )
      for video in range(300)
  ]


def _payloads(path):
  return [bytes(record.payload) for record in tfrecord.read_records(path)]


def test_shards_are_named_as_in_the_release_and_split_the_videos(tmp_path):
  paths = synthetic_youtube8m.write_shards(tmp_path / "new", **SIZES)
  assert [path.name for path in paths] == [
      "train0000.tfrecord",
      "train0001.tfrecord",
  ]
  assert sorted((tmp_path / "new").iterdir()) == paths
  world = synthetic_youtube8m.make_world(num_classes=40, seed=3)
  assert sum(map(_payloads, paths), []) == [
      synthetic_youtube8m.make_record(world, part="train", video=video)
      for video in range(10)
  ]


def test_a_video_is_a_function_of_seed_part_and_position(tmp_path):
  def write(folder, **changes):
    paths = synthetic_youtube8m.write_shards(
        tmp_path / folder, **(SIZES | changes)
    )
    return sum(map(_payloads, paths), [])

  first = write("a")
  assert write("b") == first
  assert write("c", num_shards=5, videos_per_shard=2) == first
  videos = [youtube8m.parse_video(payload) for payload in first]
  for changed in (write("d", seed=4), write("e", part="validate")):
    others = [youtube8m.parse_video(payload) for payload in changed]
    for video, other in zip(videos, others, strict=True):
      assert (video.frames[:100] != other.frames[:100]).mean() > 0.5
    assert [len(video.frames) for video in videos] != [
        len(video.frames) for video in others
    ]


def test_ids_are_unique_over_the_parts(tmp_path):
  ids = [
      youtube8m.parse_video(payload).id
      for part in synthetic_youtube8m.PARTS
      for path in synthetic_youtube8m.write_shards(tmp_path, part=part, **SIZES)
      for payload in _payloads(path)
  ]
  assert len(ids) == len(set(ids)) == 20


def test_protobuf_reads_the_records_and_the_parser_agrees():
  world = synthetic_youtube8m.make_world(num_classes=8, seed=1)
  payload = synthetic_youtube8m.make_record(
      world, part="validate", video=2, segments=True
  )
  example = tf_example_pb2.SequenceExample.FromString(payload)
  video = youtube8m.parse_video(payload)
  context = example.context.feature
  assert context["id"].bytes_list.value == [video.id] == [b"validate-000002"]
  assert context["labels"].int64_list.value == video.labels.tolist()
  for key, columns in (("rgb", slice(0, 1024)), ("audio", slice(1024, None))):
    rows = example.feature_lists.feature_list[key].feature
    for row, frame in zip(rows, video.frames[:, columns], strict=False):
      assert row.bytes_list.value == [frame.tobytes()]


def test_labels_are_about_three_and_long_tailed(train):
  labels = np.concatenate([video.labels for video in train])
  counts = np.bincount(labels, minlength=40)
  assert len(counts) == 40 and counts.min() > 0
  # 1 + binomial(5, 0.4); of 300 means, 5 standard errors are 0.32.
  assert abs(len(labels) / len(train) - 3) < 0.32
  assert counts[:10].sum() > 3 * counts[30:].sum()


def test_lengths_vary_and_audio_is_sometimes_a_frame_shorter(train):
  lengths = np.array(
      [len(video.frames) + video.num_dropped_frames for video in train]
  )
  assert lengths.min() >= 120 and lengths.max() <= 300
  assert lengths.min() < 135 and lengths.max() > 285
  dropped = np.array([video.num_dropped_frames for video in train])
  assert set(dropped) == {0, 1} and 0.1 < dropped.mean() < 0.3


def test_features_are_centred_and_fall_off_like_whitened_ones(train):
  frames = np.concatenate([video.frames[::10] for video in train])
  features = frames * youtube8m.FEATURE_SCALE + youtube8m.FEATURE_OFFSET
  stds = features.std(axis=0)
  for first in (0, 1024):  # rgb, audio
    assert 0.8 < stds[first] < 1.3
    assert stds[first] > 1.5 * stds[first + 64] > 1.5 * stds[first + 127]
  assert abs(features.mean()) < 0.1
  assert 0 < ((frames == 0) | (frames == 255)).mean() < 0.02


def test_frames_change_little_inside_a_scene_and_jump_between_scenes(train):
  for video in train[:10]:
    steps = np.abs(np.diff(video.frames.astype(int), axis=0)).mean(axis=1)
    num_scenes = 4 * len(video.labels)
    # Successive shots can show one scene only where two labels share a group.
    jumps = steps > 1.25 * np.median(steps)
    assert num_scenes - 4 <= jumps.sum() <= num_scenes - 1


def _pooled(videos):
  means = np.stack([video.frames.mean(axis=0) for video in videos])
  means = means * youtube8m.FEATURE_SCALE + youtube8m.FEATURE_OFFSET
  return means / np.linalg.norm(means, axis=1, keepdims=True)


def _map_at_20(scores, relevant):
  """mAP@20 as the field computes it: divided by 20."""
  hits = np.take_along_axis(relevant, np.argsort(-scores, axis=1)[:, :20], 1)
  precision = np.cumsum(hits, axis=1) / np.arange(1, 21)
  return (precision * hits).sum(axis=1).mean() / 20


def test_mean_pooled_frames_find_shared_labels_far_better_than_chance(train):
  labels = np.zeros((300, 40), bool)
  for row, video in enumerate(train):
    labels[row, video.labels] = True
  relevant = (labels[:60].astype(int) @ labels[60:].T.astype(int)) > 0
  pooled = _pooled(train)
  found = _map_at_20(pooled[:60] @ pooled[60:].T, relevant)
  chance = _map_at_20(np.random.default_rng(0).random(relevant.shape), relevant)
  assert 0.3 < found < 0.7 and found > 2 * chance


def _told_apart(features, classes):
  """Share of videos whose nearest other video is of their class."""
  distances = ((features[:, None] - features[None]) ** 2).sum(axis=-1)
  np.fill_diagonal(distances, np.inf)
  return (classes[distances.argmin(axis=1)] == classes).mean()


def test_the_order_of_frames_tells_classes_that_their_mean_does_not():
  # One group of four classes, and the videos that show one class only.
  world = synthetic_youtube8m.make_world(num_classes=4, seed=0)
  videos = [
      youtube8m.parse_video(
          synthetic_youtube8m.make_record(world, part="train", video=video)
      )
      for video in range(500)
  ]
  videos = [video for video in videos if len(video.labels) == 1]
  classes = np.array([video.labels[0] for video in videos])
  assert len(videos) > 25
  quarters = np.stack(
      [
          [part.mean(axis=0) for part in np.array_split(video.frames, 4)]
          for video in videos
      ]
  )
  assert _told_apart(quarters.reshape(len(videos), -1), classes) > 0.9
  assert _told_apart(_pooled(videos), classes) < 0.6


def test_segments_are_rated_by_what_is_shown_and_change_nothing_else():
  world = synthetic_youtube8m.make_world(num_classes=40, seed=0)
  positive = negative = 0
  for index in range(40):
    plain, rated = (
        youtube8m.parse_video(
            synthetic_youtube8m.make_record(
                world, part="validate", video=index, segments=segments
            )
        )
        for segments in (False, True)
    )
    np.testing.assert_array_equal(plain.frames, rated.frames, strict=True)
    assert plain.segments == () and 1 <= len(rated.segments) <= 5
    for segment in rated.segments:
      assert segment.start + 5 <= len(rated.frames)
      assert set(segment.labels) <= set(rated.labels.tolist())
      positive += len(segment.labels)
      negative += len(segment.negative_labels)
  assert positive > 60 and negative > 60


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (dict(num_shards=0), "num_shards"),
        (dict(videos_per_shard=0), "videos_per_shard"),
        (dict(part="test"), "part"),
        (dict(num_classes=0), "num_classes"),
        (dict(num_classes=3863), "num_classes"),
        (dict(seed=-1), "seed"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path, change, field):
  with pytest.raises(InputError, match=f"`{field}` must be"):
    synthetic_youtube8m.write_shards(tmp_path / "a", **(SIZES | change))
  assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("num_classes", [1, 2, 3862])
def test_any_number_of_classes_works(num_classes):
  world = synthetic_youtube8m.make_world(num_classes=num_classes, seed=0)
  for index in range(5):
    video = youtube8m.parse_video(
        synthetic_youtube8m.make_record(world, part="train", video=index)
    )
    assert len(video.labels) >= 1 and video.labels.max() < num_classes
