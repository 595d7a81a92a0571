"""Every setting has a rule, and its error says which, and the way out."""

import dataclasses

import numpy as np
import pytest

from chain_jax import config as config_lib
from chain_jax import config_ranges, config_rules
from chain_jax.errors import InputError


def _set(config, name, value):
  *parents, last = name.split(".")
  for parent in parents:
    config = getattr(config, parent)
  setattr(config, last, value)


def _complaint(name, value, num_devices=1):
  config = config_lib.ExperimentConfig()
  _set(config, name, value)
  with pytest.raises(InputError) as caught:
    config_rules.validate(config, num_devices=num_devices)
  return str(caught.value)


@pytest.mark.parametrize("num_devices", [1, 8])
def test_the_defaults_keep_every_rule(num_devices):
  config_rules.validate(config_lib.ExperimentConfig(), num_devices=num_devices)


@pytest.mark.parametrize(
    ("name", "value", "rule", "way_out"),
    [
        ("data.dataset", "ucf", "one of synthetic, prepared,", "'synthetic'"),
        ("data.feature_dim", 0, "at least 1", "1"),
        ("data.num_frames", 1, "at least 2", "2"),
        ("data.num_workers", -1, "at least 0", "0"),
        ("data.shuffle", "all", "one of videos, shards", "'videos'"),
        ("data.shuffle_window", 0, "at least 1", "1"),
        ("data.validation_fraction", 0.95, "in [0, 0.9]", "0.9"),
        ("data.validation_fraction", -0.1, "in [0, 0.9]", "0"),
        ("data.synthetic.num_train", 0, "at least 1", "1"),
        ("data.synthetic.num_patterns", 9, "in [1, 8]", "8"),
        ("data.synthetic.num_frames", 7, "at least 8", "8"),
        ("data.synthetic.difficulty", -1.0, "at least 0", "0"),
        ("data.synthetic.seed", 2**31, "in [0, 2147483647]", "2147483647"),
        ("augment.sampling", "random", "one of segments, uniform,", "'segm"),
        ("augment.crop_fraction", (0.5, 1.5), "0 < low <= high <= 1.0", "(1.0"),
        ("augment.crop_fraction", (0.9, 0.5), "0 < low <= high <= 1.0", "(1.0"),
        ("augment.crop_fraction", (0.0, 0.5), "0 < low <= high <= 1.0", "(1.0"),
        ("augment.crop_fraction", (0.5,), "0 < low <= high <= 1.0", "(1.0"),
        ("augment.playback_rate", (0.0, 2.0), "0 < low <= high", "(1.0, 1.0)"),
        ("augment.playback_rate", (1.0, 2.0, 3.0), "(low, high)", "(1.0, 1.0)"),
        ("augment.dropout_rate", 1.0, "in [0, 0.99]", "0.99"),
        ("augment.mix_max", 1.1, "in [0, 1]", "1"),
        ("augment.mask_fraction", 1.0, "in [0, 0.99]", "0.99"),
        ("model.num_bits", 12, "a positive multiple of 8", "16"),
        ("model.num_bits", 3, "a positive multiple of 8", "8"),
        ("model.num_bits", 0, "a positive multiple of 8", "8"),
        ("model.num_bits", -8, "a positive multiple of 8", "8"),
        ("model.width", 30, "a multiple of `model.num_heads` = 4", "28"),
        ("model.normalisation", "mean", "one of none, centre,", "'none'"),
        ("model.hash_relaxation", "sign", "one of tanh,", "'tanh'"),
        ("model.hash_pooling", "max", "one of pool_then_hash,", "'pool_"),
        ("model.dtype", "float16", "one of float32, bfloat16", "'float32'"),
        ("loss.temperature", 0.0, "at least 1e-06", "1e-06"),
        ("loss.positive_prior", 1.0, "in [0, 0.99]", "0.99"),
        ("optimizer.learning_rate", -1e-3, "at least 0", "0"),
        ("train.batch_size", 1, "at least 2", "2"),
        ("train.keep_checkpoints", 0, "at least 1", "1"),
        ("evaluation.self_match", "both", "one of removed, kept", "'removed'"),
    ],
)
def test_a_value_outside_its_rule_is_named_with_the_way_out(
    name, value, rule, way_out
):
  line = _complaint(name, value)
  shown = repr(value) if isinstance(value, str) else str(value)
  assert line.startswith(f"`{name}` must be ") and "\n" not in line
  assert rule in line and f", got {shown}; try {way_out}" in line


def test_what_is_to_be_guessed_must_be_hidden():
  line = _complaint("loss.reconstruction", 1.0)
  assert line == (
      "`augment.mask_fraction` must be above 0 where `loss.reconstruction` is,"
      " or no frame is left to guess, got 0.0; try 0.5."
  )


def test_the_decoder_has_a_rule_only_where_there_is_one():
  config = config_lib.ExperimentConfig()
  config.model.decoder_width = 30
  config_rules.validate(config, num_devices=1)
  config.loss.reconstruction, config.augment.mask_fraction = 1.0, 0.5
  rule = "`model.decoder_width` must be even and a multiple of .* 30; try 28"
  with pytest.raises(InputError, match=rule):
    config_rules.validate(config, num_devices=1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", sorted(config_ranges.RANGES))
def test_no_number_may_be_infinite_or_nan(name, value):
  line = _complaint(name, value)
  assert line.startswith(f"`{name}` must be ") and f"got {value}" in line
  assert np.isfinite(float(line.rpartition("try ")[2].rstrip(".")))


@pytest.mark.parametrize(
    ("name", "size", "way_out"),
    [
        ("train.batch_size", 100, "96"),
        ("train.batch_size", 3, "8"),
        ("evaluation.batch_size", 255, "248"),
        ("evaluation.batch_size", 1, "8"),
    ],
)
def test_a_batch_that_devices_cannot_share_is_refused(name, size, way_out):
  line = _complaint(name, size, num_devices=8)
  assert line == (
      f"`{name}` must be a multiple of the 8 devices, got {size}; try"
      f" {way_out}."
  )


def test_what_an_error_says_to_try_keeps_the_rule():
  for name, (low, high) in config_ranges.RANGES.items():
    for value in (low - 1, high + 1):
      if not np.isfinite(value):
        continue
      way_out = float(_complaint(name, value).rpartition("try ")[2].rstrip("."))
      assert low <= way_out <= high


def test_every_numeric_field_has_a_rule_and_every_rule_a_field():
  config = config_lib.ExperimentConfig()
  numeric = {
      name
      for name in config_lib.field_names(config)
      if type(config_lib.field_value(config, name)) in (int, float)
  }
  # `validate` checks the number of bits by itself: a multiple, no range.
  assert numeric - {"model.num_bits"} == set(config_ranges.RANGES)


def test_field_names_are_dotted_and_lead_to_their_values():
  config = config_lib.ExperimentConfig(name="a run")
  names = config_lib.field_names(config)
  assert names[0] == "name" and len(set(names)) == len(names)
  assert "data.synthetic.seed" in names and "data.synthetic" not in names
  assert config_lib.field_value(config, "name") == "a run"
  leaves = str(dataclasses.asdict(config)).count("': ") - 11  # Sections.
  assert len(names) == leaves


def test_a_misspelt_field_is_an_error_at_once():
  with pytest.raises(AttributeError):
    config_lib.ExperimentConfig().model.nun_bits = 32
  with pytest.raises(TypeError):
    config_lib.ModelConfig(nun_bits=32)


def test_differing_fields_finds_changes_additions_and_removals():
  one = {"a": {"b": 1, "c": (1, 2)}, "d": 1, "gone": 0}
  other = {"a": {"b": 1, "c": [1, 3]}, "d": 2, "new": {"e": 0}}
  assert config_lib.differing_fields(one, other) == ["a.c", "d", "gone", "new"]
  assert config_lib.differing_fields(one, one) == []


def test_a_tuple_equals_the_list_that_json_makes_of_it():
  assert config_lib.differing_fields({"a": (1, 2)}, {"a": [1, 2]}) == []


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("model.num_bits", "64", "a whole number"),
        ("model.num_bits", 64.0, "a whole number"),
        ("train.num_epochs", True, "a whole number"),
        ("model.remat", "yes", "True or False"),
        ("model.remat", 1, "True or False"),
        ("loss.temperature", "0.5", "a number"),
        ("augment.crop_fraction", 0.5, "a pair of numbers"),
        ("augment.crop_fraction", ("a", "b"), "a pair of numbers"),
        ("data.root", None, "a text"),
        ("data.synthetic.num_frames", 25, "a multiple of the 8 shots"),
    ],
)
def test_a_value_of_another_kind_is_named(name, value, rule):
  assert f"`{name}` must be {rule}" in _complaint(name, value)


def test_whole_numbers_and_lists_do_where_numbers_and_pairs_are_asked():
  config = config_lib.ExperimentConfig()
  config.loss.temperature, config.augment.crop_fraction = 1, [0.5, 1]
  config_rules.validate(config, num_devices=1)


@pytest.mark.parametrize("value", [2**31, 10**30])
@pytest.mark.parametrize(
    "name",
    # A rate counts nothing.
    sorted(
        {"model.num_bits", *config_ranges.RANGES} - {"optimizer.learning_rate"}
    ),
)
def test_no_number_is_larger_than_what_counts_it(name, value):
  config = config_lib.ExperimentConfig()
  is_float = isinstance(config_lib.field_value(config, name), float)
  line = _complaint(name, float(value) if is_float else value)
  assert line.startswith(f"`{name}` must be ")
  way_out = float(line.rpartition("try ")[2].rstrip("."))
  assert way_out < 2**31
