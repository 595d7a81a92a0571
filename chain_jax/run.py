"""A run in three modes: train (and all that follows), export, evaluate."""

import os
import time
from typing import Any

import jax
from jax.sharding import Mesh

from chain_jax import (
    baselines,
    checkpoint,
    config_rules,
    errors,
    export,
    retrieval_metrics,
    sharding,
    train_loop,
    train_state,
)
from chain_jax import codes as codes_lib
from chain_jax import config as config_lib
from chain_jax import optimizer as optimizer_lib
from chain_jax import report as report_lib
from chain_jax.data import pooling
from chain_jax.data import splits as splits_lib
from chain_jax.workdir import Workdir, open_workdir

MODES = ("train", "export", "evaluate")
_EVALUATED = ("query", "gallery")


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
  is_writer = jax.process_index() == 0
  workdir = open_workdir(path, config, is_writer=is_writer)
  if mode == "train" and os.path.exists(workdir.report):
    print(f"{path}: this run is finished; delete the folder to run anew.")
    print(report_lib.format_table(report_lib.read_report(workdir.report)))
    return
  splits = splits_lib.make_splits(config.data, seed=config.train.seed)
  mesh = sharding.make_mesh()
  seconds = {}
  if mode == "train":
    trained = train_loop.train(config, workdir, splits, mesh)
    seconds["train"] = trained.seconds
    seconds["export"] = _export(config, workdir, splits, mesh, trained.state)
  elif mode == "export":
    state = _restore(config, workdir, mesh)
    seconds["export"] = _export(config, workdir, splits, mesh, state)
  if is_writer and mode != "export":
    report = _evaluate(config, workdir, splits, seconds)
    print(report_lib.format_table(report))


def _restore(
    config: config_lib.ExperimentConfig, workdir: Workdir, mesh: Mesh
) -> train_state.TrainState:
  """Restores the newest checkpoint, without the data."""
  model = train_state.make_model(config.model)
  # Only the optimizer state's shape counts here, not the schedule.
  schedule = optimizer_lib.make_schedule(
      learning_rate=0.0, warmup_steps=0, num_steps=1
  )
  optimizer = train_loop.make_optimizer(config.optimizer, schedule)
  initialise = train_loop.make_initialiser(config, model, optimizer)
  checkpoints = checkpoint.Checkpoints(
      workdir.checkpoints, keep=config.train.keep_checkpoints
  )
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


def _export(
    config: config_lib.ExperimentConfig,
    workdir: Workdir,
    splits: splits_lib.Splits,
    mesh: Mesh,
    state: train_state.TrainState,
) -> float:
  """Writes the codes of every evaluation split; returns the seconds."""
  start = time.monotonic()
  encode = export.make_encode(train_state.make_model(config.model), mesh)
  packed = {}  # By source: the field's gallery can be its query.
  for split in _EVALUATED:
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
          workdir.codes(split),
          packed[id(source)],
          source,
          manifest=export.manifest(config, split=split, step=int(state.step)),
      )
  return time.monotonic() - start


def _evaluate(
    config: config_lib.ExperimentConfig,
    workdir: Workdir,
    splits: splits_lib.Splits,
    seconds: dict[str, float],
) -> dict[str, Any]:
  """Evaluates the exported codes beside the baselines; writes the report."""
  start = time.monotonic()
  query, gallery = (
      codes_lib.read_code_directory(workdir.codes(split))
      for split in _EVALUATED
  )
  baseline_codes, left_out = _baseline_codes(config, splits, query, gallery)
  methods = {"chain": (query, gallery)} | baseline_codes
  results = [
      {"method": method}
      | retrieval_metrics.evaluate_codes(
          *code_sets, self_match=config.evaluation.self_match
      )
      for method, code_sets in methods.items()
  ]
  report = report_lib.make_report(
      config_name=config.name,
      step=query.manifest["step"],
      seed=config.train.seed,
      git_commit=query.manifest.get("git_commit"),
      num_queries=len(query.ids),
      num_gallery=len(gallery.ids),
      self_match=config.evaluation.self_match,
      results=results,
      left_out=left_out,
      seconds=seconds | {"evaluate": time.monotonic() - start},
  )
  report_lib.write_report(workdir.report, report)
  return report


def _baseline_codes(
    config: config_lib.ExperimentConfig,
    splits: splits_lib.Splits,
    query: codes_lib.CodeSet,
    gallery: codes_lib.CodeSet,
) -> tuple[
    dict[str, tuple[codes_lib.CodeSet, codes_lib.CodeSet]], dict[str, str]
]:
  """Hashes mean-pooled frames by ITQ and LSH, learnt on the train split.

  Returns:
    Query and gallery codes by method; and, by method, why it cannot be fitted:
    a finished training must not be lost to that.
  """
  pooled = {}
  for source in (splits.train, splits.query, splits.gallery):
    if id(source) not in pooled:
      pooled[id(source)] = pooling.pooled_features(source)
  fits = {"itq": baselines.fit_itq, "lsh": baselines.fit_lsh}
  code_sets, left_out = {}, {}
  for method, fit in fits.items():
    try:
      linear = fit(
          pooled[id(splits.train)],
          num_bits=config.model.num_bits,
          seed=config.evaluation.baseline_seed,
      )
    except errors.InputError as error:
      left_out[method] = str(error)
      continue
    code_sets[method] = tuple(
        code_set._replace(
            packed=codes_lib.pack_bits(
                baselines.apply_linear_hash(linear, pooled[id(source)])
            )
        )
        for code_set, source in (
            (query, splits.query),
            (gallery, splits.gallery),
        )
    )
  return code_sets, left_out
