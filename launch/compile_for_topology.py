"""python launch/compile_for_topology.py --config=configs/yt8m.py [--topology=v5e:16x16] [--batch=4096]

Says without a TPU whether a batch fits a slice, and how many operations, bytes
and collectives a training step takes: compiles the config's step with the
`libtpu` wheel, opens no data and needs no chip. --topology and --batch can be
given more than once, any setting as --config.FIELD=VALUE. --largest looks for
the largest power of two of videos that fits, from the batch on.

`pip install libtpu` into an environment of its own: where the wheel is, jax
looks for a TPU at each start.
"""

import sys

from absl import flags
from ml_collections import config_flags

from chain_jax import config_rules, errors, main_flags

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "File that describes the run, such as configs/yt8m.py."
)
_TOPOLOGY = flags.DEFINE_multi_string(
    "topology",
    ["v5e:16x16", "v4:2x4x4", "v5p:4x4x4"],
    "Chip and shape of a slice.",
)
_BATCH = flags.DEFINE_multi_integer(
    "batch", [], "Videos a step over all chips; train.batch_size by default."
)
_LARGEST = flags.DEFINE_bool(
    "largest", False, "Also look for the largest power of two that fits."
)


def main(arguments: list[str]) -> None:
  """Compiles each batch for each slice and prints two tables.

  Args:
    arguments: `sys.argv`.

  Raises:
    InputError: If a flag or a field is at fault, or `libtpu` is not there.
    RunError: If the compiler fails.
  """
  main_flags.parse(arguments)
  config = _CONFIG.value
  if config is None:
    raise errors.InputError(
        "--config must name a file; try --config=configs/yt8m.py, or --help."
    )
  config_rules.validate(config, num_devices=1)
  # Deferred: --help and what the user got wrong need no jax.
  import jax

  from chain_jax import fitting, modelled_step

  # Constants are made on the CPU, also where there is a TPU.
  jax.config.update("jax_platforms", "cpu")
  rows = fitting.compile_all(
      config,
      topologies=_TOPOLOGY.value,
      batch_sizes=_BATCH.value or [config.train.batch_size],
      looks_for_largest=_LARGEST.value,
  )
  print(modelled_step.compiled_table(rows))
  print()
  print(modelled_step.modelled_table(rows))


if __name__ == "__main__":
  sys.exit(errors.run_command(lambda: main(sys.argv)))
