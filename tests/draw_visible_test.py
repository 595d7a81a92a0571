"""Which frames of a view the encoder sees: how many, which, and by chance."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chain_jax.data import augment


def _draw(mask, mask_fraction, seed=0):
  return np.asarray(
      augment.draw_visible(
          jax.random.key(seed), jnp.asarray(mask), mask_fraction=mask_fraction
      )
  )


@pytest.mark.parametrize(
    ("mask_fraction", "num_visible"),
    # By hand, of 10, 5, 1 and 0 frames: 2.5 and 3.5 go to the even number.
    [
        (0.0, [10, 5, 1, 0]),
        (0.3, [7, 3, 1, 0]),
        (0.5, [5, 3, 1, 0]),
        (0.7, [3, 1, 1, 0]),
        (0.99, [1, 1, 1, 0]),
    ],
)
def test_the_share_is_of_the_valid_frames_and_one_stays(
    mask_fraction, num_visible
):
  mask = np.arange(10) < np.array([10, 5, 1, 0])[:, None]
  visible = _draw(mask, mask_fraction)
  assert visible.sum(axis=-1).tolist() == num_visible
  assert not np.any(visible & ~mask)


def test_each_choice_of_frames_has_the_same_chance():
  mask = np.ones((6000, 5), bool)
  mask[:, 1] = False  # Padding, wherever it is, is never chosen.
  visible = _draw(mask, 0.5)
  counts = [
      np.sum(np.all(visible == np.isin(np.arange(5), chosen), axis=-1))
      for chosen in itertools.combinations([0, 2, 3, 4], 2)
  ]
  # 6 pairs of 4 frames, 1000 each: 5 standard deviations of 29.
  assert sum(counts) == 6000
  np.testing.assert_allclose(counts, np.full(6, 1000), atol=145)


def test_views_and_videos_draw_by_themselves():
  mask = np.ones((3000, 2, 8), bool)
  visible = _draw(mask, 0.5)
  for one, other in (
      (visible[:, 0], visible[:, 1]),
      (visible[:-1, 0], visible[1:, 0]),
  ):
    # Half of the frames one sees are seen by the other: 24,000 draws of 1/4
    # with a deviation below 0.003.
    assert abs(np.mean(one & other) - 0.25) < 0.015


def test_the_key_alone_decides():
  mask = np.ones((4, 2, 8), bool)
  np.testing.assert_array_equal(_draw(mask, 0.5), _draw(mask, 0.5), strict=True)
  assert np.any(_draw(mask, 0.5) != _draw(mask, 0.5, seed=1))
