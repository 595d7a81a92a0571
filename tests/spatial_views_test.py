"""Variants of a video: one draw for all frames, and each part of it acts."""

import colorsys

import numpy as np
import pytest

from chain_jax import errors
from chain_jax.data import spatial_views
from chain_jax.data.spatial_views import SpatialSettings, ViewDraw

_OFF = SpatialSettings(
    crop_area=(1.0, 1.0),
    crop_aspect=(1.0, 1.0),
    flip_probability=0.0,
    jitter_probability=0.0,
    grey_probability=0.0,
    blur_probability=0.0,
)


def _frames(num_frames=2, height=48, width=64, seed=0):
  rng = np.random.default_rng(seed)
  blocks = rng.integers(0, 256, (num_frames, height // 8, width // 8, 3))
  return blocks.repeat(8, 1).repeat(8, 2).astype(np.uint8)


def _views(
    frames, *, num_variants=4, size=32, seed=0, video_id="a", **settings
):
  return spatial_views.spatial_views(
      frames,
      num_variants=num_variants,
      size=size,
      seed=seed,
      video_id=video_id,
      settings=SpatialSettings()._replace(**settings),
  )


def _only(**settings):
  return {**_OFF._asdict(), **settings}


def _draw(settings, *, seed, height=48, width=64):
  rng = spatial_views.view_rng(seed, video_id="a", variant=1)
  return spatial_views.draw_view(
      rng, height=height, width=width, settings=settings
  )


def test_variants_have_the_asked_shape():
  assert _views(_frames(3), num_variants=5).shape == (3, 5, 32, 32, 3)
  assert _views(_frames(3), num_variants=1).shape == (3, 1, 32, 32, 3)


def test_the_first_variant_is_the_square_at_the_centre():
  frames = _frames()
  for seed in range(3):
    plain = _views(frames, num_variants=2, size=48, seed=seed)[:, 0]
    np.testing.assert_array_equal(plain, frames[:, :, 8:56], strict=True)
  tall = frames.swapaxes(1, 2)
  plain = _views(tall, num_variants=1, size=48)[:, 0]
  np.testing.assert_array_equal(plain, tall[:, 8:56], strict=True)


def test_a_still_video_stays_still_in_every_variant():
  still = _frames(1).repeat(4, axis=0)
  views = _views(still, num_variants=12)
  expected = views[:1].repeat(4, axis=0)
  np.testing.assert_array_equal(views, expected, strict=True)


def test_variants_differ_from_each_other_and_between_videos_and_seeds():
  frames = _frames()
  views = [_views(frames), _views(frames, seed=1), _views(frames, video_id="b")]
  drawn = np.concatenate([one[:, 1:] for one in views], axis=1)
  assert len({drawn[:, i].tobytes() for i in range(drawn.shape[1])}) == 9


def test_a_variant_is_a_function_of_seed_id_and_number_alone():
  frames = _frames()
  few, many = _views(frames, num_variants=2), _views(frames, num_variants=6)
  np.testing.assert_array_equal(few, many[:, :2], strict=True)
  np.testing.assert_array_equal(many, _views(frames, num_variants=6))


def test_the_first_draw_is_the_same_on_every_machine():
  # SHA-256 of "7\n1\nclips/\u00fc.mp4", its first 16 bytes, is the key of Philox.
  digest = bytes.fromhex("f6ded52768f03c79bc6acc192d126792")
  key = [int.from_bytes(digest[i : i + 8], "little") for i in (0, 8)]
  expected = np.random.Generator(
      np.random.Philox(key=np.array(key, np.uint64))
  ).random()
  rng = spatial_views.view_rng(7, video_id="clips/\u00fc.mp4", variant=1)
  assert rng.random() == expected


def test_with_all_parts_off_a_variant_is_the_plain_one():
  views = _views(_frames(), **_OFF._asdict())
  expected = views[:, :1].repeat(4, axis=1)
  np.testing.assert_array_equal(views, expected, strict=True)


@pytest.mark.parametrize(
    "part",
    [
        {"crop_area": (0.3, 0.9)},
        {"crop_aspect": (0.5, 0.75)},
        {"flip_probability": 1.0},
        {"jitter_probability": 1.0, "contrast": 0, "saturation": 0, "hue": 0},
        {"jitter_probability": 1.0, "brightness": 0, "saturation": 0, "hue": 0},
        {"jitter_probability": 1.0, "brightness": 0, "contrast": 0, "hue": 0},
        {
            "jitter_probability": 1.0,
            "brightness": 0,
            "contrast": 0,
            "saturation": 0,
        },
        {"grey_probability": 1.0},
        {"blur_probability": 1.0, "blur_sigma": (4.0, 5.0)},
    ],
)
def test_each_part_acts_by_itself(part):
  views = _views(_frames(), num_variants=2, **_only(**part))
  assert np.abs(views[:, 1].astype(int) - views[:, 0]).mean() > 1


@pytest.mark.parametrize(
    "part",
    [
        {"jitter_probability": 0.0},
        {"grey_probability": 0.0},
        {"blur_probability": 0.0},
        {"flip_probability": 0.0},
        {"crop_area": (1.0, 1.0)},
    ],
)
def test_switching_a_part_off_leaves_the_other_draws(part):
  off_fields = {
      "jitter_probability": {"brightness", "contrast", "saturation", "hue"},
      "grey_probability": {"saturation"},
      "blur_probability": {"blur_sigma"},
      "flip_probability": {"is_flipped"},
      "crop_area": {"box"},
  }[next(iter(part))]
  for seed in range(20):
    whole = _draw(SpatialSettings(), seed=seed)._asdict()
    less = _draw(SpatialSettings()._replace(**part), seed=seed)._asdict()
    changed = {name for name in whole if whole[name] != less[name]}
    assert changed <= off_fields


def test_a_flip_is_a_mirror_image():
  views = _views(_frames(), num_variants=2, **_only(flip_probability=1.0))
  np.testing.assert_array_equal(views[:, 1], views[:, 0, :, ::-1], strict=True)


def test_grey_has_equal_channels_of_the_brightness_of_the_colours():
  frames = _frames()
  views = _views(frames, num_variants=2, **_only(grey_probability=1.0))
  plain, grey = views[:, 0].astype(float), views[:, 1]
  expected = plain @ [0.299, 0.587, 0.114]
  for channel in range(3):
    np.testing.assert_allclose(grey[..., channel], expected, atol=0.51)


def test_grey_is_grey_whatever_else_was_drawn():
  views = _views(_frames(), num_variants=9, grey_probability=1.0)[:, 1:]
  assert (views == views[..., :1]).all()


def _slow_colours(pixels, draw, mean_luma):
  """Brightness, contrast, saturation, hue of one pixel after the other."""
  changed = []
  for pixel in pixels:
    values = [value * draw.brightness for value in pixel]
    middle = mean_luma * draw.brightness
    values = [middle + (v - middle) * draw.contrast for v in values]
    luma = 0.299 * values[0] + 0.587 * values[1] + 0.114 * values[2]
    values = [luma + (v - luma) * draw.saturation for v in values]
    y, i, q = colorsys.rgb_to_yiq(*(v / 255 for v in values))
    turned = (i + 1j * q) * np.exp(2j * np.pi * draw.hue)
    # To RGB by the inverse of the same module's matrix, which does not clip.
    basis = [colorsys.rgb_to_yiq(*axis) for axis in np.eye(3)]
    back = np.linalg.solve(np.transpose(basis), [y, turned.real, turned.imag])
    changed.append(back * 255)
  return np.array(changed)


@pytest.mark.parametrize("seed", range(10))
def test_colours_agree_with_one_step_after_the_other(seed):
  rng = np.random.default_rng(seed)
  pixels = rng.integers(0, 256, (20, 3)).astype(float)
  draw = ViewDraw(
      (0, 0, 1, 1),
      brightness=rng.uniform(0.2, 1.8),
      contrast=rng.uniform(0.2, 1.8),
      saturation=rng.uniform(0.2, 1.8),
      hue=rng.uniform(-0.2, 0.2),
  )
  matrix = spatial_views.colour_matrix(draw, mean_luma=120.0)
  actual = np.column_stack([pixels, np.ones(20)]) @ matrix.T
  expected = _slow_colours(pixels, draw, 120.0)
  # colorsys rounds the constants of YIQ to two digits: 2 % of the range.
  np.testing.assert_allclose(actual, expected, atol=10, strict=True)


def test_a_third_of_a_turn_takes_red_towards_another_colour_not_to_grey():
  draw = ViewDraw((0, 0, 1, 1), hue=1 / 3)
  matrix = spatial_views.colour_matrix(draw, mean_luma=0.0)
  red, grey = matrix @ [200, 0, 0, 1], matrix @ [90, 90, 90, 1]
  assert np.argmax(red) != 0 and np.ptp(red) > 100
  np.testing.assert_allclose(grey, [90, 90, 90])  # Grey has no hue.


def test_contrast_turns_around_the_mean_of_the_whole_variant():
  # A dark and a bright frame: by the mean of both they draw together; each by
  # its own mean they would stay as they are.
  frames = np.stack([np.full((32, 32, 3), v, np.uint8) for v in (60, 180)])
  drawn = _only(jitter_probability=1.0, brightness=0, saturation=0, hue=0)
  views = _views(frames, num_variants=8, **drawn)[:, 1:, 0, 0, 0].astype(int)
  for variant in range(7):
    draw = spatial_views.draw_view(
        spatial_views.view_rng(0, video_id="a", variant=variant + 1),
        height=32,
        width=32,
        settings=SpatialSettings()._replace(**drawn),
    )
    expected = 120 + draw.contrast * np.array([-60, 60])
    expected = np.clip(expected, 0, 255)
    np.testing.assert_allclose(views[:, variant], expected, atol=0.51)


def test_blur_grows_with_the_size_of_the_picture():
  # A step, blurred by sigma s, climbs from 16 to 84 % over 2 s pixels.
  for size in (112, 224):
    frames = np.zeros((1, size, size, 3), np.uint8)
    frames[:, :, size // 2 :] = 255
    drawn = _only(blur_probability=1.0, blur_sigma=(8.0, 8.0))
    row = _views(frames, num_variants=2, size=size, **drawn)[0, 1, 0, :, 0]
    width = np.interp([0.16, 0.84], row / 255, np.arange(size)) @ [-1, 1]
    np.testing.assert_allclose(width, 2 * 8 * size / 224, rtol=0.1)


def test_the_area_and_aspect_of_crops_follow_their_law():
  settings = SpatialSettings()
  # In a square, the only boxes that do not fit are large and far from square;
  # with aspect 1 all fit, and the area is uniform.
  square = settings._replace(crop_aspect=(1.0, 1.0))
  boxes = np.array(
      [_draw(square, seed=s, height=60, width=60).box for s in range(2000)]
  )
  sides = boxes[:, 2:] - boxes[:, :2]
  area = sides.prod(axis=1) / 3600
  # Means of 2000 draws: 4 standard errors are .018 and .016.
  assert abs(area.mean() - 0.65) < 0.018
  assert abs(area.std() - 0.7 / 12**0.5) < 0.016
  assert area.min() >= 0.3 and area.max() <= 1
  # The place is even over what is left free: mean 1/2.
  places = boxes[:, :2] / (60 - sides)
  assert np.abs(places.mean(axis=0) - 0.5).max() < 0.026


def test_crops_lie_inside_the_frame_and_keep_their_limits():
  settings = SpatialSettings()
  for seed in range(500):
    left, top, right, bottom = _draw(settings, seed=seed).box
    assert 0 <= left < right <= 64 and 0 <= top < bottom <= 48
    aspect = (right - left) / (bottom - top)
    area = (right - left) * (bottom - top) / (48 * 64)
    assert 3 / 4 - 1e-9 <= aspect <= 4 / 3 + 1e-9 and area >= 0.3 - 1e-9


def test_a_frame_that_no_crop_fits_gives_the_largest_at_its_centre():
  settings = SpatialSettings()._replace(crop_area=(0.9, 1.0))
  assert _draw(settings, seed=0, height=30, width=300).box == (130, 0, 170, 30)


def test_chances_and_factors_follow_their_law():
  settings = SpatialSettings()
  draws = [_draw(settings, seed=seed) for seed in range(2000)]
  jittered = [draw for draw in draws if draw.brightness != 1]
  # 4 standard errors of a share of 2000 are at most .045.
  assert abs(len(jittered) / 2000 - 0.8) < 0.045
  assert abs(np.mean([draw.is_flipped for draw in draws]) - 0.5) < 0.045
  assert abs(np.mean([draw.saturation == 0 for draw in draws]) - 0.2) < 0.045
  assert abs(np.mean([draw.blur_sigma > 0 for draw in draws]) - 0.5) < 0.045
  limits = {
      "brightness": (0.2, 1.8),
      "contrast": (0.2, 1.8),
      "hue": (-0.2, 0.2),
  }
  for name, (low, high) in limits.items():
    values = np.array([getattr(draw, name) for draw in jittered])
    assert low <= values.min() < low + 0.01 * (high - low)
    assert high >= values.max() > high - 0.01 * (high - low)
    assert abs(values.mean() - (low + high) / 2) < 0.05 * (high - low)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crop_area", (0.0, 1.0)),
        ("crop_area", (0.5, 1.1)),
        ("crop_aspect", (2.0, 1.0)),
        ("flip_probability", 1.5),
        ("brightness", -0.1),
        ("hue", 0.6),
        ("blur_sigma", (0.1, float("nan"))),
    ],
)
def test_a_wrong_setting_is_named(field, value):
  with pytest.raises(errors.InputError, match=f"`{field}` must be .* got"):
    _views(_frames(), **{field: value})
