"""Which frames a view shows: order, coverage, crop, playback rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_sampling

from chain_jax.data import pipeline
from chain_jax.data.frame_sampling import (
    SAMPLINGS,
    draws_per_view,
    plain_frame_indices,
    sample_frame_indices,
)


def _sample(
    num_frames_in_video, *, rng, num_frames=8, sampling="segments", **settings
):
  indices, mask = sample_frame_indices(
      np.array([num_frames_in_video], np.int32),
      rng.random((1, 1, draws_per_view(num_frames)), np.float32),
      num_frames=num_frames,
      sampling=sampling,
      **settings,
  )
  return indices[0, 0], mask[0, 0]


def _draws(num_draws, num_frames_in_video, **settings):
  """Yields the frames shown, without padding."""
  rng = np.random.default_rng(0)
  for _ in range(num_draws):
    indices, mask = _sample(num_frames_in_video, rng=rng, **settings)
    yield indices[mask]


def _frequency(draws, num_frames_in_video):
  shown = np.concatenate(list(draws))
  return np.bincount(shown, minlength=num_frames_in_video) / len(shown)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("num_frames_in_video", [1, 2, 3, 7, 8, 9, 25, 300])
@pytest.mark.parametrize("num_frames", [1, 2, 8])
def test_frames_keep_their_order_and_none_comes_twice(
    sampling, num_frames_in_video, num_frames
):
  rng = np.random.default_rng(0)
  for _ in range(30):
    indices, mask = _sample(
        num_frames_in_video,
        num_frames=num_frames,
        sampling=sampling,
        crop_fraction=(0.1, 1.0),
        playback_rate=(0.25, 4.0),
        rng=rng,
    )
    assert indices.shape == mask.shape == (num_frames,)
    assert indices.min() >= 0 and indices.max() < num_frames_in_video
    assert np.all(np.diff(indices[mask]) > 0)
    assert np.all(np.diff(mask.astype(int)) <= 0)  # Shown first, then padded.
    assert mask.sum() >= min(2, num_frames_in_video, num_frames)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("num_frames_in_video", [1, 2, 5, 8])
def test_a_video_that_fits_is_shown_whole(sampling, num_frames_in_video):
  for shown in _draws(10, num_frames_in_video, sampling=sampling):
    assert shown.tolist() == list(range(num_frames_in_video))


def test_padding_repeats_the_last_frame():
  indices, mask = _sample(3, num_frames=5, rng=np.random.default_rng(0))
  assert indices.tolist() == [0, 1, 2, 2, 2]
  assert mask.tolist() == [True, True, True, False, False]


def test_segments_give_one_frame_each():
  for shown in _draws(200, 40):
    assert (shown // 5).tolist() == list(range(8))


def test_segments_of_unequal_length_differ_by_one_frame_at_most():
  edges = [0, 1, 2, 4, 5, 6, 8, 9, 11]  # 11 frames, 8 slots: floor(i 11 / 8).
  for shown in _draws(200, 11):
    assert np.all(shown >= edges[:-1]) and np.all(shown < edges[1:])


def test_segments_show_every_frame_equally_often():
  frequency = _frequency(_draws(2000, 40), 40)
  # 400 draws a frame, binomial with p = 1/5: 5 standard deviations are 22 %.
  np.testing.assert_allclose(frequency, np.full(40, 1 / 40), rtol=0.23)


def test_segments_are_drawn_independently_of_each_other():
  shown = np.array(list(_draws(4000, 16)))  # Two frames a segment.
  late = shown % 2
  for left, right in ((0, 1), (2, 7)):
    joint = np.mean(late[:, left] & late[:, right])
    # p = 1/4 over 4000 draws: 5 standard deviations are .034.
    assert abs(joint - 0.25) < 0.034


def test_uniform_takes_the_centres_of_segments():
  for shown in _draws(3, 40, sampling="uniform"):
    assert shown.tolist() == [2, 7, 12, 17, 22, 27, 32, 37]


def test_consecutive_frames_are_neighbours_from_every_start():
  starts = []
  for shown in _draws(600, 12, sampling="consecutive"):
    assert np.all(np.diff(shown) == 1) and len(shown) == 8
    starts.append(shown[0])
  # Starts 0 .. 4, 120 each: 5 standard deviations are 49.
  assert np.all(np.abs(np.bincount(starts, minlength=5) - 120) < 49)


def test_a_crop_looks_at_one_window_of_its_length():
  spans = [
      shown[-1] - shown[0] + 1
      for shown in _draws(
          300, 100, sampling="uniform", crop_fraction=(0.4, 0.4)
      )
  ]
  assert set(spans) == {36}  # Centres of 8 segments of 5 of these 40 frames.


def test_a_crop_reaches_both_ends_of_the_video_and_of_its_range():
  # Windows of 8 .. 16 frames, each shown whole.
  shown = list(_draws(2000, 20, num_frames=20, crop_fraction=(0.4, 0.8)))
  assert min(frames[0] for frames in shown) == 0
  assert max(frames[-1] for frames in shown) == 19
  assert {len(frames) for frames in shown} == set(range(8, 17))


def test_a_crop_lies_anywhere_with_equal_chance():
  starts = [
      frames[0]
      for frames in _draws(1100, 20, num_frames=20, crop_fraction=(0.5, 0.5))
  ]
  # Starts 0 .. 10, 100 each: 5 standard deviations are 48.
  assert np.all(np.abs(np.bincount(starts, minlength=11) - 100) < 48)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize(
    ("rate", "num_shown"), [(1.0, 8), (2.0, 4), (4.0, 2), (3.0, 3), (50.0, 2)]
)
def test_fast_playback_fills_fewer_slots(sampling, rate, num_shown):
  for shown in _draws(20, 80, sampling=sampling, playback_rate=(rate, rate)):
    assert len(shown) == num_shown


def test_frames_of_fast_playback_lie_further_apart():
  for rate, step in ((1.0, 10), (2.0, 20), (4.0, 40)):
    (shown,) = _draws(1, 80, sampling="uniform", playback_rate=(rate, rate))
    assert np.all(np.diff(shown) == step)
    (shown,) = _draws(1, 80, sampling="consecutive", playback_rate=(rate, rate))
    assert np.all(np.diff(shown) == rate)


def test_fast_playback_of_a_short_video_skips_frames_too():
  for shown in _draws(20, 4, playback_rate=(2.0, 2.0)):
    assert (shown // 2).tolist() == [0, 1]


def test_slow_motion_covers_a_share_of_the_window_anywhere():
  starts = set()
  for shown in _draws(1000, 80, sampling="uniform", playback_rate=(0.25, 0.25)):
    # 20 frames in 8 segments: the first is 0 .. 1, the last 17 .. 19.
    assert len(shown) == 8 and shown[-1] - shown[0] == 18
    starts.add(shown[0])
  assert starts == set(range(61))


def test_slow_motion_of_a_short_video_fills_fewer_slots():
  for shown in _draws(20, 8, playback_rate=(0.5, 0.5)):
    assert len(shown) == 4 and np.all(np.diff(shown) == 1)


def test_playback_is_as_often_fast_as_slow():
  # 64 slots: at rate r > 1, fewer than 64 are filled.
  shown = list(_draws(2000, 1000, num_frames=64, playback_rate=(0.5, 2.0)))
  is_fast = np.mean([len(frames) < 64 for frames in shown])
  # Rates above 1 that still round to 64 slots are 1 % of the draws.
  assert 0.43 < is_fast < 0.55
  assert min(len(frames) for frames in shown) == 32


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"sampling": "random"}, "`augment.sampling`.*got 'random'"),
        ({"crop_fraction": (0.0, 1.0)}, "`augment.crop_fraction`"),
        ({"crop_fraction": (0.8, 0.5)}, "`augment.crop_fraction`"),
        ({"crop_fraction": (0.5, 1.5)}, "`augment.crop_fraction`"),
        ({"playback_rate": (0.0, 1.0)}, "`augment.playback_rate`"),
        ({"playback_rate": (2.0, 1.0)}, "`augment.playback_rate`"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, match):
  with pytest.raises(ValueError, match=match):
    _sample(10, rng=np.random.default_rng(0), **settings)


def _two_views(num_videos, num_frames_in_video, num_frames, **settings):
  draws = pipeline.draw_views(
      seed=0,
      step=0,
      first_row=0,
      num_rows=num_videos,
      num_frames=num_frames,
  )
  return sample_frame_indices(
      np.full(num_videos, num_frames_in_video, np.int32),
      draws[..., 1:],
      num_frames=num_frames,
      **settings,
  )


def test_the_frames_of_the_two_views_are_drawn_independently():
  # One segment of 4 frames and one slot: the joint counts are a 4 x 4 table.
  indices, _ = _two_views(3200, 4, num_frames=1)
  counts = np.zeros((4, 4))
  np.add.at(counts, tuple(indices[..., 0].T), 1)
  # 200 a cell; chi-square with 15 degrees of freedom exceeds 45 once in 10^4.
  assert np.sum((counts - 200) ** 2 / 200) < 45


def test_the_crops_of_the_two_views_are_drawn_independently():
  indices, mask = _two_views(2000, 11, num_frames=11, crop_fraction=(0.5, 1.0))
  starts, lengths = indices[:, 0, 0], mask[:, 1].sum(axis=-1)
  # 1 / sqrt(2000) = .022 is one standard deviation.
  assert abs(np.corrcoef(starts, lengths)[0, 1]) < 0.11
  assert len(set(starts.tolist())) > 4 and len(set(lengths.tolist())) > 4


def _many(rng, num_frames, dtype, num_videos=400):
  lengths = rng.integers(1, 60, num_videos).astype(np.int32)
  shape = (num_videos, 2, draws_per_view(num_frames))
  return lengths, rng.random(shape, dtype)


_VARIED = {"crop_fraction": (0.2, 0.9), "playback_rate": (0.4, 3.0)}


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("num_frames", [1, 2, 9])
def test_a_batch_is_what_each_of_its_views_is_alone(sampling, num_frames):
  rng = np.random.default_rng(0)
  # float64, as plain Python counts: no rounding may go another way.
  lengths, draws = _many(rng, num_frames, np.float64)
  settings = _VARIED | {"num_frames": num_frames, "sampling": sampling}
  indices, mask = sample_frame_indices(lengths, draws, **settings)
  assert indices.shape == mask.shape == (400, 2, num_frames)
  for video, length in enumerate(lengths.tolist()):
    for view in range(2):
      expected = reference_sampling.sample_view(
          length, draws[video, view], **settings
      )
      assert indices[video, view, mask[video, view]].tolist() == expected
      padding = indices[video, view, len(expected) :]
      assert set(padding.tolist()) <= {expected[-1]}


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_devices_choose_the_frames_that_a_host_does(sampling):
  lengths, draws = _many(np.random.default_rng(0), 9, np.float32)
  settings = _VARIED | {"num_frames": 9, "sampling": sampling}
  indices, mask = sample_frame_indices(lengths, draws, **settings)
  on_device = jax.jit(
      lambda lengths, draws: sample_frame_indices(
          lengths, draws, xp=jnp, **settings
      )
  )(lengths, draws)
  same = [
      np.array_equal(one, other) and np.array_equal(shown, other_shown)
      for one, other, shown, other_shown in zip(
          indices, on_device[0], mask, on_device[1], strict=True
      )
  ]
  assert indices.dtype == on_device[0].dtype == np.int32
  # A power may differ in its last digit and then round to another length.
  assert np.mean(same) > 0.98


def test_the_largest_draw_stays_inside_the_video():
  num_frames = 4
  for dtype in (np.float32, np.float64):
    shape = (300, 1, draws_per_view(num_frames))
    draws = np.full(shape, np.nextafter(dtype(1), dtype(0)), dtype)
    lengths = np.arange(1, 301, dtype=np.int32) * 1001
    indices, _ = sample_frame_indices(
        lengths, draws, num_frames=num_frames, crop_fraction=(0.5, 1.0)
    )
    assert np.all(indices[:, 0].max(axis=-1) < lengths)


def test_the_plain_view_of_a_short_video_is_all_of_it():
  indices, mask = plain_frame_indices(np.array([3, 5]), num_frames=5)
  assert indices.tolist() == [[0, 1, 2, 2, 2], [0, 1, 2, 3, 4]]
  assert mask.tolist() == [[True] * 3 + [False] * 2, [True] * 5]


def test_the_plain_view_of_a_long_video_takes_the_centres_of_segments():
  indices, mask = plain_frame_indices(np.array([15, 1500]), num_frames=5)
  assert indices.tolist() == [
      [1, 4, 7, 10, 13],
      [149, 449, 749, 1049, 1349],
  ]
  assert mask.all()
