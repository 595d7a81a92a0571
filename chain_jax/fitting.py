"""Which batches fit which slices of chips, found by compiling for them."""

import copy
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from chain_jax import compiled_step, config_rules, modelled_step, step_flops
from chain_jax import config as config_lib


def compile_all(
    config: config_lib.ExperimentConfig,
    *,
    topologies: Sequence[str],
    batch_sizes: Sequence[int],
    looks_for_largest: bool,
) -> list[modelled_step.Row]:
  """Compiles the step of each batch for each slice; says so on stderr.

  Args:
    config: The run; its batch size is not looked at.
    topologies: Such as "v5e:16x16".
    batch_sizes: Videos a step, over all chips.
    looks_for_largest: From each batch size go on by powers of two until the
      largest that fits is known.

  Returns:
    A row for each compilation, in their order.

  Raises:
    InputError: If there is no such slice or no compiler, or a slice cannot
      share a batch.
    RunError: If the compiler fails for another reason than memory.
  """
  # All of them first: that the last name is wrong is not said after minutes.
  devices = {name: compiled_step.describe_devices(name) for name in topologies}
  rows = []
  for topology in topologies:
    for batch_size in batch_sizes:
      row = _compile(config, topology, devices[topology], batch_size)
      rows.append(row)
      if looks_for_largest:
        rows += _look_for_largest(config, row, devices[topology])
  return rows


def _compile(
    config: config_lib.ExperimentConfig,
    topology: str,
    devices: list[Any],
    batch_size: int,
) -> modelled_step.Row:
  print(f"compiling {batch_size} videos for {topology}", file=sys.stderr)
  config = copy.deepcopy(config)
  config.train.batch_size = batch_size
  config_rules.validate(config, num_devices=1)
  return modelled_step.Row(
      topology,
      batch_size,
      step_flops.useful_flops(config),
      compiled_step.compile_step(config, devices),
  )


def _look_for_largest(
    config: config_lib.ExperimentConfig,
    first: modelled_step.Row,
    devices: list[Any],
) -> Iterator[modelled_step.Row]:
  """Doubles what fits, or halves what does not, until the answer turns."""
  fitted, batch_size = modelled_step.fits(first.step), first.batch_size
  smallest = len(devices) // config.sharding.model_parallel
  # The power of two a part from which the next one is on the other side.
  rows = batch_size // smallest
  batch_size = smallest << (rows - (not fitted)).bit_length() - fitted
  while fitted or batch_size > smallest:
    batch_size = batch_size * 2 if fitted else batch_size // 2
    row = _compile(config, first.topology, devices, batch_size)
    yield row
    if modelled_step.fits(row.step) != fitted:
      return
