import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from chain_jax.models import heads


def _tokens(seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=(2, 5, 8)), jnp.float32)


def test_frame_order_head_gives_each_slot_one_score_a_frame():
  head = heads.FrameOrderHead()
  logits, variables = head.init_with_output(jax.random.key(0), _tokens())
  params = jax.tree.map(np.float64, variables["params"]["logits"])
  expected = reference.dense(np.float64(_tokens()), params)
  # One float32 product of width 8.
  np.testing.assert_allclose(
      np.asarray(logits),
      expected.astype(np.float32),
      rtol=1e-4,
      atol=1e-5,
      strict=True,
  )


def test_frame_order_head_moves_with_its_tokens():
  head = heads.FrameOrderHead()
  logits, variables = head.init_with_output(jax.random.key(0), _tokens())
  moved = head.apply(variables, _tokens()[:, ::-1])
  # The same products in other rows.
  np.testing.assert_allclose(
      moved, logits[:, ::-1], rtol=1e-5, atol=1e-6, strict=True
  )


def test_scene_change_head_answers_alike_with_time_reversed():
  head = heads.SceneChangeHead()
  logits, variables = head.init_with_output(jax.random.key(0), _tokens())
  assert logits.shape == (2, 4)
  backward = head.apply(variables, _tokens()[:, ::-1])
  np.testing.assert_allclose(
      backward, logits[:, ::-1], rtol=1e-5, atol=1e-6, strict=True
  )


def test_scene_change_head_sees_only_the_two_frames_of_its_pair():
  head = heads.SceneChangeHead()
  logits, variables = head.init_with_output(jax.random.key(0), _tokens())
  changed = head.apply(variables, _tokens().at[:, 4].add(1.0))
  np.testing.assert_array_equal(changed[:, :3], logits[:, :3], strict=True)
  assert np.all(changed[:, 3] != logits[:, 3])


@pytest.mark.parametrize("make", [heads.FrameOrderHead, heads.SceneChangeHead])
def test_heads_in_bfloat16_keep_float32_parameters_and_logits(make):
  logits, variables = make(dtype=jnp.bfloat16).init_with_output(
      jax.random.key(0), _tokens().astype(jnp.bfloat16)
  )
  assert logits.dtype == jnp.float32
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {
      jnp.dtype("float32")
  }
