"""The neighbours of a run's train videos: found once, kept in its folder."""

import pathlib
import time

import jax
import numpy as np
from jaxtyping import Float32

from chain_jax import array_files, errors, peers, whole_files
from chain_jax import config as config_lib
from chain_jax.data import fingerprints, pooling, sources
from chain_jax.data import neighbours as neighbours_lib
from chain_jax.data.neighbour_plan import NeighbourPlan
from chain_jax.data.training_plan import TrainingPlan
from chain_jax.errors import InputError
from chain_jax.workdir import Workdir

# Settings that a table depends on, beside how videos are pooled.
_ASKED = (
    "num_neighbours",
    "num_components",
    "whitening",
    "num_directions",
    "min_overlap",
)


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
      reads it, and makes it again where it is damaged or of other videos.
    train: The train split.
    drawn: The videos drawn at random, `num_drawn` a batch.

  Raises:
    InputError: If there are fewer videos than neighbours asked for, nothing in
      them that they are compared by, or a file turns out to be damaged.
  """
  if not _is_on(config):
    return drawn
  settings, path = config.neighbours, pathlib.Path(workdir.neighbours)
  made_of = _made_of(train, settings)
  if jax.process_index() == 0 and not _is_whole(path, made_of, train, settings):
    _write(path, made_of, train, settings)
  peers.barrier("neighbours")
  table = read_table(path, made_of, shape=_shape(train, settings))
  counts = table.overlaps >= max(
      settings.min_overlap, np.finfo(np.float32).tiny
  )
  weights = np.where(counts, settings.weight * table.overlaps, 0)
  return NeighbourPlan(
      drawn,
      batch_size=config.train.batch_size,
      seed=config.train.seed,
      neighbours=table.videos,
      weights=weights.astype(np.float32),
  )


def read_table(
    path: pathlib.Path, made_of: str, *, shape: tuple[int, int]
) -> neighbours_lib.NeighbourTable:
  """Reads a table and checks all of it.

  Args:
    path: The file.
    made_of: Videos and settings that it must be of.
    shape: That it must have, `[n, width]`.

  Raises:
    InputError: If it is damaged, or another one.
  """
  words = {
      "must_be": "the table of neighbours of this run's train videos",
      "way_out": "delete it and run the same command again",
  }
  arrays = array_files.read_npz(
      path, ("made_of", "videos", "overlaps"), **words
  )
  with errors.reading(path, **words):
    if str(arrays.pop("made_of")) != made_of:
      raise ValueError("it is of other videos or settings")
    table = neighbours_lib.NeighbourTable(**arrays)
    dtypes = (table.videos.dtype, table.overlaps.dtype)
    if dtypes != (np.int32, np.float32):
      raise ValueError(f"it holds {dtypes}")
    if not table.videos.shape == table.overlaps.shape == shape:
      raise ValueError(f"it must have the shape {list(shape)}")
    if table.videos.min() < 0 or table.videos.max() >= shape[0]:
      raise ValueError(f"it names videos beyond the {shape[0]}")
    if not ((table.overlaps >= 0) & (table.overlaps <= 1)).all():
      raise ValueError("its overlaps are not in 0 to 1")
  return table


def _is_whole(
    path: pathlib.Path,
    made_of: str,
    train: sources.VideoSource,
    settings: config_lib.NeighbourConfig,
) -> bool:
  if not path.exists():
    return False
  try:
    read_table(path, made_of, shape=_shape(train, settings))
  except InputError as error:
    print(f"{error} This run makes it again.", flush=True)
    return False
  return True


def _shape(
    train: sources.VideoSource, settings: config_lib.NeighbourConfig
) -> tuple[int, int]:
  return len(train), neighbours_lib.table_width(settings.num_neighbours)


def _made_of(
    train: sources.VideoSource, settings: config_lib.NeighbourConfig
) -> str:
  """Names the videos and settings that a table depends on."""
  asked = {name: getattr(settings, name) for name in ("pooling", *_ASKED)}
  return f"{fingerprints.of_three(train)} {asked}"


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
    path: pathlib.Path,
    made_of: str,
    train: sources.VideoSource,
    settings: config_lib.NeighbourConfig,
) -> None:
  start = time.monotonic()
  table = neighbours_lib.find_neighbours(
      _pooled(train, settings.pooling),
      **{name: getattr(settings, name) for name in _ASKED},
  )
  with errors.writing(path), whole_files.written_whole(path) as partial:
    with open(partial, "wb") as file:
      np.savez(file, made_of=np.array(made_of), **table._asdict())
  print(
      f"found the {settings.num_neighbours} nearest of {len(train)} videos in"
      f" {time.monotonic() - start:.1f} s",
      flush=True,
  )
