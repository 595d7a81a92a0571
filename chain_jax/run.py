"""A run in three modes: train (and all that follows), export, evaluate."""

import contextlib
import dataclasses
import os
import pathlib
import time
from typing import Any

import jax
from jax.sharding import Mesh

from chain_jax import (
    checkpoint,
    comparison,
    config_rules,
    errors,
    export,
    factories,
    ownership,
    peers,
    sharding,
    train_loop,
    train_state,
    whole_files,
)
from chain_jax import config as config_lib
from chain_jax import optimizer as optimizer_lib
from chain_jax import report as report_lib
from chain_jax.data import splits as splits_lib
from chain_jax.preparation import demo
from chain_jax.workdir import (
    Workdir,
    check_shared,
    claim_workdir,
    open_workdir,
    trained_alone,
)


def run(config: config_lib.ExperimentConfig, *, path: str, mode: str) -> None:
  """Trains or resumes, exports, evaluates; prints the table at the end.

  Args:
    config: The run.
    path: Its workdir.
    mode: "train" does all; "export" starts at the newest checkpoint;
      "evaluate" starts at the exported codes.

  Raises:
    InputError: If config, data or workdir are at fault.
    RunError: If the run fails.
  """
  config_rules.validate(config, num_devices=jax.device_count())
  workdir, mode = _what_is_left(path, config, mode)
  with contextlib.ExitStack() as stack:
    if mode == "train" and jax.process_index() == 0:
      stack.enter_context(trained_alone(workdir))
    if mode:
      _do(config, workdir, mode, stack)


def _do(
    config: config_lib.ExperimentConfig,
    workdir: Workdir,
    mode: str,
    stack: contextlib.ExitStack,
) -> None:
  """Does what is left to do; `stack` keeps its locks until the run's end."""
  if jax.process_index() == 0:
    demo.make_missing(config.data)
  peers.barrier("data")
  splits = splits_lib.make_splits(config.data, seed=config.train.seed)
  segments = splits_lib.open_segments(config.data)
  plan = train_loop.make_plan(config, splits)
  fingerprints = splits_lib.fingerprints(splits)
  _claim(workdir, config, fingerprints)
  mesh = sharding.make_mesh(model_parallel=config.sharding.model_parallel)
  seconds = {}
  if mode == "train":
    checkpoints = open_checkpoints(config, workdir, fingerprints)
    state, seconds["train"] = train_loop.train(
        config, workdir, splits, plan, mesh, checkpoints
    )
  elif mode == "export":
    state = restore(config, workdir, mesh, fingerprints)
  if jax.process_index() == 0:
    lock = pathlib.Path(workdir.results_lock)
    stack.enter_context(whole_files.locked(lock))
  peers.barrier("results")
  if mode != "evaluate":
    seconds["export"] = _export_all(
        config, workdir, splits, segments, mesh, state
    )
  if jax.process_index() == 0 and mode != "export":
    report = comparison.evaluate_run(
        config,
        workdir,
        splits,
        segments=segments,
        num_steps=plan.num_steps,
        seconds=seconds,
    )
    print(report_lib.format_table(report))


def _what_is_left(
    path: str, config: config_lib.ExperimentConfig, mode: str
) -> tuple[Workdir, str]:
  """Checks the folder, and looks whether a run in it is finished.

  Process 0 looks and tells the others: the folder changes meanwhile.

  Returns:
    Its paths and the mode of what is left to do; "" where nothing is.
  """
  if jax.process_index():
    folder = config.train.checkpoint_folder
    return Workdir(path, checkpoint_folder=folder), peers.barrier("workdir")
  workdir = open_workdir(path, config, must_exist=mode != "train")
  if mode == "train" and (report := _finished_report(workdir)):
    print(f"{path}: this run is finished; delete the folder to run anew.")
    if report.get("evaluation") == dataclasses.asdict(config.evaluation):
      print(report_lib.format_table(report))
      mode = ""
    elif comparison.has_codes(config, workdir):
      mode = "evaluate"  # Else they are exported again.
  return workdir, peers.barrier("workdir", mode)


def _claim(
    workdir: Workdir,
    config: config_lib.ExperimentConfig,
    fingerprints: dict[str, str],
) -> None:
  """Makes the folder this run's, which all processes must share."""
  if jax.process_index() == 0:
    claim_workdir(workdir, config, fingerprints)
  first = peers.barrier("claimed", fingerprints)
  if jax.process_index():
    check_shared(workdir, fingerprints, first)


def _finished_report(workdir: Workdir) -> dict[str, Any] | None:
  """Returns the report of the trained state; a state on the way has others.

  One that cannot be read is none: the run goes on and makes it again.
  """
  if not os.path.exists(workdir.report):
    return None
  try:
    report = report_lib.read_report(workdir.report)
  except errors.InputError as error:
    print(f"{error} This run makes it again.", flush=True)
    return None
  is_last = report["step"] is not None and report["step"] == report.get(
      "num_steps"
  )
  return report if is_last else None


def open_checkpoints(
    config: config_lib.ExperimentConfig,
    workdir: Workdir,
    fingerprints: dict[str, str] | None,
    *,
    only_reads: bool = False,
) -> checkpoint.Checkpoints:
  """Opens the checkpoints of a run; None: its videos are not compared."""
  return checkpoint.Checkpoints(
      workdir.checkpoints,
      keep=config.train.keep_checkpoints,
      owner=ownership.Owner(
          config=dataclasses.asdict(config), fingerprints=fingerprints
      ),
      only_reads=only_reads,
  )


def restore(
    config: config_lib.ExperimentConfig,
    workdir: Workdir,
    mesh: Mesh,
    fingerprints: dict[str, str] | None = None,
) -> train_state.TrainState:
  """Restores the newest checkpoint, without the data.

  Raises:
    InputError: If there is none, or it is of another config or, where
      `fingerprints` are given, of other videos.
  """
  model = factories.make_model(config)
  # Only the optimizer state's shape counts here, not the schedule.
  schedule = optimizer_lib.make_schedule(
      learning_rate=0.0, warmup_steps=0, num_steps=1
  )
  optimizer = factories.make_optimizer(config.optimizer, schedule)
  initialise = factories.make_initialiser(config, model, optimizer)
  checkpoints = open_checkpoints(config, workdir, fingerprints, only_reads=True)
  try:
    restored = checkpoints.restore(train_state.abstract_state(initialise, mesh))
  finally:
    checkpoints.close()
  if restored is None:
    raise errors.InputError(
        f"{workdir.checkpoints}: must hold a checkpoint for --mode=export, is"
        " empty; run --mode=train first."
    )
  return restored[0]


def _export_all(
    config: config_lib.ExperimentConfig,
    workdir: Workdir,
    splits: splits_lib.Splits,
    segments: splits_lib.Splits | None,
    mesh: Mesh,
    state: train_state.TrainState,
) -> float:
  """Writes the codes of all that is evaluated; returns the seconds."""
  start = time.monotonic()
  _export(config, workdir, splits, mesh, state)
  if segments:
    _export(config, workdir, segments, mesh, state, prefix="segment_")
  return time.monotonic() - start


def _export(
    config: config_lib.ExperimentConfig,
    workdir: Workdir,
    splits: splits_lib.Splits,
    mesh: Mesh,
    state: train_state.TrainState,
    *,
    prefix: str = "",
) -> None:
  encode = export.make_encode(train_state.make_model(config.model), mesh)
  packed = {}  # By source: the field's gallery can be its query.
  for split in comparison.EVALUATED:
    source = getattr(splits, split)
    if id(source) not in packed:
      packed[id(source)] = export.encode_split(
          encode,
          state,
          source,
          mesh,
          batch_size=config.evaluation.batch_size,
          num_frames=config.data.num_frames,
          num_workers=config.data.num_workers,
      )
    if jax.process_index() == 0:
      export.write_split(
          workdir.codes(prefix + split),
          packed[id(source)],
          source,
          manifest=export.manifest(
              config, source, split=prefix + split, step=int(state.step)
          ),
      )
