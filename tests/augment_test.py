"""Two views of a video: independent, repeatable, each part acting alone."""

import numpy as np
import pytest

from chain_jax.data import augment

EVERYTHING = {
    "num_frames": 8,
    "crop_fraction": (0.5, 1.0),
    "playback_rate": (0.5, 2.0),
    "noise_std": 0.1,
    "dropout_rate": 0.2,
    "mix_max": 0.3,
}


def _video(num_frames=20, dim=16, dtype=np.float16):
  rng = np.random.default_rng(0)
  return (rng.random((num_frames, dim)) * 9).astype(dtype)


def _numbered_video(num_frames, num_variants=None):
  """Frame t is filled with t + 1 and, with variants, v holds 100 v + t + 1."""
  frames = np.arange(1.0, num_frames + 1)[:, None]
  if num_variants is None:
    return np.repeat(frames, 4, axis=1)
  variants = frames + 100 * np.arange(num_variants)
  return np.repeat(variants[:, :, None], 4, axis=2)


def _rng(number=0):
  return np.random.default_rng(number)


def test_views_repeat_for_the_same_seed_epoch_and_video_only():
  numbers = [
      (0, 0, 0),
      (1, 0, 0),
      (0, 1, 0),
      (0, 0, 1),
      (-1, 0, 0),
      (2**63, 7, 3),
  ]
  seen = []
  for seed, epoch, video in numbers:
    first, second = (
        augment.make_views(
            _video(),
            augment.video_rng(seed, epoch=epoch, video=video),
            **EVERYTHING,
        )
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.frames, second.frames, strict=True)
    np.testing.assert_array_equal(first.mask, second.mask, strict=True)
    seen.append(first.frames.tobytes())
  assert len(set(seen)) == len(numbers)


def test_generators_of_neighbouring_videos_share_nothing():
  draws = np.array(
      [augment.video_rng(0, epoch=0, video=v).random(500) for v in range(40)]
  )
  # Counters that overlap would repeat a neighbour's draws some places later.
  assert len(np.unique(draws)) == draws.size
  correlation = np.corrcoef(draws) - np.eye(40)
  # 1 / sqrt(500) = .045 is one standard deviation; 780 pairs stay within 5.
  assert np.abs(correlation).max() < 0.225


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.float16, np.float32, np.float64]
)
def test_views_are_float32_with_0_in_padded_slots(dtype):
  views = augment.make_views(_video(5, dtype=dtype), _rng(), **EVERYTHING)
  assert views.frames.shape == (2, 8, 16) and views.frames.dtype == np.float32
  assert views.mask.shape == (2, 8)
  assert not views.mask.all()
  assert np.all(views.frames[~views.mask] == 0)
  assert np.all(np.any(views.frames[views.mask] != 0, axis=-1))


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_with_everything_off_views_are_the_stored_frames(dtype):
  frames = _video(8, dtype=dtype)
  views = augment.make_views(frames, _rng(), num_frames=8)
  expected = np.stack([frames, frames]).astype(np.float32)
  np.testing.assert_array_equal(views.frames, expected, strict=True)
  assert views.mask.all()


def test_making_views_does_not_change_the_video():
  frames = _video(8, dtype=np.float32)
  augment.make_views(frames, _rng(), **EVERYTHING)
  np.testing.assert_array_equal(frames, _video(8, dtype=np.float32))


def test_views_show_the_frames_in_order():
  frames = _numbered_video(40)
  rng = _rng()
  for _ in range(50):
    views = augment.make_views(
        frames,
        rng,
        num_frames=8,
        crop_fraction=(0.3, 1.0),
        playback_rate=(0.5, 2.0),
    )
    for view, mask in zip(views.frames, views.mask, strict=True):
      assert np.all(np.diff(view[mask, 0]) > 0)


def test_the_frames_of_the_two_views_are_drawn_independently():
  # One segment of 4 frames and one slot: the joint counts are a 4 x 4 table.
  frames, rng = _numbered_video(4), _rng()
  counts = np.zeros((4, 4))
  for _ in range(3200):
    views = augment.make_views(frames, rng, num_frames=1)
    first, second = views.frames[:, 0, 0].astype(int) - 1
    counts[first, second] += 1
  # 200 a cell; chi-square with 15 degrees of freedom exceeds 45 once in 10^4.
  assert np.sum((counts - 200) ** 2 / 200) < 45


def test_the_crops_of_the_two_views_are_drawn_independently():
  frames, rng = _numbered_video(11), _rng()
  starts = []
  for _ in range(2000):
    views = augment.make_views(
        frames, rng, num_frames=11, crop_fraction=(0.5, 1.0)
    )
    starts.append([views.frames[0, 0, 0], views.mask[1].sum()])
  # 1 / sqrt(2000) = .022 is one standard deviation.
  assert abs(np.corrcoef(np.transpose(starts))[0, 1]) < 0.11


@pytest.mark.parametrize("part", ["noise_std", "dropout_rate", "mix_max"])
def test_the_stand_ins_of_the_two_views_differ(part):
  views = augment.make_views(_video(8), _rng(), num_frames=8, **{part: 0.5})
  assert np.mean(views.frames[0] != views.frames[1]) > 0.4


def test_noise_is_one_gaussian_vector_for_all_frames_of_a_view():
  frames = _video(6, dim=4000, dtype=np.float32)
  shift = augment.add_noise(frames, noise_std=0.1, rng=_rng()) - frames
  # Adding to values up to 9 rounds at 5e-7; the shift itself is about .5.
  np.testing.assert_allclose(shift, np.tile(shift[0], (6, 1)), atol=2e-6)
  root_mean_square = np.sqrt(np.mean(np.square(frames, dtype=np.float64)))
  unit = shift[0] / (0.1 * root_mean_square)
  # 4000 draws: standard errors .016 of the mean and .011 of the spread.
  assert abs(unit.mean()) < 0.08 and abs(unit.std() - 1) < 0.056


def test_noise_scales_with_the_features():
  frames = _video(6, dtype=np.float32)
  small = augment.add_noise(frames, noise_std=0.1, rng=_rng())
  large = augment.add_noise(frames * 1024, noise_std=0.1, rng=_rng())
  # A power of two changes no digit of a float32.
  np.testing.assert_array_equal(large, small * 1024, strict=True)


def test_dropout_drops_the_same_dimensions_in_all_frames_of_a_view():
  frames = np.ones((6, 10_000), np.float32)
  dropped = augment.drop_features(frames, dropout_rate=0.2, rng=_rng())
  np.testing.assert_array_equal(dropped, np.tile(dropped[0], (6, 1)))
  assert set(np.unique(dropped)) == {0, np.float32(1.25)}
  # Binomial of 10,000: one standard deviation is .004.
  assert abs(np.mean(dropped[0] == 0) - 0.2) < 0.02


def test_mixing_blends_a_frame_with_one_neighbour_up_to_the_largest_weight():
  # One-hot frames: a row of the result is its weights.
  rng = _rng()
  taken = {"before": 0, "after": 0}
  largest = 0
  for _ in range(300):
    weights = augment.mix_neighbours(
        np.eye(6, dtype=np.float32), mix_max=0.4, rng=rng
    )
    np.testing.assert_allclose(weights.sum(axis=1), np.ones(6), rtol=1e-6)
    for t, row in enumerate(weights):
      own, rest = row[t], np.delete(row, t)
      assert 0.6 - 1e-6 <= own <= 1 and np.count_nonzero(rest) <= 1
      assert set(np.flatnonzero(row)) <= {t - 1, t, t + 1}
      largest = max(largest, 1 - own)
    taken["before"] += int(weights[3, 2] > 0)
    taken["after"] += int(weights[3, 4] > 0)
  assert largest > 0.39
  assert abs(taken["before"] - taken["after"]) < 87  # 5 standard deviations.


def test_mixing_stays_between_the_smallest_and_largest_value():
  frames = _video(12, dtype=np.float32)
  frames[::2] = 0
  for number in range(50):
    mixed = augment.mix_neighbours(frames, mix_max=1.0, rng=_rng(number))
    assert np.all(mixed >= 0)
    # Rounding: one ulp of 9 is 1e-6.
    assert np.all(mixed <= frames.max(axis=0) + 1e-6)


def test_a_view_of_one_frame_has_no_neighbour_to_mix_with():
  frames = np.ones((1, 4), np.float32)
  mixed = augment.mix_neighbours(frames, mix_max=0.5, rng=_rng())
  np.testing.assert_array_equal(mixed, frames, strict=True)


@pytest.mark.parametrize(
    "stand_in",
    [
        lambda frames: augment.add_noise(frames, noise_std=0.0, rng=_rng()),
        lambda frames: augment.drop_features(
            frames, dropout_rate=0.0, rng=_rng()
        ),
        lambda frames: augment.mix_neighbours(frames, mix_max=0.0, rng=_rng()),
    ],
    ids=["noise", "dropout", "mixing"],
)
def test_a_stand_in_switched_off_is_the_identity(stand_in):
  frames = _video(6, dtype=np.float32)
  np.testing.assert_array_equal(
      stand_in(frames), _video(6, dtype=np.float32), strict=True
  )


@pytest.mark.parametrize(
    "stand_in",
    [
        lambda frames: augment.add_noise(frames, noise_std=0.5, rng=_rng()),
        lambda frames: augment.drop_features(
            frames, dropout_rate=0.5, rng=_rng()
        ),
        lambda frames: augment.mix_neighbours(frames, mix_max=0.5, rng=_rng()),
    ],
    ids=["noise", "dropout", "mixing"],
)
def test_a_stand_in_acts_and_leaves_its_input_alone(stand_in):
  frames = _video(6, dtype=np.float32)
  assert np.mean(stand_in(frames) != frames) > 0.3
  np.testing.assert_array_equal(frames, _video(6, dtype=np.float32))


def test_a_view_shows_one_stored_variant_and_any_of_them():
  frames, rng = _numbered_video(8, num_variants=3), _rng()
  pairs = np.zeros((3, 3))
  for _ in range(900):
    views = augment.make_views(frames, rng, num_frames=8)
    chosen = views.frames[:, 0, 0] // 100
    expected = np.arange(1, 9) + 100 * chosen[:, None]
    np.testing.assert_array_equal(views.frames[:, :, 0], expected)
    pairs[tuple(chosen.astype(int))] += 1
  # 100 a cell, drawn for each view by itself: chi-square with 8 degrees of
  # freedom exceeds 32 once in 10^4.
  assert np.sum((pairs - 100) ** 2 / 100) < 32


def test_stored_variants_take_the_place_of_the_stand_ins():
  frames = _numbered_video(8, num_variants=2)
  views = augment.make_views(
      frames, _rng(), num_frames=8, noise_std=0.5, dropout_rate=0.5, mix_max=0.5
  )
  assert np.all(views.frames % 100 == np.arange(1, 9)[:, None])


def test_a_single_variant_is_no_choice_so_the_stand_ins_act():
  frames = _video(8)
  single = augment.make_views(frames[:, None], _rng(), **EVERYTHING)
  plain = augment.make_views(frames, _rng(), **EVERYTHING)
  np.testing.assert_array_equal(single.frames, plain.frames, strict=True)


def test_the_plain_view_of_a_short_video_is_all_of_it():
  frames, mask = augment.plain_view(
      _numbered_video(3, num_variants=2), num_frames=5
  )
  assert frames.dtype == np.float32
  assert frames[:, 0].tolist() == [1, 2, 3, 0, 0]
  assert mask.tolist() == [True] * 3 + [False] * 2


def test_the_plain_view_of_a_long_video_takes_the_centres_of_segments():
  frames, mask = augment.plain_view(_numbered_video(15), num_frames=5)
  assert frames[:, 0].tolist() == [2, 5, 8, 11, 14]
  assert mask.all()
