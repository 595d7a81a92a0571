"""Frames of one video: plain variant, float32, finite."""

import numpy as np
import pytest

from chain_jax.data import records
from chain_jax.errors import InputError


def test_every_finite_float16_becomes_the_same_float32():
  every_value = np.arange(2**16, dtype=np.uint16).view(np.float16)
  finite = every_value[np.isfinite(every_value)].reshape(-1, 2)
  actual = records.to_float32(finite)
  # Bits, not values: -0.0 keeps its sign.
  np.testing.assert_array_equal(
      actual.view(np.uint32),
      finite.astype(np.float32).view(np.uint32),
      strict=True,
  )


@pytest.mark.parametrize("dtype", [">f2", np.float32, np.float64, np.uint8])
def test_other_dtypes_keep_their_values_in_float32(dtype):
  frames = np.array([[0, 1], [2, 200]], dtype)
  np.testing.assert_array_equal(
      records.to_float32(frames),
      np.array([[0, 1], [2, 200]], np.float32),
      strict=True,
  )


def test_conversion_does_not_touch_what_is_stored():
  frames = np.array([[0.5, -1.5]], np.float16)
  records.to_float32(frames)[:] = 7
  assert frames.tolist() == [[0.5, -1.5]]


def test_plain_frames_are_variant_0():
  frames = np.stack([np.full((4, 3), 1.0), np.full((4, 3), 2.0)], axis=1)
  np.testing.assert_array_equal(
      records.plain_frames(frames), np.full((4, 3), 1.0), strict=True
  )


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_features_are_scaled_and_shifted_by_dimension(dtype):
  stored = np.array([[0, 1], [100, 255]], dtype)
  scaling = records.Scaling(
      np.array([2, 0.5], np.float32), np.array([-1, 3], np.float32)
  )
  expected = np.array([[-1, 3.5], [199, 130.5]], np.float32)
  np.testing.assert_array_equal(
      records.to_features(stored, scaling), expected, strict=True
  )
  assert stored.tolist() == [[0, 1], [100, 255]]


def test_features_that_are_stored_as_they_are_keep_every_bit():
  stored = np.array([[-0.0, 1e-40]], np.float32)
  features = records.to_features(stored, records.IDENTITY)
  np.testing.assert_array_equal(
      features.view(np.uint32), stored.view(np.uint32), strict=True
  )


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [("u1", "u1"), ("f2", "f2"), (">f2", "f2"), ("f4", "f4"), (">f8", "f4")],
)
def test_devices_get_a_dtype_that_they_have(stored, wanted):
  frames = np.array([[0, 1], [2, 200]], stored)
  np.testing.assert_array_equal(
      records.for_device(frames),
      np.array([[0, 1], [2, 200]], wanted),
      strict=True,
  )


@pytest.mark.parametrize("dtype", [np.float16, ">f2", np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_with_their_frame(dtype, bad):
  frames = np.ones((4, 2, 3), dtype)
  frames[0] = -1  # A sign must not hide it.
  frames[2, 1, 0] = bad
  with pytest.raises(InputError, match=r"a\.h5, row 7: .*frame 2 \(1 such"):
    records.check_finite(frames, video="a.h5, row 7")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8])
def test_the_largest_finite_values_pass(dtype):
  info = np.iinfo if np.issubdtype(dtype, np.integer) else np.finfo
  extremes = np.array([[info(dtype).max, info(dtype).min]], dtype)
  records.check_finite(extremes, video="a.h5, row 0")
