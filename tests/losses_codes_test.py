import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from chain_jax.losses import codes

_LOSSES = ["quantisation_loss", "bit_balance_loss", "decorrelation_loss"]


def _relaxed(seed=0):
  rng = np.random.default_rng(seed)
  return np.tanh(rng.normal(size=(4, 2, 8)) + 0.3).astype(np.float32)


@pytest.mark.parametrize("name", _LOSSES)
def test_loss_and_gradient_agree_with_loops_in_float64(name):
  relaxed = _relaxed()
  slow = getattr(reference, name)
  loss, gradient = jax.value_and_grad(getattr(codes, name))(
      jnp.asarray(relaxed)
  )
  # float32 sums over 64 terms: a few ulp.
  np.testing.assert_allclose(
      loss, np.float32(slow(relaxed)), rtol=1e-5, strict=True
  )
  np.testing.assert_allclose(
      np.asarray(gradient),
      reference.gradient(slow, relaxed).astype(np.float32),
      rtol=1e-4,
      atol=1e-8,
      strict=True,
  )


@pytest.mark.parametrize("name", _LOSSES)
def test_loss_ignores_the_order_of_rows_and_bits_and_the_sign_of_bits(name):
  relaxed = jnp.asarray(_relaxed())
  loss = getattr(codes, name)
  signs = jnp.where(jnp.arange(8) % 2, 1.0, -1.0)
  for changed in (relaxed[::-1], relaxed[..., ::-1], relaxed * signs):
    # A sum in another order: a few ulp.
    np.testing.assert_allclose(
        loss(changed), loss(relaxed), rtol=1e-5, strict=True
    )


@pytest.mark.parametrize("name", _LOSSES)
def test_loss_is_zero_for_a_perfect_code(name):
  # A Hadamard matrix without its constant column: balanced, orthogonal, +-1.
  block = np.array([[1, 1], [1, -1]], np.float32)
  hadamard = np.kron(np.kron(block, block), block)[:, 1:]
  assert getattr(codes, name)(jnp.asarray(hadamard)) == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("quantisation_loss", 0.0),
        ("bit_balance_loss", 1.0),
        ("decorrelation_loss", 7.0),
    ],
)
def test_loss_of_a_collapsed_code_by_hand(name, expected):
  actual = getattr(codes, name)(jnp.ones((4, 2, 8)))
  np.testing.assert_array_equal(actual, np.float32(expected), strict=True)


@pytest.mark.parametrize("name", _LOSSES)
def test_bfloat16_codes_accumulate_in_float32(name):
  relaxed = jnp.full((1000, 8), 0.1, jnp.bfloat16)
  expected = getattr(reference, name)(np.asarray(relaxed[:2], np.float64))
  actual = getattr(codes, name)(relaxed)
  # float32 sums over 1000 rows, in the order of the machine: 1000 ulp are 6e-5.
  # In bfloat16 a sum of 1000 stops at 256 * 0.1.
  np.testing.assert_allclose(
      actual, np.float32(expected), rtol=1e-4, strict=True
  )
