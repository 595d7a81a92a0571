"""The model beside LSH and ITQ: one report on the same videos."""

import dataclasses
import os
import time
from typing import Any

import numpy as np

from chain_jax import baselines, errors, retrieval_metrics
from chain_jax import codes as codes_lib
from chain_jax import config as config_lib
from chain_jax import report as report_lib
from chain_jax.data import pooling
from chain_jax.data import splits as splits_lib
from chain_jax.workdir import Workdir

EVALUATED = ("query", "gallery")


def evaluate_run(
    config: config_lib.ExperimentConfig,
    workdir: Workdir,
    splits: splits_lib.Splits,
    *,
    num_steps: int,
    seconds: dict[str, float],
) -> dict[str, Any]:
  """Evaluates the exported codes beside the baselines; writes the report.

  Args:
    config: The run.
    workdir: Holds its codes.
    splits: Its videos; the baselines hash their mean frames.
    num_steps: Length of the run.
    seconds: Wall time by phase, so far.

  Returns:
    The report.

  Raises:
    InputError: If the codes are missing, damaged or of other videos.
  """
  start = time.monotonic()
  query, gallery = _read_codes(workdir, splits)
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
      num_steps=num_steps,
      seed=config.train.seed,
      git_commit=query.manifest.get("git_commit"),
      num_queries=len(query.ids),
      num_gallery=len(gallery.ids),
      self_match=config.evaluation.self_match,
      results=results,
      left_out=left_out,
      evaluation=dataclasses.asdict(config.evaluation),
      seconds=_seconds_before(workdir, step=query.manifest["step"])
      | seconds
      | {"evaluate": time.monotonic() - start},
  )
  report_lib.write_report(workdir.report, report)
  return report


def _read_codes(
    workdir: Workdir, splits: splits_lib.Splits
) -> tuple[codes_lib.CodeSet, codes_lib.CodeSet]:
  """Reads query and gallery; refuses what a kill between the two left."""
  query, gallery = (
      codes_lib.read_code_directory(workdir.codes(split)) for split in EVALUATED
  )
  for split, code_set in zip(EVALUATED, (query, gallery), strict=True):
    same_step = code_set.manifest.get("step") == query.manifest.get("step")
    same_videos = np.array_equal(code_set.ids, getattr(splits, split).ids)
    if not (same_step and same_videos):
      raise errors.InputError(
          f"{workdir.codes(split)}: must be codes of the same step as the"
          " queries' and of the videos of this run, but differ; run"
          " --mode=export again."
      )
  return query, gallery


def _seconds_before(workdir: Workdir, *, step: int) -> dict[str, float]:
  """Returns how long training and export took, from an earlier report."""
  if not os.path.exists(workdir.report):
    return {}
  report = report_lib.read_report(workdir.report)
  return report["seconds"] if report["step"] == step else {}


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
