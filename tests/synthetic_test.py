"""The synthetic set holds what it promises: appearance, order, structure."""

import numpy as np
import pytest

from chain_jax.data import pooling, synthetic


def _world(**changes):
  settings = dict(
      num_appearances=3,
      num_patterns=4,
      num_frames=32,
      feature_dim=64,
      difficulty=1.0,
      seed=0,
  )
  return synthetic.make_world(**(settings | changes))


def _source(world, num_videos=240, split="train"):
  return synthetic.SyntheticSource(world, split=split, num_videos=num_videos)


def _nearest(queries, gallery):
  distances = ((queries[:, None] - gallery[None]) ** 2).sum(-1)
  return distances.argmin(axis=1)


def test_a_video_is_a_function_of_seed_split_and_position():
  first, again = _source(_world()), _source(_world())
  np.testing.assert_array_equal(
      first.read_frames(7), again.read_frames(7), strict=True
  )
  others = [
      first.read_frames(8),
      _source(_world(seed=1)).read_frames(7),
      _source(_world(), split="query").read_frames(7),
  ]
  for other in others:
    assert not np.array_equal(first.read_frames(7), other)


def test_features_are_non_negative_and_partly_zero():
  frames = _source(_world()).read_block(0, 8)
  assert frames.dtype == np.float32 and frames.shape == (8, 32, 64)
  assert frames.min() == 0 and 0.2 < (frames == 0).mean() < 0.8


def test_classes_are_dealt_evenly():
  labels = _source(_world()).labels
  counts = np.bincount(labels.indices, minlength=12)
  np.testing.assert_array_equal(counts, np.full(12, 20), strict=True)


def test_every_pattern_shows_each_scene_equally_long():
  for pattern in synthetic.time_patterns():
    assert sorted(pattern) == [0, 0, 1, 1, 2, 2, 3, 3]
  assert len({tuple(pattern) for pattern in synthetic.time_patterns()}) == 8


def test_half_of_the_patterns_cut_more_often_than_the_others():
  changes = (np.diff(synthetic.time_patterns(), axis=1) != 0).sum(axis=1)
  np.testing.assert_array_equal(changes[0::2], np.full(4, 3), strict=True)
  np.testing.assert_array_equal(changes[1::2], np.full(4, 7), strict=True)


def test_pooled_frames_tell_the_group_but_not_the_pattern():
  world = _world()
  gallery, query = _source(world), _source(world, 120, split="query")
  nearest = _nearest(
      pooling.pooled_features(query), pooling.pooled_features(gallery)
  )
  found = gallery.labels.indices[nearest]
  truth = query.labels.indices
  assert (found // 4 == truth // 4).mean() > 0.9
  same_group = found // 4 == truth // 4
  # Chance is 1/4; of 120 draws, 4 standard deviations are 0.16.
  assert (found == truth)[same_group].mean() < 0.25 + 0.16


def test_frames_in_their_order_tell_the_pattern():
  world = _world()
  gallery, query = _source(world), _source(world, 60, split="query")
  nearest = _nearest(
      query.read_block(0, 60).reshape(60, -1),
      gallery.read_block(0, 240).reshape(240, -1),
  )
  truth = query.labels.indices
  assert (gallery.labels.indices[nearest] == truth).mean() > 0.8


def test_frames_are_smooth_inside_a_scene_and_jump_between_scenes():
  world = _world(difficulty=0.5)
  # Pattern 0 shows scene s in frames 8 s to 8 s + 7, give or take two.
  frames = synthetic.make_video(world, label=0, split_index=0, video=0)
  steps = np.linalg.norm(np.diff(frames, axis=0), axis=1)
  inside = np.concatenate(
      [steps[2:5], steps[10:13], steps[18:21], steps[26:29]]
  )
  across = [steps[start : start + 5].max() for start in (5, 13, 21)]
  assert min(across) > 2 * inside.max()


def test_difficulty_scales_what_varies_inside_a_class():
  def spread(difficulty):
    world = _world(difficulty=difficulty)
    videos = [
        synthetic.make_video(world, label=0, split_index=0, video=i)
        for i in range(6)
    ]
    return np.std(videos, axis=0).mean()

  assert spread(0.0) < 1e-6  # Equal videos; their mean is rounded.
  assert spread(0.0) < spread(0.5) < spread(1.0) < spread(2.0)


@pytest.mark.parametrize("split", ["train", "gallery", "query"])
def test_ids_name_split_and_position(split):
  source = _source(_world(), 3, split=split)
  assert source.ids[2] == f"synthetic-{split}-000002" and len(source) == 3
