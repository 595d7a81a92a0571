"""ITQ or LSH as a run of its own: codes and a report, but no training."""

import dataclasses
import functools
import json
import os
import time
from collections.abc import Callable

import numpy as np

from chain_jax import baselines, errors, provenance, retrieval_metrics
from chain_jax import codes as codes_lib
from chain_jax import config as config_lib
from chain_jax import report as report_lib
from chain_jax import workdir as workdir_lib
from chain_jax.data import pooling, sources
from chain_jax.data import splits as splits_lib

METHODS = {"itq": baselines.fit_itq, "lsh": baselines.fit_lsh}


def run_baseline(
    config: config_lib.ExperimentConfig, *, path: str, method: str
) -> None:
  """Writes the codes and the report of a baseline, unless they are there.

  Args:
    config: Its data, bits and evaluation.
    path: Its folder, laid out as a run's.
    method: One of `METHODS`.

  Raises:
    InputError: If the folder is of another run, or the data are at fault.
    RunError: If it cannot be fitted, such as to fewer videos than bits.
  """
  workdir = workdir_lib.open_workdir(path, config, must_exist=False)
  if os.path.exists(workdir.report):
    return
  splits, pool = _open(
      json.dumps(dataclasses.asdict(config.data)), config.train.seed
  )
  workdir_lib.claim_workdir(workdir, config, splits_lib.fingerprints(splits))
  start = time.monotonic()
  linear = _fit(config, splits, pool, method)
  code_sets = []
  for split in ("query", "gallery"):
    source = getattr(splits, split)
    packed = codes_lib.pack_bits(
        baselines.apply_linear_hash(linear, pool(source))
    )
    codes_lib.write_code_directory(
        workdir.codes(split),
        packed=packed,
        ids=source.ids,
        labels=source.labels,
        manifest={"method": method, "split": split},
    )
    code_sets.append(codes_lib.CodeSet(packed, source.ids, source.labels, {}))
  seconds = time.monotonic() - start
  _write_report(config, workdir.report, method, code_sets, seconds)


@functools.lru_cache(maxsize=1)
def _open(
    data: str, seed: int
) -> tuple[splits_lib.Splits, Callable[[sources.VideoSource], np.ndarray]]:
  """Opens the videos; bits and methods share their means, as memory allows."""
  config = config_lib.from_dict({"data": json.loads(data)}).data
  splits = splits_lib.make_splits(config, seed=seed)
  return splits, functools.cache(pooling.pooled_features)


def _fit(
    config: config_lib.ExperimentConfig,
    splits: splits_lib.Splits,
    pool: Callable[[sources.VideoSource], np.ndarray],
    method: str,
) -> baselines.LinearHash:
  settings = config.evaluation
  sample = sources.sample_videos(
      splits.train, settings.baseline_videos, seed=settings.baseline_seed
  )
  try:
    return METHODS[method](
        pool(sample),
        num_bits=config.model.num_bits,
        seed=settings.baseline_seed,
    )
  except errors.InputError as error:  # The other rows are not at fault.
    raise errors.RunError(str(error)) from error


def _write_report(
    config: config_lib.ExperimentConfig,
    path: str,
    method: str,
    code_sets: list[codes_lib.CodeSet],
    seconds: float,
) -> None:
  query, gallery = code_sets
  result = retrieval_metrics.evaluate_codes(
      query, gallery, self_match=config.evaluation.self_match
  )
  report = report_lib.make_report(
      config_name=config.name,
      step=None,
      seed=config.evaluation.baseline_seed,
      git_commit=provenance.git_commit(),
      num_queries=len(query.ids),
      num_gallery=len(gallery.ids),
      self_match=config.evaluation.self_match,
      results=[{"method": method} | result],
      seconds={"train": seconds},
  )
  report_lib.write_report(path, report)
