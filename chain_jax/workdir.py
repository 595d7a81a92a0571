"""The folder of a run: who owns it, and where its parts lie."""

import dataclasses
import json
import os

from chain_jax import config as config_lib
from chain_jax import errors

# What may change between restarts: nothing learnt depends on it.
_FREE_FIELDS = (
    "data.root",
    "data.cache_in_memory",
    "data.num_workers",
    "train.log_every_steps",
    "train.checkpoint_every_steps",
    "train.keep_checkpoints",
    "train.validate_every_steps",
    "evaluation.batch_size",
    "evaluation.self_match",
    "evaluation.baseline_seed",
)


class Workdir:
  """Paths inside the folder of one run."""

  def __init__(self, path: str) -> None:
    self.path = path
    self.config = os.path.join(path, "config.json")
    self.checkpoints = os.path.join(path, "checkpoints")
    self.report = os.path.join(path, "report.json")

  def codes(self, split: str) -> str:
    """Returns the code directory of a split."""
    return os.path.join(self.path, "codes", split)


def open_workdir(
    path: str, config: config_lib.ExperimentConfig, *, is_writer: bool
) -> Workdir:
  """Makes the folder, or checks that it belongs to this config.

  Args:
    path: The folder.
    config: The config of the run.
    is_writer: True in the one process that writes.

  Returns:
    Its paths.

  Raises:
    InputError: If the folder holds a run of another config; the line names
      the fields that differ.
    RunError: If the folder cannot be written.
  """
  workdir = Workdir(path)
  wanted = dataclasses.asdict(config)
  if os.path.exists(workdir.config):
    _check_same(workdir.config, wanted)
  if is_writer:
    try:
      os.makedirs(path, exist_ok=True)
      write_json(workdir.config, wanted)
    except OSError as error:
      raise errors.RunError(
          f"{path}: the workdir must be a folder that can be written"
          f" ({error.strerror}); choose another with --workdir."
      ) from error
  return workdir


def _check_same(path: str, wanted: dict) -> None:
  try:
    with open(path, encoding="utf-8") as file:
      found = json.load(file)
  except (OSError, ValueError) as error:
    raise errors.InputError(
        f"{path}: must be the config of a run, could not be read ({error});"
        " choose another --workdir."
    ) from error
  differing = [
      name
      for name in config_lib.differing_fields(wanted, found)
      if name not in _FREE_FIELDS
  ]
  if differing:
    raise errors.InputError(
        f"{path}: the workdir holds a run of another config; these fields"
        f" differ: {', '.join(differing)}. Set them back or choose another"
        " --workdir."
    )


def write_json(path: str, content: dict) -> None:
  """Writes a file whole or not at all."""
  temporary = f"{path}.tmp"
  with open(temporary, "w", encoding="utf-8") as file:
    json.dump(content, file, indent=2)
    file.write("\n")
  os.replace(temporary, path)
