"""Checkpoints: the state and the run it belongs to, through orbax."""

import contextlib
import os
import random
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from chain_jax import agreement, checksums, errors, ownership
from chain_jax.train_state import TrainState

# Of the notes; 1 had checksums that one host could compute alone.
_FORMAT_VERSION = 2
_WAY_IN = (
    "check `train.checkpoint_folder`, --workdir and the right to write there;"
    " gs:// needs the extra chain_jax[gcs], s3:// chain_jax[s3]"
)
# Metadata and the notes, at the least.
_OVERHEAD_BYTES = 2**18
# Of the newest checkpoints, tried one after the other.
_MOST_TRIED = 64


class Checkpoints:
  """The checkpoints of a run, in a folder or an object store.

  Every process takes part in every call. Saves run in the background and are
  committed by a rename, so that a kill at any moment leaves the last finished
  one valid; what a kill left half-written is no checkpoint, and is removed.
  """

  def __init__(
      self,
      folder: str,
      *,
      keep: int,
      owner: ownership.Owner,
      only_reads: bool = False,
  ) -> None:
    """Opens the folder and makes it where it is missing.

    Args:
      folder: A path, or a URL such as gs://bucket/run.
      keep: How many checkpoints stay.
      owner: The run; a checkpoint of another one is refused.
      only_reads: Changes nothing there: the run itself may be under way.

    Raises:
      InputError: If not all processes see the same folder.
      RunError: If the folder cannot be reached.
    """
    # Orbax asks for absolute paths; "gs://..." stays as it is.
    self._is_url = "://" in folder
    self._owner = owner
    self._only_reads = only_reads
    self._started = self._committed = None  # Steps of saves.
    with _said_plainly(
        f"{folder}: the checkpoint folder cannot be used",
        _WAY_IN,
    ):
      self._folder = epath.Path(
          folder if self._is_url else os.path.abspath(folder)
      )
      self._manager = ocp.CheckpointManager(
          self._folder,
          options=ocp.CheckpointManagerOptions(
              max_to_keep=keep,
              create=not only_reads,
              cleanup_tmp_directories=not only_reads,
              read_only=only_reads,
          ),
      )
    if not only_reads:
      _check_shared(self._folder)

  def save(self, state: TrainState, *, seconds: float) -> None:
    """Starts saving a state that was checked to be finite.

    Args:
      state: Saved under its own step.
      seconds: Training time so far, over all restarts.

    Raises:
      RunError: If this or the save before it could not be written.
    """
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    notes = {
        "format": _FORMAT_VERSION,
        "config": self._owner.config,
        "videos": self._owner.fingerprints,
        "seconds": seconds,
        "checksums": checksums.of_leaves(state),
    }
    with self._write_said_plainly():
      _check_room(self._folder, self._is_url, state)
      is_saved = self._manager.save(
          step,
          args=ocp.args.Composite(
              state=ocp.args.StandardSave(state),
              notes=ocp.args.JsonSave(notes),
          ),
      )
    if not is_saved:  # Orbax saves nothing below the latest step it knows of.
      raise errors.RunError(
          f"{self._folder}: checkpoint {step} cannot be saved while a later one"
          f" is there, {self._manager.latest_step()}; move that away."
      )
    # It has waited for the save before it.
    self._committed, self._started = self._started or self._committed, step

  def wait(self) -> None:
    """Returns when the last save is committed; raises like `save`."""
    with self._write_said_plainly():
      self._manager.wait_until_finished()
    self._committed = self._started or self._committed

  def close(self) -> None:
    """Commits what is being saved and ends the background work."""
    with self._write_said_plainly():
      self._manager.close()

  def what_counts(self) -> str:
    """Says which checkpoint a restart begins at; any thread may call it."""
    counts = self._committed
    # Not asked of the manager: it may wait for a process that is gone.
    if self._started is not None and self._is_committed(self._started):
      counts = self._started
    if counts is None:
      return "before anything was saved"
    return f"without a save: the checkpoint of step {counts} counts"

  def _is_committed(self, step: int) -> bool:
    # A rename commits in a folder; a store has none, but a last object.
    last = "commit_success.txt" if self._is_url else ""
    return (self._folder / str(step) / last).exists()

  def restore(
      self, target: TrainState, *, last_step: int | None = None
  ) -> tuple[TrainState, float] | None:
    """Restores the newest checkpoint that every process can read.

    Damaged ones that are newer are moved aside, with a line that says so.

    Args:
      target: Shapes, dtypes and shardings to restore to; any mesh will do.
      last_step: Of the run; None: any step may have been saved.

    Returns:
      The state and its training seconds, or None where nothing was saved.

    Raises:
      InputError: If the checkpoints belong to another run.
      RunError: If none of those there can be read, or one is too late.
    """
    # One process may see what another no longer does: the first one decides.
    steps = agreement.numbers_of_first(
        sorted(self._manager.all_steps(), reverse=True), most=_MOST_TRIED
    )
    damaged = {}
    for step in steps:
      restored, error = self._try_restore(step, target)
      if agreement.true_on_all(error is None):
        if last_step is not None and step > last_step:
          raise errors.RunError(
              f"{self._folder}: checkpoint {step} must not be beyond the last"
              f" step of the run, {last_step}; move it away."
          )
        self._move_aside(damaged, used=step)
        self._committed = step
        return restored
      damaged[step] = error or OSError("another process could not read it")
    if steps:
      raise errors.RunError(
          f"{self._folder}: none of the checkpoints {steps} can be read"
          f" ({errors.one_line(damaged[steps[0]])}); delete the folder to start"
          " anew."
      )
    return None

  def _try_restore(
      self, step: int, target: TrainState
  ) -> tuple[tuple[TrainState, float] | None, Exception | None]:
    """Returns what was restored, or what stood in the way."""
    try:
      notes = self._manager.restore(
          step, args=ocp.args.Composite(notes=ocp.args.JsonRestore())
      )["notes"]
      self._check_notes(notes, step)
      state = self._manager.restore(
          step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target))
      )["state"]
      _check_sums(notes["checksums"], state)
      if int(state.step) != step:
        raise ValueError(f"it holds the state of step {int(state.step)}")
      return (state, float(notes["seconds"])), None
    except errors.InputError:
      raise
    # Whatever orbax raises on a damaged file: it has no common class.
    except Exception as error:
      return None, error

  def _check_notes(self, notes: dict[str, Any], step: int) -> None:
    where = f"{self._folder}: checkpoint {step}"
    if notes.get("format") != _FORMAT_VERSION:
      raise errors.InputError(
          f"{where} must be of format {_FORMAT_VERSION}, got"
          f" {notes.get('format', 1)}: another version of chain_jax wrote it;"
          " go on with that one, or start anew in another folder."
      )
    self._owner.check(notes["config"], notes["videos"], where=where)

  def _move_aside(self, damaged: dict[int, Exception], *, used: int) -> None:
    if not damaged:
      return
    aside = self._folder.parent / f"{self._folder.name}_damaged"
    moved = "left there" if self._only_reads else f"moved to {aside}"
    if jax.process_index() == 0:
      for step, error in damaged.items():
        print(
            f"checkpoint {step} is damaged ({errors.one_line(error)}): {moved},"
            f" going on from step {used}",
            flush=True,
        )
        if self._only_reads:
          continue
        aside.mkdir(parents=True, exist_ok=True)
        # A store has no empty folders, and a move wants one to move to.
        (aside / "about.txt").write_text("Checkpoints that were damaged.\n")
        place = aside / str(step)
        if place.exists():
          place.rmtree()
        (self._folder / str(step)).rename(place)
    agreement.wait_for_all("damaged checkpoints are moved aside")
    self._manager.reload()

  def _write_said_plainly(self) -> contextlib.AbstractContextManager[None]:
    return _said_plainly(
        f"{self._folder}: the checkpoint could not be written",
        "the last good one is kept: free some space or mend the folder, then"
        " run the same command again",
    )


def _check_shared(folder: epath.Path) -> None:
  """Looks whether what one process writes is there for all."""
  if jax.process_count() == 1:
    return
  # A name never looked for before: a network's file system may remember those.
  (token,) = agreement.numbers_of_first([random.getrandbits(31)], most=1)
  mark = folder / f".shared-{token}"
  if jax.process_index() == 0:
    mark.touch()
  agreement.wait_for_all("the mark is in the checkpoint folder")
  is_shared = agreement.true_on_all(mark.exists())
  if jax.process_index() == 0:
    mark.unlink()
  if not is_shared:
    raise errors.InputError(
        f"{folder}: the checkpoint folder must be one that all hosts share, but"
        " not all see what process 0 wrote; use a mounted disk or bucket, or"
        " gs:// or s3:// as `train.checkpoint_folder`."
    )


def _check_sums(saved: dict[str, int], state: TrainState) -> None:
  found = checksums.of_leaves(state)
  differing = sorted(name for name in found if saved.get(name) != found[name])
  if differing:
    raise ValueError(f"the bytes of {differing[0]} are not those saved")


def _check_room(folder: epath.Path, is_url: bool, state: TrainState) -> None:
  """Finds a full disk before orbax's threads do, each with a traceback."""
  if is_url:
    return
  needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _OVERHEAD_BYTES
  free = shutil.disk_usage(folder).free
  if free < needed:
    raise OSError(
        f"No space left on device: {needed / 2**20:.1f} MiB are needed,"
        f" {free / 2**20:.1f} are free"
    )


@contextlib.contextmanager
def _said_plainly(what: str, way_out: str) -> Iterator[None]:
  """Turns what orbax raises into one line."""
  try:
    yield
  except Exception as error:
    raise errors.RunError(
        f"{what} ({errors.one_line(error)}); {way_out}."
    ) from error
