"""What a config asks for, made for its code length."""

import pytest

from chain_jax import config as config_lib
from chain_jax import factories


@pytest.mark.parametrize(
    "num_bits, temperature, decorrelation",
    # By hand: 0.2 * sqrt(64 / bits), 4 * bits / 64.
    [(64, 0.2, 4.0), (16, 0.4, 1.0), (256, 0.1, 16.0)],
)
def test_temperature_and_decorrelation_fit_the_code_length(
    num_bits, temperature, decorrelation
):
  loss = config_lib.LossConfig(
      temperature=0.2, decorrelation=4.0, reference_bits=64
  )
  scaled = factories.scaled_loss(loss, num_bits=num_bits)
  assert scaled.temperature == pytest.approx(temperature)
  assert scaled.decorrelation == pytest.approx(decorrelation)
  assert loss.temperature == 0.2


def test_without_a_reference_they_are_as_written():
  loss = config_lib.LossConfig(temperature=0.2, decorrelation=4.0)
  assert factories.scaled_loss(loss, num_bits=16) == loss
