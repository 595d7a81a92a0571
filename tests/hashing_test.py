import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from chain_jax.models import hashing


def _case(batch=3, frames=5, width=12, seed=0):
  rng = np.random.default_rng(seed)
  rows = rng.normal(size=(batch, frames, width + 4)).astype(np.float32)
  mask = np.arange(frames) < np.array([[frames], [frames - 2], [1]])
  tokens, features = rows[..., :width], rows[..., width:]
  return tuple(map(jnp.asarray, (tokens, features, mask)))


def _hash(*case, **settings):
  layer = hashing.HashLayer(num_bits=16, **settings)
  variables = layer.init(jax.random.key(0), *case, deterministic=True)
  if "statistics" in variables:  # As if fitted: without offsets all pass.
    details = variables["statistics"]["detail_bits"]
    details["offsets"] = jnp.linspace(-1, 1, details["offsets"].size)
  return layer.apply(variables, *case, deterministic=True), variables


def _reference_logits(variables, embedding, frame, normalise_bits):
  params = jax.tree.map(np.float64, variables["params"])
  if "hidden" in params:
    hidden = reference.dense(embedding, params["hidden"])
    embedding = np.maximum(hidden, 0)
  logits = reference.dense(embedding, params["bits"])
  if normalise_bits:
    logits = reference.layer_norm(logits)
  if "statistics" not in variables:
    return logits
  details = jax.tree.map(np.float64, variables["statistics"]["detail_bits"])
  projected = frame @ details["directions"] - details["offsets"]
  return np.concatenate([logits, projected])


@pytest.mark.parametrize("num_detail_bits", [0, 5])
@pytest.mark.parametrize("hidden_dim", [0, 7])
@pytest.mark.parametrize("normalise_bits", [False, True])
@pytest.mark.parametrize("pooling", hashing.POOLINGS)
@pytest.mark.parametrize("relaxation", hashing.RELAXATIONS)
def test_hash_layer_agrees_with_loops_in_float64(
    num_detail_bits, hidden_dim, normalise_bits, pooling, relaxation
):
  tokens, features, mask = _case()
  output, variables = _hash(
      tokens,
      features,
      mask,
      num_detail_bits=num_detail_bits,
      hidden_dim=hidden_dim,
      normalise_bits=normalise_bits,
      pooling=pooling,
      relaxation=relaxation,
  )
  relax = (
      np.tanh
      if relaxation == "tanh"
      else (lambda logits: np.where(logits >= 0, 1.0, -1.0))
  )
  for video in range(3):
    valid = np.asarray(mask[video])
    rows = [np.float64(array[video])[valid] for array in (tokens, features)]
    if pooling == "pool_then_hash":
      means = [array.mean(axis=0) for array in rows]
      logits = _reference_logits(variables, *means, normalise_bits)
      codes = relax(logits)
    else:
      each = [
          relax(_reference_logits(variables, *frame, normalise_bits))
          for frame in zip(*rows, strict=True)
      ]
      logits = codes = np.mean(each, axis=0)
    # float32 products of width 12, then a norm: 1e-6 each.
    for actual, expected in (
        (output.hash_logits[video], logits),
        (output.relaxed_codes[video], codes),
    ):
      np.testing.assert_allclose(
          np.asarray(actual),
          expected.astype(np.float32),
          rtol=1e-4,
          atol=1e-5,
          strict=True,
      )


@pytest.mark.parametrize("pooling", hashing.POOLINGS)
def test_padding_does_not_reach_the_code(pooling):
  *rows, mask = _case()
  changed = [jnp.where(mask[..., None], array, jnp.nan) for array in rows]
  outputs = [
      _hash(*content, mask, num_detail_bits=8, pooling=pooling)[0]
      for content in (rows, changed)
  ]
  jax.tree.map(
      lambda a, b: np.testing.assert_array_equal(a, b, strict=True), *outputs
  )


def test_relaxed_codes_have_the_signs_of_the_hash_logits():
  for pooling in hashing.POOLINGS:
    for relaxation in hashing.RELAXATIONS:
      output, _ = _hash(*_case(), pooling=pooling, relaxation=relaxation)
      np.testing.assert_array_equal(
          np.asarray(output.hash_logits) >= 0,
          np.asarray(output.relaxed_codes) >= 0,
          strict=True,
      )


def test_straight_through_sign_is_exact_and_maps_zero_to_plus_one():
  logits = jnp.array([-3.0, -1e-30, -0.0, 0.0, 1e-30, 0.37, 40.0])
  expected = np.float32([-1, -1, 1, 1, 1, 1, 1])
  np.testing.assert_array_equal(
      np.asarray(hashing.straight_through_sign(logits)), expected, strict=True
  )


def test_straight_through_sign_has_the_gradient_of_tanh():
  logits = jnp.linspace(-4, 4, 9)
  actual = jax.grad(lambda x: jnp.sum(hashing.straight_through_sign(x)))(logits)
  expected = 1 - np.tanh(np.float64(logits)) ** 2
  # 1 - tanh^2 at 4 is a difference of nearly equal float32 numbers.
  np.testing.assert_allclose(
      np.asarray(actual), expected.astype(np.float32), atol=1e-6, strict=True
  )


def test_dropout_acts_in_the_hidden_layer_in_training():
  case = _case()
  layer = hashing.HashLayer(num_bits=16, hidden_dim=32)
  variables = layer.init(jax.random.key(0), *case, deterministic=True)
  outputs = [
      layer.apply(
          variables,
          *case,
          deterministic=False,
          rngs={"dropout": jax.random.key(seed)},
      ).hash_logits
      for seed in range(2)
  ]
  assert np.any(outputs[0] != outputs[1])


def test_normalised_logits_have_zero_mean_and_unit_variance_over_bits():
  output, variables = _hash(*_case(), normalise_bits=True)
  assert set(variables["params"]) == {"bits"}
  logits = np.asarray(output.hash_logits)
  # The norm's epsilon of 1e-6 beside a variance of about 0.3.
  np.testing.assert_allclose(logits.mean(-1), np.zeros(3), atol=1e-5)
  np.testing.assert_allclose(logits.std(-1), np.ones(3), atol=1e-4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_bits", 12),
        ("num_bits", 0),
        ("hidden_dim", -1),
        ("relaxation", "sigmoid"),
        ("pooling", "max"),
    ],
)
def test_bad_settings_are_named(field, value):
  with pytest.raises(ValueError, match=f"^`{field}` must.*{value}"):
    hashing.HashLayer(**{"num_bits": 16, field: value})
