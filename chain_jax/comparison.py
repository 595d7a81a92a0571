"""The model beside LSH and ITQ: one report on the same videos."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from chain_jax import baselines, errors, retrieval_metrics
from chain_jax import codes as codes_lib
from chain_jax import config as config_lib
from chain_jax import report as report_lib
from chain_jax.data import pooling, sources
from chain_jax.data import splits as splits_lib
from chain_jax.workdir import Workdir

EVALUATED = ("query", "gallery")


def evaluate_run(
    config: config_lib.ExperimentConfig,
    workdir: Workdir,
    splits: splits_lib.Splits,
    *,
    segments: splits_lib.Splits | None,
    num_steps: int,
    seconds: dict[str, float],
) -> dict[str, Any]:
  """Evaluates the exported codes beside the baselines; writes the report.

  Args:
    config: The run.
    workdir: Holds its codes.
    splits: Its videos; the baselines hash their mean frames.
    segments: Scored beside whole videos; None = there are none.
    num_steps: Length of the run.
    seconds: Wall time by phase, so far.

  Returns:
    The report; without labels it has no results.

  Raises:
    InputError: If the codes are missing, damaged or of other videos.
  """
  start = time.monotonic()
  query, gallery = _read_codes(workdir, splits)
  results, left_out, of_segments = [], {}, None
  if query.labels is None or gallery.labels is None:
    left_out = {"scoring": "query or gallery have no labels"}
  else:
    # A gallery that is the train split is pooled once.
    pool = functools.cache(pooling.pooled_features)
    linear, left_out = _fit_baselines(config, splits, pool)
    results = _score(config, splits, query, gallery, linear, pool)
    if segments:
      pair = _read_codes(workdir, segments, prefix="segment_")
      of_segments = {
          "num_queries": len(pair[0].ids),
          "num_gallery": len(pair[1].ids),
          "results": _score(config, segments, *pair, linear, pool),
      }
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
      segments=of_segments,
      evaluation=dataclasses.asdict(config.evaluation),
      seconds=_seconds_before(workdir, step=query.manifest["step"])
      | seconds
      | {"evaluate": time.monotonic() - start},
  )
  report_lib.write_report(workdir.report, report)
  return report


def has_codes(config: config_lib.ExperimentConfig, workdir: Workdir) -> bool:
  """Tells whether the codes that a run exported can be read."""
  prefixes = ("", "segment_") if config.data.prepared.segments_root else ("",)
  try:
    for prefix in prefixes:
      for split in EVALUATED:
        codes_lib.read_code_directory(workdir.codes(prefix + split))
  except errors.InputError as error:
    print(f"{error} This run does so.", flush=True)
    return False
  return True


def _score(
    config: config_lib.ExperimentConfig,
    splits: splits_lib.Splits,
    query: codes_lib.CodeSet,
    gallery: codes_lib.CodeSet,
    linear: dict[str, baselines.LinearHash],
    pool: Callable[[sources.VideoSource], np.ndarray],
) -> list[dict[str, Any]]:
  """Scores the model's codes, and those that each baseline gives."""
  methods = {"chain": (query, gallery)}
  for method, one in linear.items():
    methods[method] = tuple(
        code_set._replace(
            packed=codes_lib.pack_bits(
                baselines.apply_linear_hash(one, pool(source))
            )
        )
        for code_set, source in (
            (query, splits.query),
            (gallery, splits.gallery),
        )
    )
  return [
      {"method": method}
      | retrieval_metrics.evaluate_codes(
          *code_sets, self_match=config.evaluation.self_match
      )
      for method, code_sets in methods.items()
  ]


def _read_codes(
    workdir: Workdir, splits: splits_lib.Splits, *, prefix: str = ""
) -> tuple[codes_lib.CodeSet, codes_lib.CodeSet]:
  """Reads query and gallery; refuses what a kill between the two left."""
  query, gallery = (
      codes_lib.read_code_directory(workdir.codes(prefix + split))
      for split in EVALUATED
  )
  for split, code_set in zip(EVALUATED, (query, gallery), strict=True):
    step = code_set.manifest.get("step")
    same_step = step is not None and step == query.manifest.get("step")
    same_videos = np.array_equal(code_set.ids, getattr(splits, split).ids)
    if not (same_step and same_videos):
      raise errors.InputError(
          f"{workdir.codes(prefix + split)}: must be codes of the same step as the"
          " queries' and of the videos of this run, but differ; run"
          " --mode=export again."
      )
  return query, gallery


def _seconds_before(workdir: Workdir, *, step: int) -> dict[str, float]:
  """Returns how long training and export took, from an earlier report."""
  try:
    report = report_lib.read_report(workdir.report)
  except errors.InputError:  # There is none, or it is being made again.
    return {}
  return report["seconds"] if report["step"] == step else {}


def _fit_baselines(
    config: config_lib.ExperimentConfig,
    splits: splits_lib.Splits,
    pool: Callable[[sources.VideoSource], np.ndarray],
) -> tuple[dict[str, baselines.LinearHash], dict[str, str]]:
  """Learns ITQ and LSH on mean-pooled frames of the train split.

  Returns:
    The hashes by method; and, by method, why it cannot be fitted: a finished
    training must not be lost to that.
  """
  settings = config.evaluation
  if not settings.baseline_videos:
    return {}, {}
  sample = sources.sample_videos(
      splits.train, settings.baseline_videos, seed=settings.baseline_seed
  )
  pooled = pool(sample)
  fitted, left_out = {}, {}
  for method, fit in (("itq", baselines.fit_itq), ("lsh", baselines.fit_lsh)):
    try:
      fitted[method] = fit(
          pooled, num_bits=config.model.num_bits, seed=settings.baseline_seed
      )
    except errors.InputError as error:
      left_out[method] = str(error)
  return fitted, left_out
