"""What a run shows of itself while it trains: metrics, times, traces."""

import contextlib
from collections.abc import Callable

import jax

from chain_jax import (
    chips,
    metric_writer,
    profiling,
    step_clock,
    step_flops,
    step_rates,
    step_recorder,
)
from chain_jax import config as config_lib
from chain_jax.workdir import Workdir


def start(
    config: config_lib.ExperimentConfig,
    workdir: Workdir,
    *,
    num_devices: int,
    steps: range,
) -> tuple[step_recorder.StepRecorder, profiling.Tracer, Callable[[], None]]:
  """Starts recording steps; process 0 alone writes, prints and traces.

  Args:
    config: The run.
    workdir: Its folder.
    num_devices: That share a step, of all processes.
    steps: From those done before to those in all.

  Returns:
    The recorder, the tracer, and the function that closes both.
  """
  clock = step_clock.StepClock()
  resources = contextlib.ExitStack()
  writer, is_first = None, jax.process_index() == 0
  if is_first:
    writer = metric_writer.MetricWriter(workdir.path, start_step=steps.start)
    resources.callback(writer.close)
  recorder = step_recorder.StepRecorder(
      writer,
      clock,
      _step_work(config, num_devices),
      start_step=steps.start,
      num_steps=steps.stop,
  )
  tracer = profiling.Tracer(
      workdir,
      clock,
      start_step=config.train.profile_start_step,
      num_steps=config.train.profile_num_steps if is_first else 0,
  )
  resources.callback(tracer.close)
  return recorder, tracer, resources.close


def _step_work(
    config: config_lib.ExperimentConfig, num_devices: int
) -> step_rates.StepWork:
  """Says what a step does; the peak is that of bfloat16 for every dtype."""
  chip = chips.find(jax.devices()[0].device_kind)
  return step_rates.StepWork(
      batch_size=config.train.batch_size,
      num_devices=num_devices,
      flops=step_flops.useful_flops(config),
      peak_flops=chip.bf16_flops if chip else None,
  )
