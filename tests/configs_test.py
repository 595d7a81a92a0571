"""Every config file loads, holds to the rules and builds its model."""

import pathlib

import jax
import pytest

from chain_jax import config_rules, factories, main_flags, train_state
from chain_jax import optimizer as optimizer_lib

_FOLDER = pathlib.Path(__file__).resolve().parent.parent / "configs"
_FILES = sorted(_FOLDER.glob("*.py"))


def test_the_promised_configs_are_there():
  promised = {"quickstart", "ucf101", "hmdb51", "fcvid", "activitynet"}
  assert promised <= {file.stem for file in _FILES}


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.stem)
@pytest.mark.parametrize("num_bits", [16, 32, 64, 128])
def test_a_config_builds_its_model_at_every_length(file, num_bits):
  config = main_flags.load_config(str(file))
  config.model.num_bits = num_bits
  assert config.name == file.stem
  for num_devices in (1, 8):
    config_rules.validate(config, num_devices=num_devices)
  model = train_state.make_model(config.model)
  schedule = optimizer_lib.make_schedule(
      learning_rate=0.1, warmup_steps=1, num_steps=2
  )
  optimizer = factories.make_optimizer(config.optimizer, schedule)
  state = jax.eval_shape(
      factories.make_initialiser(config, model, optimizer), 0
  )
  kernel = state.params["projection"]["kernel"]
  assert kernel.shape == (config.data.feature_dim, config.model.width)
  layer = state.params["hash_layer"]
  num_detail_bits = model.num_detail_bits
  assert layer["bits"]["bias"].size == num_bits - num_detail_bits
  if num_detail_bits:
    details = state.statistics["hash_layer"]["detail_bits"]
    assert details["offsets"].size == num_detail_bits


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.stem)
def test_a_config_says_how_to_run_it(file):
  assert f"chain_jax.main --config=configs/{file.name}" in file.read_text()
