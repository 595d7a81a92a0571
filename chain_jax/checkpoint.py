"""Checkpoints: the state and the config it belongs to, through orbax."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import crc32c
import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from chain_jax import errors
from chain_jax.train_state import TrainState

# Metadata and the notes, at the least.
_OVERHEAD_BYTES = 2**18


class Checkpoints:
  """The folder `checkpoints/` of a workdir; every process takes part.

  Saves run in the background and are committed by a rename, so that a kill at
  any moment leaves the last finished one valid.
  """

  def __init__(self, folder: str, *, keep: int) -> None:
    # Orbax asks for absolute paths; "gs://..." stays as it is.
    folder = folder if "://" in folder else os.path.abspath(folder)
    self._folder = epath.Path(folder)
    self._manager = ocp.CheckpointManager(
        self._folder,
        options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
    )

  def save(self, state: TrainState, *, config: dict, seconds: float) -> None:
    """Starts saving a state that was checked to be finite.

    Args:
      state: Saved under its own step.
      config: `dataclasses.asdict` of the config.
      seconds: Training time so far, over all restarts.

    Raises:
      RunError: If this or the save before it could not be written.
    """
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    notes = {
        "config": config,
        "seconds": seconds,
        "checksums": _checksums(state),
    }
    with _said_plainly(self._folder):
      _check_room(self._folder, state)
      self._manager.save(
          step,
          args=ocp.args.Composite(
              state=ocp.args.StandardSave(state),
              notes=ocp.args.JsonSave(notes),
          ),
      )

  def wait(self) -> None:
    """Returns when the last save is on disk; raises like `save`."""
    with _said_plainly(self._folder):
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Ends the background work."""
    self._manager.close()

  def restore(self, target: TrainState) -> tuple[TrainState, float] | None:
    """Restores the newest checkpoint that can be read.

    Damaged ones that are newer are moved aside, with a line that says so.

    Args:
      target: Shapes, dtypes and shardings to restore to; any mesh will do.

    Returns:
      The state and its training seconds, or None where nothing was saved.

    Raises:
      RunError: If there are checkpoints and none can be read.
    """
    steps = sorted(self._manager.all_steps(), reverse=True)
    damaged = {}
    for step in steps:
      try:
        restored = self._restore(step, target)
      # Whatever orbax raises on a damaged file: it has no common class.
      except Exception as error:
        damaged[step] = error
        continue
      for bad_step, error in damaged.items():
        self._move_aside(bad_step, error, used=step)
      return restored
    if steps:
      raise errors.RunError(
          f"{self._folder}: none of the checkpoints {steps} can be read"
          f" ({_first_line(damaged[steps[0]])}); delete the folder to start"
          " anew."
      )
    return None

  def _restore(self, step: int, target: TrainState) -> tuple[TrainState, float]:
    restored = self._manager.restore(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardRestore(target),
            notes=ocp.args.JsonRestore(),
        ),
    )
    state, notes = restored["state"], restored["notes"]
    found = _checksums(state)
    differing = sorted(
        name for name in found if notes["checksums"].get(name) != found[name]
    )
    if differing:
      raise ValueError(f"the bytes of {differing[0]} are not those saved")
    return state, float(notes["seconds"])

  def _move_aside(self, step: int, error: Exception, *, used: int) -> None:
    aside = self._folder.parent / "damaged_checkpoints"
    if jax.process_index() == 0:
      print(
          f"checkpoint {step} is damaged ({_first_line(error)}): moved to"
          f" {aside}, going on from step {used}",
          flush=True,
      )
      aside.mkdir(parents=True, exist_ok=True)
      place = aside / str(step)
      if place.exists():
        place.rmtree()
      (self._folder / str(step)).rename(place)
    self._manager.reload()


def _checksums(state: TrainState) -> dict[str, int]:
  """Returns a CRC-32C of every array: orbax's files have none of their own."""
  leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
  return {
      jax.tree_util.keystr(path): crc32c.crc32c(
          np.ascontiguousarray(leaf).view(np.uint8).data
      )
      for path, leaf in leaves
  }


def _check_room(folder: epath.Path, state: TrainState) -> None:
  """Finds a full disk before orbax's threads do, each with a traceback."""
  if not os.path.isdir(folder):  # An object store.
    return
  needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _OVERHEAD_BYTES
  free = shutil.disk_usage(folder).free
  if free < needed:
    raise OSError(
        f"No space left on device: {needed / 2**20:.1f} MiB are needed,"
        f" {free / 2**20:.1f} are free"
    )


def _first_line(error: BaseException) -> str:
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:160]


@contextlib.contextmanager
def _said_plainly(folder: Any) -> Iterator[None]:
  """Turns what orbax raises when it cannot write into one line."""
  try:
    yield
  except Exception as error:
    raise errors.RunError(
        f"{folder}: the checkpoint could not be written"
        f" ({_first_line(error)}); the last good one is kept: free some space"
        " or mend the folder, then run the same command again."
    ) from error
