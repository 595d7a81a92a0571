import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import linen as nn

from chain_jax.models import encoder


def _randomised(variables, seed=0, scale=0.3):
  """Moves every parameter: zero-initialised branches would hide errors."""
  leaves, tree = jax.tree.flatten(variables)
  rng = np.random.default_rng(seed)
  moved = [
      leaf + scale * rng.normal(size=leaf.shape).astype(np.float32)
      for leaf in leaves
  ]
  return jax.tree.unflatten(tree, moved)


def _case(rows=3, frames=6, width=16, seed=0):
  rng = np.random.default_rng(seed)
  tokens = rng.normal(size=(rows, frames, width)).astype(np.float32)
  mask = np.arange(frames) < np.array([[frames], [frames - 2], [1]])
  return jnp.asarray(tokens), jnp.asarray(mask[:rows])


def _encoder(depth=2, **settings):
  module = encoder.TemporalEncoder(
      depth=depth, num_heads=4, mlp_dim=32, **settings
  )
  return module, _variables(depth)


@functools.cache
def _variables(depth):
  module = encoder.TemporalEncoder(depth=depth, num_heads=4, mlp_dim=32)
  return _randomised(_initial(module))


def _initial(module):
  init = jax.jit(functools.partial(module.init, deterministic=True))
  return init(jax.random.key(0), *_case())


def _apply(module, variables, tokens, mask, **settings):
  apply = functools.partial(module.apply, deterministic=True, **settings)
  return jax.jit(apply)(variables, tokens, mask)


def test_encoder_agrees_with_loops_in_float64():
  module, variables = _encoder()
  tokens, mask = _case()
  actual = _apply(module, variables, tokens, mask)
  params = jax.tree.map(np.float64, variables["params"])
  positions = encoder.sinusoidal_positions(6, 16)
  for row in range(3):
    expected = np.float64(tokens[row]) + positions
    for layer in range(2):
      block = jax.tree.map(lambda stacked: stacked[layer], params["blocks"])  # noqa: B023
      expected = reference.encoder_block(
          block, expected, np.asarray(mask[row]), num_heads=4
      )
    expected = reference.layer_norm(expected, **params["final_norm"])
    valid = np.asarray(mask[row])
    # Two float32 blocks of width 16: 1e-6 each on values of about 1.
    np.testing.assert_allclose(
        np.asarray(actual)[row, valid],
        expected[valid].astype(np.float32),
        rtol=1e-4,
        atol=1e-5,
        strict=True,
    )


def test_scanned_blocks_equal_blocks_applied_one_by_one():
  module, variables = _encoder(depth=3)
  tokens, mask = _case()
  block = encoder.EncoderBlock(num_heads=4, mlp_dim=32)

  @jax.jit
  def one_by_one(params):
    positions = encoder.sinusoidal_positions(6, 16)
    flat = (tokens + positions).reshape(-1, 16)
    for layer in range(3):
      own = jax.tree.map(lambda p: p[layer], params["blocks"])  # noqa: B023
      flat, _ = block.apply({"params": own}, flat, mask)
    norm = nn.LayerNorm().apply({"params": params["final_norm"]}, flat)
    return norm.reshape(tokens.shape)

  expected = one_by_one(variables["params"])
  # The same float32 operations, compiled in two ways.
  np.testing.assert_allclose(
      _apply(module, variables, tokens, mask),
      expected,
      rtol=1e-5,
      atol=1e-5,
      strict=True,
  )


def test_padded_frames_reach_no_valid_token():
  module, variables = _encoder()
  tokens, mask = _case()
  changed = jnp.where(mask[..., None], tokens, 7.0)
  outputs = [
      _apply(module, variables, content, mask) for content in (tokens, changed)
  ]
  np.testing.assert_array_equal(outputs[0][mask], outputs[1][mask], strict=True)


def test_a_row_without_a_valid_frame_gives_no_nan():
  module, variables = _encoder()
  tokens, mask = _case()

  def loss(tokens):
    encoded = module.apply(
        variables, tokens, mask.at[2].set(False), deterministic=True
    )
    return jnp.sum(jnp.square(encoded))

  value, gradient = jax.jit(jax.value_and_grad(loss))(tokens)
  assert np.isfinite(value)
  assert np.all(np.isfinite(gradient))


def test_a_lone_frame_is_encoded_as_if_the_padding_were_absent():
  module, variables = _encoder()
  tokens, mask = _case()
  padded = _apply(module, variables, tokens, mask)
  alone = _apply(module, variables, tokens[:, :1], mask[:, :1])
  # The softmax sums five zeros more.
  np.testing.assert_allclose(
      padded[2, :1], alone[2], rtol=1e-5, atol=1e-6, strict=True
  )


def test_remat_changes_no_output_and_no_gradient():
  module, variables = _encoder()
  tokens, mask = _case()

  direction = jnp.where(mask[..., None], tokens, 0.0)

  def loss_and_gradient(module):
    def loss(variables):
      encoded = module.apply(variables, tokens, mask, deterministic=True)
      return jnp.sum(encoded * direction)

    return jax.jit(jax.value_and_grad(loss))(variables)

  # The same operations, fused in another order.
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(
          a, b, rtol=1e-4, atol=1e-5, strict=True
      ),
      loss_and_gradient(module),
      loss_and_gradient(module.clone(remat=True)),
  )


def test_untrained_blocks_pass_their_tokens_on():
  module, _ = _encoder()
  tokens, mask = _case()
  variables = _initial(module)
  actual = _apply(module, variables, tokens, mask)
  positions = encoder.sinusoidal_positions(6, 16)
  expected = reference.layer_norm(np.asarray(tokens) + positions)
  # One float32 norm.
  np.testing.assert_allclose(
      np.asarray(actual), expected.astype(np.float32), atol=1e-5, strict=True
  )


def test_branch_init_scale_lets_untrained_blocks_act():
  module = encoder.TemporalEncoder(
      depth=1, num_heads=4, mlp_dim=32, branch_init_scale=1.0
  )
  variables = _initial(module)
  out = variables["params"]["blocks"]["attention"]["out"]["kernel"]
  # 256 draws of variance 1 / 16, cut at two deviations: 0.25 to 10 %.
  np.testing.assert_allclose(np.std(out), 0.25, rtol=0.15)


def test_dropout_acts_in_training_only():
  module, variables = _encoder(dropout_rate=0.5)
  tokens, mask = _case()
  apply = lambda deterministic, seed: module.apply(  # noqa: E731
      variables,
      tokens,
      mask,
      deterministic=deterministic,
      rngs={"dropout": jax.random.key(seed)},
  )
  np.testing.assert_array_equal(apply(True, 0), apply(True, 1), strict=True)
  assert np.any(apply(False, 0) != apply(False, 1))


def test_bfloat16_computes_in_bfloat16_on_float32_parameters():
  module, variables = _encoder()
  tokens, mask = _case()
  half = module.clone(dtype=jnp.bfloat16)
  initial = _initial(half)
  assert {leaf.dtype for leaf in jax.tree.leaves(initial)} == {
      jnp.dtype("float32")
  }
  actual = _apply(half, variables, tokens, mask)
  expected = _apply(module, variables, tokens, mask)
  assert actual.dtype == jnp.bfloat16
  # bfloat16 keeps 8 bits: 0.4 % a step, a dozen steps in a row.
  difference = np.abs(np.asarray(actual, np.float32) - expected)[mask]
  assert np.mean(difference) < 0.05


@pytest.mark.parametrize(("num_slots", "width"), [(25, 256), (7, 4)])
def test_positions_agree_with_the_formula_and_tell_slots_apart(
    num_slots, width
):
  positions = encoder.sinusoidal_positions(num_slots, width)
  half = width // 2
  for slot in range(num_slots):
    for pair in range(half):
      angle = slot / 10000 ** (2 * pair / width)
      # Rounded once to float32.
      np.testing.assert_allclose(
          positions[slot, [pair, half + pair]],
          np.float32([math.sin(angle), math.cos(angle)]),
          atol=1e-7,
          strict=True,
      )
  distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
  assert np.min(distances + 9 * np.eye(num_slots)) > 0.1


def test_like_frames_differ_by_their_slot():
  module, variables = _encoder()
  tokens, mask = _case()
  like = jnp.broadcast_to(tokens[:1, :1], (1, 6, 16))
  encoded = _apply(module, variables, like, mask[:1])
  assert np.min(np.ptp(np.asarray(encoded), axis=1)) > 1e-3


def _standardize(module, frames, mask, *, mean, scale):
  statistics = {"mean": jnp.asarray(mean), "scale": jnp.asarray(scale)}
  return module.apply(
      {"statistics": statistics}, jnp.asarray(frames), jnp.asarray(mask)
  )


def test_standardizer_subtracts_the_mean_and_scales_by_hand():
  actual = _standardize(
      encoder.FrameStandardizer(),
      [[3.0, 5.0], [np.nan, 1.0]],
      [True, False],
      mean=[1.0, 1.0],
      scale=[2.0, 0.5],
  )
  np.testing.assert_array_equal(
      np.asarray(actual), np.float32([[4, 2], [0, 0]]), strict=True
  )


def test_standardizer_divides_by_the_norm_first_and_keeps_black_frames():
  actual = _standardize(
      encoder.FrameStandardizer(l2_normalise=True),
      [[3.0, 4.0], [0.0, 0.0]],
      [True, True],
      mean=[0.1, 0.0],
      scale=[1.0, 1.0],
  )
  expected = np.float32([[0.5, 0.8], [-0.1, 0.0]])
  # One float32 division.
  np.testing.assert_allclose(
      np.asarray(actual), expected, rtol=1e-6, strict=True
  )


def test_standardizer_starts_as_the_identity_and_holds_no_parameter():
  frames = jnp.arange(6.0).reshape(2, 3)
  module = encoder.FrameStandardizer()
  variables = module.init(jax.random.key(0), frames, jnp.ones(2, bool))
  assert set(variables) == {"statistics"}
  np.testing.assert_array_equal(
      module.apply(variables, frames, jnp.ones(2, bool)), frames, strict=True
  )
