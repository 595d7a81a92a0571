"""The config of one run of a table: file, preset, overrides, variant, seed."""

import ast
import os
from typing import Any

from benchmarks import variants
from chain_jax import config as config_lib
from chain_jax import errors, main_flags

# Held out where the file has no validation videos of its own.
_VALIDATION_FRACTION = 0.25


def parse_overrides(words: list[str]) -> dict[str, Any]:
  """Reads `--config.FIELD=VALUE`, as `main` takes it.

  Returns:
    Value by dotted field.

  Raises:
    InputError: If a word is something else, or a value cannot be read.
  """
  defaults, changes = config_lib.ExperimentConfig(), {}
  for word in words:
    flag, equals, text = word.partition("=")
    name = flag.removeprefix("--config.")
    if name == flag or not equals:
      raise errors.InputError(
          f"arguments must be flags or --config.FIELD=VALUE, got {word!r}; see"
          " --help."
      )
    _check_field(defaults, name)
    if isinstance(config_lib.field_value(defaults, name), str):
      changes[name] = text
      continue
    try:
      changes[name] = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      raise errors.InputError(
          f"{flag} must be a Python literal, got {text!r}; try"
          f" {config_lib.field_value(defaults, name)!r}."
      ) from None
  return changes


def make_config(
    file: str,
    variant: variants.Variant,
    *,
    overrides: dict[str, Any],
    split: str,
    num_bits: int,
    seed: int,
) -> config_lib.ExperimentConfig:
  """Puts the config of a run together.

  The variant has the last word, but for seed and bits. Baselines are off: they
  are rows of their own.

  Args:
    file: "FILE.py" or "FILE.py:PRESET"; the preset is that of variants which
      name none.
    variant: Preset and changes.
    overrides: By dotted field, on every row.
    split: "queries", or "validation": whole groups of train videos, chosen by
      the seed, are searched with, and in what is left.
    num_bits: Code length.
    seed: Of training, of the videos held out and of the baselines.

  Raises:
    InputError: If the file or a field is at fault.
  """
  config = _load(file, variant.preset)
  for name, value in (overrides | variant.changes).items():
    _check_field(config, name)
    if isinstance(value, variants.Times):
      before = overrides.get(name, config_lib.field_value(config, name))
      value = type(before)(before * value.factor)
    _set(config, name, value)
  if split == "validation":
    config.data.evaluated_split = "validation"
    if not config.data.prepared.validation_split:
      config.data.validation_fraction = (
          config.data.validation_fraction or _VALIDATION_FRACTION
      )
  config.model.num_bits = num_bits
  config.train.seed = config.evaluation.baseline_seed = seed
  config.train.checkpoint_folder = ""
  config.evaluation.baseline_videos = 0
  return config


def baseline_config(
    config: config_lib.ExperimentConfig,
) -> config_lib.ExperimentConfig:
  """Keeps of a config what a baseline depends on; all else is default."""
  kept = config_lib.ExperimentConfig(name=config.name, data=config.data)
  kept.model.num_bits = config.model.num_bits
  kept.train.seed = config.train.seed
  kept.evaluation.self_match = config.evaluation.self_match
  kept.evaluation.baseline_seed = config.evaluation.baseline_seed
  return kept


def _load(file: str, preset: str) -> config_lib.ExperimentConfig:
  path, _, own_preset = file.partition(":")
  preset = preset or own_preset
  if not os.path.isfile(path):
    raise errors.InputError(
        f"--config must name a file, {path!r} is none; try"
        " configs/quickstart.py."
    )
  try:
    return main_flags.load_config(path, *([preset] if preset else []))
  except Exception as error:  # The file is the user's code: it may do all.
    what = f"`get_config({preset!r})`" if preset else "`get_config()`"
    raise errors.InputError(
        f"{path}: {what} must return an ExperimentConfig, but"
        f" {type(error).__name__}: {error}"
    ) from error


def _check_field(config: config_lib.ExperimentConfig, name: str) -> None:
  if name not in config_lib.field_names(config):
    raise errors.InputError(
        f"the config has no field `{name}`; see chain_jax/config.py."
    )


def _set(config: Any, name: str, value: Any) -> None:
  *path, last = name.split(".")
  for part in path:
    config = getattr(config, part)
  setattr(config, last, value)
