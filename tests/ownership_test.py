"""Whose a folder is: settings compared, those that are free left out."""

import dataclasses

from chain_jax import config as config_lib
from chain_jax import ownership


def test_a_field_added_since_had_the_effect_of_its_default():
  wanted = dataclasses.asdict(config_lib.ExperimentConfig())
  found = dataclasses.asdict(config_lib.ExperimentConfig())
  del found["neighbours"], found["loss"]["reconstruction"]
  assert ownership.differing_settings(wanted, found) == []
  wanted["loss"]["reconstruction"] = 1.0
  wanted["neighbours"]["num_neighbours"] = 5
  assert ownership.differing_settings(wanted, found) == [
      "loss.reconstruction",
      "neighbours.num_neighbours",
  ]


def test_a_field_that_is_gone_makes_another_run():
  wanted = dataclasses.asdict(config_lib.ExperimentConfig())
  found = dataclasses.asdict(config_lib.ExperimentConfig())
  found["loss"]["forgotten"] = 1.0
  assert ownership.differing_settings(wanted, found) == ["loss.forgotten"]
