"""The neighbours of a run's train videos: found once, kept in its folder."""

import os
import pathlib
import time

import jax
import numpy as np
from jaxtyping import Float32

from chain_jax import config as config_lib
from chain_jax import peers, whole_files
from chain_jax.data import neighbours as neighbours_lib
from chain_jax.data import pooling, sources
from chain_jax.data.neighbour_plan import NeighbourPlan
from chain_jax.data.training_plan import TrainingPlan
from chain_jax.errors import InputError
from chain_jax.workdir import Workdir


def num_drawn(config: config_lib.ExperimentConfig) -> int:
  """Returns how many videos of a batch are drawn at random."""
  share = config.neighbours.batch_share if _is_on(config) else 0.0
  return config.train.batch_size - int(share * config.train.batch_size)


def with_neighbours(
    config: config_lib.ExperimentConfig,
    workdir: Workdir,
    train: sources.VideoSource,
    drawn: TrainingPlan,
) -> TrainingPlan | NeighbourPlan:
  """Lets a plan know of neighbours, where the config asks for them.

  Args:
    config: The run.
    workdir: Its folder. Process 0 writes the table there, once; a resumed run
      reads it.
    train: The train split.
    drawn: The videos drawn at random, `num_drawn` a batch.

  Raises:
    InputError: If there are fewer videos than neighbours asked for, nothing in
      them that they are compared by, or a file turns out to be damaged.
  """
  if not _is_on(config):
    return drawn
  settings = config.neighbours
  if jax.process_index() == 0 and not os.path.exists(workdir.neighbours):
    _write(workdir, train, settings)
  peers.barrier("neighbours")
  with np.load(workdir.neighbours, allow_pickle=False) as table:
    videos, overlaps = table["videos"], table["overlaps"]
  counts = overlaps >= max(settings.min_overlap, np.finfo(np.float32).tiny)
  weights = np.where(counts, settings.weight * overlaps, 0).astype(np.float32)
  return NeighbourPlan(
      drawn,
      batch_size=config.train.batch_size,
      seed=config.train.seed,
      neighbours=videos,
      weights=weights,
  )


def _is_on(config: config_lib.ExperimentConfig) -> bool:
  return config.neighbours.num_neighbours > 0


def _pooled(
    train: sources.VideoSource, how: str
) -> Float32[np.ndarray, "n dim"]:
  if how == "mean":
    return pooling.pooled_features(train)
  pooled = pooling.pooled_variances(train)
  if not pooled.any():
    raise InputError(
        "`neighbours.pooling` must be mean where no video's frames differ, got"
        f" {how} and {len(train)} train videos of equal frames; set it to mean."
    )
  return pooled


def _write(
    workdir: Workdir,
    train: sources.VideoSource,
    settings: config_lib.NeighbourConfig,
) -> None:
  start = time.monotonic()
  table = neighbours_lib.find_neighbours(
      _pooled(train, settings.pooling),
      num_neighbours=settings.num_neighbours,
      num_components=settings.num_components,
      whitening=settings.whitening,
      num_directions=settings.num_directions,
      min_overlap=settings.min_overlap,
  )
  with whole_files.written_whole(pathlib.Path(workdir.neighbours)) as partial:
    with open(partial, "wb") as file:
      np.savez(file, **table._asdict())
  print(
      f"found the {settings.num_neighbours} nearest of {len(train)} videos in"
      f" {time.monotonic() - start:.1f} s",
      flush=True,
  )
