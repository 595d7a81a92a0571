"""The folder of a run: who owns it, and where its parts lie."""

import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import Iterator

from chain_jax import config as config_lib
from chain_jax import config_rules, errors, ownership, whole_files

# Network file systems remember for so long that a file was not there.
_SHARED_SECONDS = 30.0
_LOCK = ".run.lock"


class Workdir:
  """Paths inside the folder of one run."""

  def __init__(self, path: str, *, checkpoint_folder: str = "") -> None:
    self.path = path
    self.config = os.path.join(path, "config.json")
    self.data = os.path.join(path, "data.json")
    # Elsewhere by `train.checkpoint_folder`, and then perhaps a URL.
    self.checkpoints = checkpoint_folder or os.path.join(path, "checkpoints")
    self.neighbours = os.path.join(path, "neighbours.npz")
    self.report = os.path.join(path, "report.json")
    self.results_lock = os.path.join(path, ".results.lock")
    self.profile_request = os.path.join(path, "profile")

  def codes(self, split: str) -> str:
    """Returns the code directory of a split."""
    return os.path.join(self.path, "codes", split)

  def profile(self, step: int) -> str:
    """Returns the folder of the trace that starts with a step."""
    return os.path.join(self.path, f"profile_{step}")


def open_workdir(
    path: str, config: config_lib.ExperimentConfig, *, must_exist: bool
) -> Workdir:
  """Checks that a folder can hold this run; writes nothing.

  Args:
    path: The folder.
    config: The config of the run.
    must_exist: Refuse a folder that no run has claimed.

  Returns:
    Its paths.

  Raises:
    InputError: If the folder holds a run of another config (the line names the
      fields that differ), or none where one must be.
    RunError: If the folder cannot be written.
  """
  if "://" in path:
    raise errors.InputError(
        f"--workdir must be a folder of this machine, got {path!r}; mount the"
        " store, or copy the finished folder there."
    )
  workdir = Workdir(path, checkpoint_folder=config.train.checkpoint_folder)
  _check_writable(path)
  if os.path.exists(workdir.config):
    _check_same_config(workdir.config, dataclasses.asdict(config))
  elif not config.train.checkpoint_folder and _holds_files(workdir.checkpoints):
    raise errors.InputError(
        f"{workdir.config}: must be there beside checkpoints, is missing;"
        " choose another --workdir."
    )
  elif must_exist:
    raise errors.InputError(
        f"{path}: must hold a run for this --mode, got none; check --workdir,"
        " or run --mode=train first."
    )
  return workdir


@contextlib.contextmanager
def trained_alone(workdir: Workdir) -> Iterator[None]:
  """Keeps the folders of a run to this run while the block lasts.

  Only process 0 of a run does so, for all of its processes. Export and
  evaluation of a run in training may go on beside it: they read checkpoints,
  and their results have a lock of their own, for which each waits.

  Args:
    workdir: From `open_workdir`. Its checkpoints may lie elsewhere; an object
      store has no locks, and then one that prints a line.

  Raises:
    RunError: If another run is at work in one of them, or cannot be kept out.
  """
  flags = {workdir.path: "--workdir"}
  if "://" in workdir.checkpoints:
    print(
        f"{workdir.checkpoints}: an object store has no locks; see to it that no"
        " other run saves there",
        flush=True,
    )
  else:
    flags[workdir.checkpoints] = "`train.checkpoint_folder`"
  with contextlib.ExitStack() as stack:
    for folder, flag in flags.items():
      stack.enter_context(_held_alone(folder, flag))
    yield


@contextlib.contextmanager
def _held_alone(folder: str, flag: str) -> Iterator[None]:
  is_new = not os.path.exists(folder)
  with errors.writing(folder, way_out=f"choose another {flag}"):
    os.makedirs(folder, exist_ok=True)
  lock = whole_files.held_alone(
      pathlib.Path(folder, _LOCK),
      refusal=(
          f"{folder}: must be one run's alone, but another one is at work there;"
          f" wait for its end, or choose another {flag}"
      ),
  )
  try:
    with lock:
      yield
  finally:
    if is_new:  # And perhaps empty: what is refused leaves nothing behind.
      with contextlib.suppress(OSError):
        os.rmdir(folder)


def claim_workdir(
    workdir: Workdir,
    config: config_lib.ExperimentConfig,
    fingerprints: dict[str, str],
) -> None:
  """Makes the folder this run's, once config and data are known to be good.

  Args:
    workdir: From `open_workdir`.
    config: The config of the run.
    fingerprints: Of the videos, by split.

  Raises:
    InputError: If the folder holds a run on other videos.
    RunError: If the folder cannot be written.
  """
  if os.path.exists(workdir.data):
    known = _read_json(workdir.data)
    differing = ownership.differing_videos(fingerprints, known)
    if differing:
      raise errors.InputError(
          f"{workdir.data}: the workdir holds a run on other videos, those of"
          f" {', '.join(differing)} differ; point `data.root` at the files of"
          " that run or choose another --workdir."
      )
  for file, content in (
      (workdir.data, fingerprints),
      (workdir.config, dataclasses.asdict(config)),
  ):
    with errors.writing(file, way_out="make room, or choose another --workdir"):
      os.makedirs(workdir.path, exist_ok=True)
      whole_files.write_json(pathlib.Path(file), content, indent=2)


def check_shared(
    workdir: Workdir, fingerprints: dict[str, str], first: dict[str, str]
) -> None:
  """Checks that this process works on the videos and the folder of process 0.

  Args:
    workdir: Claimed by process 0.
    fingerprints: Of the videos that this process sees, by split.
    first: Those that process 0 sees.

  Raises:
    InputError: If either is another.
  """
  differing = ownership.differing_videos(first, fingerprints)
  if differing:
    raise errors.InputError(
        "`data.root` must hold the same videos on all hosts, those of"
        f" {', '.join(differing)} differ from process 0's; copy the dataset"
        " again, or use a folder that all hosts share."
    )
  if workdir.checkpoints != os.path.join(workdir.path, "checkpoints"):
    return  # Process 0 alone uses the folder.
  deadline = time.monotonic() + _SHARED_SECONDS
  while not os.path.exists(workdir.config):
    if time.monotonic() > deadline:
      raise errors.InputError(
          f"{workdir.config}: must be seen by all hosts, process 0 has written"
          " it and it is not here; give a --workdir on storage that all share,"
          " or `train.checkpoint_folder`."
      )
    time.sleep(0.5)


def read_config(path: str) -> config_lib.ExperimentConfig:
  """Reads the config of the run that a folder holds.

  Raises:
    InputError: If it holds none, or one that no run can have.
  """
  file = Workdir(path).config
  content = _read_json(file)
  try:
    config = config_lib.from_dict(content)
    config_rules.validate(config, num_devices=1)
  except (TypeError, errors.InputError) as error:
    raise errors.InputError(f"{file}: {error}") from error
  return config


def _holds_files(folder: str) -> bool:
  if not os.path.isdir(folder):
    return False
  # What is hidden is no checkpoint, but perhaps a killed run's lock.
  return any(not name.startswith(".") for name in os.listdir(folder))


def _check_writable(path: str) -> None:
  folder = os.path.abspath(path)
  while not os.path.exists(folder):
    folder = os.path.dirname(folder)
  if not os.path.isdir(folder):
    raise _unwritable(path, f"{folder} is a file")
  if not os.access(folder, os.W_OK):
    raise _unwritable(path, f"no right to write in {folder}")


def _unwritable(path: str, reason: str | None) -> errors.RunError:
  return errors.RunError(
      f"{path}: the workdir must be a folder that can be written ({reason});"
      " choose another with --workdir."
  )


def _read_json(path: str) -> dict:
  return whole_files.read_json(
      pathlib.Path(path),
      must_be="a JSON file of a run",
      way_out="choose another --workdir",
  )


def _check_same_config(path: str, wanted: dict) -> None:
  found = _read_json(path)
  differing = ownership.differing_settings(wanted, found)
  if differing:
    raise errors.InputError(
        f"{path}: the workdir holds a run of another config; these fields"
        f" differ: {', '.join(differing)}. Set them back or choose another"
        " --workdir."
    )
