import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from chain_jax.losses import local


def _order_case(batch=5, frames=6, seed=0):
  rng = np.random.default_rng(seed)
  logits = 2 * rng.normal(size=(batch, frames, frames)).astype(np.float32)
  permutation = np.stack([rng.permutation(frames) for _ in range(batch)])
  mask = rng.random((batch, frames)) < 0.7
  mask[0] = True
  return logits, permutation.astype(np.int32), mask


def _scene_case(videos=6, frames=9, dim=5, seed=0):
  rng = np.random.default_rng(seed)
  scenes = rng.normal(size=(videos, 3, dim)).repeat(frames // 3, axis=1)
  views = scenes + 0.3 * rng.normal(size=scenes.shape)
  mask = rng.random((videos, frames)) < 0.85
  return views.astype(np.float32), mask


def test_frame_order_loss_agrees_with_loops_in_float64():
  case = _order_case()
  actual = local.frame_order_loss(*map(jnp.asarray, case))
  expected = np.float32(reference.frame_order_loss(*case))
  # float32 sums over 30 rows: a few ulp; a row too many moves it 1e-2.
  np.testing.assert_allclose(actual, expected, rtol=1e-5, strict=True)


def test_frame_order_accuracy_agrees_with_loops():
  case = _order_case()
  actual = local.frame_order_accuracy(*map(jnp.asarray, case))
  expected = np.float32(reference.frame_order_accuracy(*case))
  # A ratio of small integers: one rounding.
  np.testing.assert_allclose(actual, expected, rtol=1e-6, strict=True)


def test_frame_order_gradient_agrees_with_float64():
  logits, permutation, mask = _order_case(batch=2, frames=4)
  actual = jax.grad(local.frame_order_loss)(
      jnp.asarray(logits), jnp.asarray(permutation), jnp.asarray(mask)
  )
  expected = reference.gradient(
      lambda point: reference.frame_order_loss(point, permutation, mask),
      logits,
  )
  # float32 softmax: 1e-6 of 1, and differences of 1e-9.
  np.testing.assert_allclose(
      np.asarray(actual),
      expected.astype(np.float32),
      rtol=1e-4,
      atol=1e-7,
      strict=True,
  )


def test_padded_frames_do_not_enter_the_frame_order_loss():
  logits, permutation, mask = map(jnp.asarray, _order_case())
  slot_mask = jnp.take_along_axis(mask, permutation, axis=1)
  counts = slot_mask[:, :, None] & mask[:, None, :]
  changed = jnp.where(counts, logits, 50.0)
  for measure in (local.frame_order_loss, local.frame_order_accuracy):
    np.testing.assert_array_equal(
        measure(changed, permutation, mask),
        measure(logits, permutation, mask),
        strict=True,
    )


def test_frame_order_loss_is_lowest_at_the_right_order():
  permutation = jnp.array([[2, 0, 1]])
  right = 20.0 * jax.nn.one_hot(permutation, 3)
  mask = jnp.ones((1, 3), bool)
  assert local.frame_order_loss(right, permutation, mask) < 1e-6
  assert local.frame_order_loss(right, jnp.array([[0, 1, 2]]), mask) > 10
  assert local.frame_order_accuracy(right, permutation, mask) == 1


def test_frame_order_loss_without_a_valid_frame_is_zero():
  logits, permutation, mask = map(jnp.asarray, _order_case())
  loss, gradient = jax.value_and_grad(local.frame_order_loss)(
      logits, permutation, jnp.zeros_like(mask)
  )
  assert loss == 0
  np.testing.assert_array_equal(
      np.asarray(gradient), np.zeros_like(logits), strict=True
  )


def test_frame_order_loss_ignores_a_constant_added_to_a_slot():
  logits, permutation, mask = map(jnp.asarray, _order_case())
  shift = jnp.arange(6.0)[None, :, None]
  # Logits rounded at 10 instead of 1: 1e-6 each.
  np.testing.assert_allclose(
      local.frame_order_loss(logits + shift, permutation, mask),
      local.frame_order_loss(logits, permutation, mask),
      rtol=1e-5,
      strict=True,
  )


@pytest.mark.parametrize("threshold_std", [0.0, 0.5, 1.0, 2.0])
def test_scene_change_labels_agree_with_loops_in_float64(threshold_std):
  views, mask = _scene_case()
  labels, valid = local.scene_change_labels(
      jnp.asarray(views), jnp.asarray(mask), threshold_std=threshold_std
  )
  expected = [
      reference.scene_change_labels(*video, threshold_std=threshold_std)
      for video in zip(views, mask, strict=True)
  ]
  np.testing.assert_array_equal(
      np.asarray(labels), np.array([pair[0] for pair in expected]), strict=True
  )
  np.testing.assert_array_equal(
      np.asarray(valid), np.array([pair[1] for pair in expected]), strict=True
  )


def test_scene_change_labels_find_the_cut_and_nothing_else():
  first, second = np.eye(2)
  frames = jnp.asarray([first] * 3 + [second] * 4)
  labels, _ = local.scene_change_labels(
      frames, jnp.ones(7, bool), threshold_std=1.0
  )
  assert labels.tolist() == [False, False, True, False, False, False]


def test_going_black_is_a_change_and_staying_black_is_none():
  frames = jnp.asarray([[1.0, 2.0]] * 4 + [[0.0, 0.0]] * 4)
  labels, _ = local.scene_change_labels(
      frames, jnp.ones(8, bool), threshold_std=1.0
  )
  assert labels.tolist() == [False] * 3 + [True] + [False] * 3


@pytest.mark.parametrize("threshold_std", [0.0, 1.0])
def test_an_even_video_has_no_scene_change(threshold_std):
  rng = np.random.default_rng(0)
  angles = 0.3 * np.arange(12)
  plane = np.linalg.qr(rng.normal(size=(64, 2)))[0]
  rotating = np.stack([np.cos(angles), np.sin(angles)], -1) @ plane.T
  still = np.tile(rng.normal(size=64), (12, 1))
  views = jnp.asarray(np.stack([rotating, still, np.zeros((12, 64))]))
  labels, valid = local.scene_change_labels(
      views, jnp.ones((3, 12), bool), threshold_std=threshold_std
  )
  assert not np.any(labels)
  assert np.all(valid)


def test_scene_change_labels_ignore_padding_and_brightness():
  views, mask = map(jnp.asarray, _scene_case())
  padded = jnp.where(mask[..., None], views, jnp.nan)
  brightness = jnp.arange(1.0, 10.0)[:, None]
  expected, valid = local.scene_change_labels(views, mask, threshold_std=1.0)
  for changed in (padded, views * brightness):
    labels, valid_too = local.scene_change_labels(
        changed, mask, threshold_std=1.0
    )
    np.testing.assert_array_equal(labels, expected, strict=True)
    np.testing.assert_array_equal(valid_too, valid, strict=True)


def test_scene_change_labels_are_the_same_with_time_reversed():
  views, mask = map(jnp.asarray, _scene_case())
  forward, _ = local.scene_change_labels(views, mask, threshold_std=1.0)
  backward, _ = local.scene_change_labels(
      views[:, ::-1], mask[:, ::-1], threshold_std=1.0
  )
  np.testing.assert_array_equal(backward, forward[:, ::-1], strict=True)


def test_scene_change_loss_and_gradient_agree_with_float64():
  rng = np.random.default_rng(0)
  logits = 3 * rng.normal(size=(3, 2, 4)).astype(np.float32)
  labels, valid = rng.random((2, 3, 2, 4)) < 0.6
  loss, gradient = jax.value_and_grad(local.scene_change_loss)(
      jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(valid)
  )

  def slow(point):
    return reference.scene_change_loss(point, labels, valid)

  # float32 sums over 24 terms: a few ulp.
  np.testing.assert_allclose(
      loss, np.float32(slow(logits)), rtol=1e-5, strict=True
  )
  np.testing.assert_allclose(
      np.asarray(gradient),
      reference.gradient(slow, logits).astype(np.float32),
      rtol=1e-4,
      atol=1e-7,
      strict=True,
  )


def test_scene_change_loss_without_a_valid_pair_is_zero():
  nothing = jnp.zeros((2, 3), bool)
  loss, gradient = jax.value_and_grad(local.scene_change_loss)(
      jnp.full((2, 3), 1e4), nothing, nothing
  )
  assert loss == 0
  np.testing.assert_array_equal(gradient, jnp.zeros((2, 3)), strict=True)


def test_scene_change_loss_of_sure_answers_is_linear_not_infinite():
  logits = jnp.array([200.0, -200.0])
  wrong = jnp.array([False, True])
  # -log(sigmoid(-200)) is 200 to 1e-87.
  np.testing.assert_allclose(
      local.scene_change_loss(logits, wrong, jnp.array([True, True])),
      np.float32(200),
      rtol=1e-6,
      strict=True,
  )
