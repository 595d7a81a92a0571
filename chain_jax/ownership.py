"""Which run a folder or a checkpoint belongs to: one config on one data set."""

import dataclasses
from typing import Any

from chain_jax import config as config_lib
from chain_jax import errors

# What may change between restarts: nothing learnt depends on it.
_FREE_FIELDS = (
    "data.root",
    "data.cache_in_memory",
    "data.num_workers",
    "data.prepared.demo_shards",
    "data.prepared.segments_root",
    "data.prepared.way_out",
    "loss.contrastive_method",
    "sharding.model_parallel",
    "train.log_every_steps",
    "train.checkpoint_every_steps",
    # A folder may move to another disk or bucket with what it holds.
    "train.checkpoint_folder",
    "train.keep_checkpoints",
    "train.validate_every_steps",
    "train.hang_seconds",
    "train.profile_start_step",
    "train.profile_num_steps",
    "evaluation.batch_size",
    "evaluation.self_match",
    "evaluation.baseline_seed",
    "evaluation.baseline_videos",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Owner:
  """A run, as its checkpoints know it."""

  config: dict[str, Any]  # `dataclasses.asdict` of the config.
  fingerprints: dict[str, str] | None  # Of the videos; None: not compared.

  def check(
      self,
      config: dict[str, Any],
      fingerprints: dict[str, str] | None,
      *,
      where: str,
  ) -> None:
    """Refuses what belongs to another run.

    Args:
      config: As found.
      fingerprints: As found.
      where: Names what was found, in the error.

    Raises:
      InputError: If a field or the videos of a split differ; it names them.
    """
    fields = differing_settings(self.config, config)
    if fields:
      raise errors.InputError(
          f"{where} is of a run of another config; these fields differ:"
          f" {', '.join(fields)}. Set them back, or choose another"
          " `train.checkpoint_folder` or --workdir."
      )
    splits = differing_videos(self.fingerprints or {}, fingerprints or {})
    if self.fingerprints and fingerprints and splits:
      raise errors.InputError(
          f"{where} is of a run on other videos, those of"
          f" {', '.join(splits)} differ; point `data.root` at the files of"
          " that run, or choose another `train.checkpoint_folder` or --workdir."
      )


def differing_settings(wanted: dict, found: dict) -> list[str]:
  """Names the dotted fields that differ and may not, of two configs as dicts.

  A field that `found` lacks was added since, and had its default's effect.
  """
  defaults = dataclasses.asdict(config_lib.ExperimentConfig())
  return [
      name
      for name in config_lib.differing_fields(
          _filled_up(wanted, defaults), _filled_up(found, defaults)
      )
      if name not in _FREE_FIELDS
  ]


def _filled_up(found: dict, defaults: dict) -> dict:
  filled = defaults | found
  for name, default in defaults.items():
    if isinstance(default, dict) and isinstance(filled[name], dict):
      filled[name] = _filled_up(filled[name], default)
  return filled


def differing_videos(wanted: dict[str, str], found: dict) -> list[str]:
  """Names the splits whose fingerprints differ.

  One whose name has a colon came later, or cannot be had everywhere: it is
  compared where both sides have it.

  >>> differing_videos({"train": "a", "train:all": "b"}, {"train": "a"})
  []
  """
  differing = [
      name
      for name, one in wanted.items()
      if found.get(name, one if ":" in name else None) != one
  ]
  return list(dict.fromkeys(name.partition(":")[0] for name in differing))
