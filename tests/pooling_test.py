"""A mean a video and the statistics of a set, against whole stacks."""

import numpy as np
import pytest
from array_source import (
    EQUAL,
    RAGGED,
    ArrayBlockSource,
    ArraySource,
    random_videos,
)

from chain_jax.data import pooling


@pytest.mark.parametrize(
    ("make", "shapes"), [(ArraySource, RAGGED), (ArrayBlockSource, EQUAL)]
)
def test_pooled_features_are_means_of_plain_frames_with_unit_norm(make, shapes):
  source = make(random_videos(shapes))
  pooled = pooling.pooled_features(source)
  expected = []
  for frames in source.videos:
    plain = frames[:, 0] if frames.ndim == 3 else frames
    mean = plain.astype(np.float64).mean(axis=0)
    expected.append(mean / np.sqrt(np.sum(mean**2)))
  # A handful of float32 sums: 1e-6 is 8 ulp.
  np.testing.assert_allclose(
      pooled, np.array(expected, np.float32), rtol=1e-6, strict=True
  )


def test_pooled_features_keep_their_norm_when_asked_and_zeros_stay_zeros():
  source = ArraySource([np.full((2, 3), 4.0), np.zeros((2, 3))])
  assert (
      pooling.pooled_features(source, l2_normalise=False)[0].tolist()
      == [4.0] * 3
  )
  assert pooling.pooled_features(source)[1].tolist() == [0.0] * 3


@pytest.mark.parametrize(
    ("make", "shapes"), [(ArraySource, RAGGED), (ArrayBlockSource, EQUAL)]
)
def test_pooled_variances_are_those_of_plain_frames_with_unit_norm(
    make, shapes
):
  source = make(random_videos(shapes))
  expected = []
  for frames in source.videos:
    plain = frames[:, 0] if frames.ndim == 3 else frames
    variance = plain.astype(np.float64).var(axis=0)
    norm = np.sqrt(np.sum(variance**2))
    expected.append(variance / (norm or 1.0))  # 0 of a single frame.
  np.testing.assert_allclose(
      pooling.pooled_variances(source),
      np.array(expected, np.float32),
      rtol=1e-5,
      strict=True,
  )


@pytest.mark.parametrize("l2_normalise", [False, True])
def test_statistics_of_all_frames_equal_those_of_one_stack(l2_normalise):
  # A mean far above the spread: sums of squares in one pass would cancel.
  videos = [frames.astype(np.float64) + 1e6 for frames in random_videos(RAGGED)]
  mean, std, video_means = pooling.feature_statistics(
      ArraySource(videos), max_videos=100, seed=0, l2_normalise=l2_normalise
  )
  frames = np.concatenate(videos)
  if l2_normalise:
    frames /= np.sqrt(np.sum(frames**2, axis=1, keepdims=True))
  # The result is float32: 1e-6 is 8 ulp; spreads of 1e-7 lose some digits.
  np.testing.assert_allclose(
      mean, frames.mean(axis=0).astype(np.float32), rtol=1e-6, strict=True
  )
  np.testing.assert_allclose(
      std, frames.std(axis=0).astype(np.float32), rtol=1e-5, strict=True
  )
  if l2_normalise:
    videos = [
        rows / np.sqrt(np.sum(rows**2, axis=1, keepdims=True))
        for rows in videos
    ]
  for video_mean, rows in zip(video_means, videos, strict=True):
    np.testing.assert_allclose(
        video_mean, rows.mean(axis=0).astype(np.float32), rtol=1e-6, strict=True
    )


def test_statistics_of_a_sample_read_no_more_and_repeat_with_the_seed():
  source = ArraySource(random_videos([(2, 4)] * 50))
  means = {}
  for seed in (0, 1, 0):
    source.num_reads = 0
    mean, *_ = pooling.feature_statistics(source, max_videos=7, seed=seed)
    assert source.num_reads == 7
    assert means.setdefault(seed, mean.tolist()) == mean.tolist()
  assert means[0] != means[1]


def test_a_dimension_that_never_changes_has_no_spread():
  videos = [np.array([[0.0, 1.0], [0.0, 2.0]])]
  measured = pooling.feature_statistics(
      ArraySource(videos), max_videos=1, seed=0
  )
  assert measured.std.tolist() == [0.0, 0.5]
