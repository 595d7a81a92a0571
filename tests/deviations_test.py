"""Deviations against float64, and the laws that they follow."""

import jax.numpy as jnp
import numpy as np
import pytest

from chain_jax.models import deviations


def _case(rows=5, frames=6, dim=7, seed=0):
  rng = np.random.default_rng(seed)
  values = 3 * rng.normal(size=(rows, frames, dim)).astype(np.float32)
  mask = np.arange(frames) < rng.integers(2, frames + 1, size=(rows, 1))
  return values, mask


def _deviations(values, mask):
  return np.asarray(
      deviations.squared_deviations(jnp.asarray(values), jnp.asarray(mask))
  )


def test_deviations_agree_with_float64():
  values, mask = _case()
  expected = np.empty(values.shape)
  for row, (frames, counted) in enumerate(zip(values, mask, strict=True)):
    exact = frames.astype(np.float64)
    squares = (exact - exact[counted].mean(axis=0)) ** 2
    variance = exact[counted].var(axis=0)
    expected[row] = squares / np.sqrt(np.mean(variance**2))
  # A handful of float32 sums of squares.
  np.testing.assert_allclose(
      _deviations(values, mask), expected.astype(np.float32), rtol=1e-5
  )


def test_neither_a_shift_of_all_frames_nor_their_scale_changes_them():
  values, mask = _case()
  shift = np.random.default_rng(1).normal(size=(5, 1, 7))
  plain = _deviations(values, mask)
  moved = _deviations(np.float32(4 * values + shift), mask)
  np.testing.assert_allclose(moved, plain, rtol=1e-4, atol=1e-5)


def test_frames_that_do_not_count_change_no_other():
  values, mask = _case()
  changed = np.where(mask[..., None], values, np.float32(1e3))
  plain, other = _deviations(values, mask), _deviations(changed, mask)
  np.testing.assert_array_equal(other[mask], plain[mask], strict=True)


@pytest.mark.parametrize("value", [0.0, 0.7])
@pytest.mark.parametrize("num_counted", [0, 1, 4])
def test_equal_frames_deviate_by_nothing(num_counted, value):
  values = np.full((2, 4, 3), value, np.float32)
  mask = np.tile(np.arange(4) < num_counted, (2, 1))
  found = _deviations(values, mask)[mask]
  np.testing.assert_allclose(found, np.zeros_like(found), atol=1e-10)


def test_what_hardly_changes_is_not_blown_up():
  values = np.ones((1, 2, 3), np.float32)
  values[0, :, 0] += [0.03, -0.03]  # Variances .0009, 0 and 0.
  found = _deviations(values, np.ones((1, 2), bool))
  # Beside a hundredth of the mean square, which is 1.0003.
  np.testing.assert_allclose(
      found[0, 0], [0.0009 / 0.010003, 0, 0], rtol=1e-4, atol=1e-8
  )


def test_half_precision_comes_and_goes():
  values, mask = _case()
  half = deviations.squared_deviations(
      jnp.asarray(values, jnp.bfloat16), jnp.asarray(mask)
  )
  assert half.dtype == jnp.bfloat16
  # 8 bits of each frame, a square and the scale.
  error = np.abs(np.float32(half) - _deviations(values, mask))[mask]
  assert error.max() < 0.05 * _deviations(values, mask)[mask].max()
