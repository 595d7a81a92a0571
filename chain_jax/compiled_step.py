"""Compiles a config's training step for chips that are not there.

Shapes alone go in: no data set is opened, no parameter drawn, nothing put on a
device. jax compiles for TPUs on any machine that has the `libtpu` wheel.
"""

import importlib.util
import os
import pathlib
import re
import tempfile
import time
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.experimental import topologies
from jax.sharding import Mesh

from chain_jax import (
    compiled_program,
    factories,
    sharding,
    step_flops,
    train_state,
)
from chain_jax import config as config_lib
from chain_jax import optimizer as optimizer_lib
from chain_jax.data import neighbours, pipeline, records, sources, youtube8m
from chain_jax.errors import InputError, RunError

# Slices that one can rent; any other shape of these chips is tried as well.
KNOWN_TOPOLOGIES = (
    *(f"v5e:{shape}" for shape in ("2x2", "2x4", "4x4", "8x8", "16x16")),
    *(f"v6e:{shape}" for shape in ("2x2", "2x4", "4x4", "8x8", "16x16")),
    *(f"v4:{shape}" for shape in ("2x2x1", "2x2x4", "2x4x4", "4x4x4")),
    *(f"v5p:{shape}" for shape in ("2x2x1", "2x2x4", "4x4x4", "4x4x8")),
)
# Both cores of a chip as one device, as on a TPU VM: jax's own aot tests.
_CHIP_CONFIG = {"v4": {"chip_config_name": "megacore"}}
# What libtpu reads when it is loaded: that it need not look for the TPU VM that
# it runs on, and complain, and that other processes may have loaded it too.
_LIBTPU_SETTINGS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


# How the compiler says that a program does not fit; "G" is GiB.
_OUT_OF_MEMORY = (
    r"\((?P<needed>[\d.]+\w)\) exceeds available \w+ \((?P<there>[\d.]+\w)\)",
    r"Used (?P<needed>[\d.]+\w) of (?P<there>[\d.]+\w)",
)


class CompiledStep(NamedTuple):
  """What a compiler says of one step on one topology.

  Attributes:
    num_devices: Chips.
    device_kind: What jax calls one.
    seconds: The compiler took.
    too_large: Why the compiler refused, in one line; "" if it did not. All
      that follows is then 0 or None.
    argument_bytes: State and batch, of one device, as are all numbers below.
    temp_bytes: What else lies in memory while the step runs.
    code_bytes: The program and its constants.
    flops: Of the matrix products, all turns of each loop.
    xla_flops: By XLA's cost analysis: each loop's body once.
    xla_bytes: Likewise, to and from any memory.
    movement: HBM traffic and collectives; None if the compiler left no text.
  """

  num_devices: int
  device_kind: str
  seconds: float
  too_large: str = ""
  argument_bytes: int = 0
  temp_bytes: int = 0
  code_bytes: int = 0
  flops: float = 0.0
  xla_flops: float = 0.0
  xla_bytes: float = 0.0
  movement: compiled_program.Movement | None = None

  @property
  def memory_bytes(self) -> int:
    """What a device holds at once; results take the state's place."""
    return self.argument_bytes + self.temp_bytes + self.code_bytes


def describe_devices(topology: str) -> list[Any]:
  """Describes the devices of a TPU slice.

  Args:
    topology: Chip and shape, such as "v5e:16x16".

  Returns:
    Devices that programs can be compiled for, and not run on.

  Raises:
    InputError: If there is no such slice, or no `libtpu` wheel.
    RunError: If the wheel cannot be loaded.
  """
  if importlib.util.find_spec("libtpu") is None:
    raise InputError(
        "compiling for TPUs needs the `libtpu` wheel, which is not there; try"
        " `pip install libtpu`, best in an environment of its own."
    )
  for name, value in _LIBTPU_SETTINGS.items():
    os.environ.setdefault(name, value)
  chip, _, shape = topology.partition(":")
  unknown = InputError(
      f"--topology must be a TPU slice, got {topology!r}; known are"
      f" {', '.join(KNOWN_TOPOLOGIES)}."
  )
  if not shape:  # libtpu would choose one.
    raise unknown
  try:
    description = topologies.get_topology_desc(
        topology, "tpu", **_CHIP_CONFIG.get(chip, {})
    )
  except jax.errors.JaxRuntimeError as error:
    line = str(error).splitlines()[0]
    if line.startswith("INVALID_ARGUMENT"):
      raise unknown from error
    raise RunError(f"libtpu cannot be loaded: {line}") from error
  return list(description.devices)


def compile_step(
    config: config_lib.ExperimentConfig, devices: list[Any]
) -> CompiledStep:
  """Compiles one training step.

  Args:
    config: The run; its batch is split over the devices.
    devices: From `describe_devices`, or real ones.

  Returns:
    What the compiler says, also where the step does not fit.

  Raises:
    InputError: If the devices cannot share the batch.
    RunError: If the compiler fails for another reason than memory.
  """
  mesh = sharding.make_mesh(
      devices, model_parallel=config.sharding.model_parallel
  )
  known = (len(devices), devices[0].device_kind)
  start = time.monotonic()
  try:
    traced = trace_step(config, mesh)
    with tempfile.TemporaryDirectory() as folder:
      # Compiled.as_text() fails for some chips (libtpu 0.0.52): its text is not
      # read back by the XLA of jaxlib. What libtpu itself writes is complete.
      options = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
      compiled = traced.lower().compile(compiler_options=options)
      seconds = time.monotonic() - start
      movement = _read_dump(folder, len(devices))
  except (jax.errors.JaxRuntimeError, MemoryError) as error:
    reason = _too_large(error)
    return CompiledStep(*known, time.monotonic() - start, reason)
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
  results = memory.output_size_in_bytes - memory.alias_size_in_bytes
  return CompiledStep(
      *known,
      seconds,
      argument_bytes=memory.argument_size_in_bytes,
      temp_bytes=memory.temp_size_in_bytes + results,
      code_bytes=memory.generated_code_size_in_bytes,
      flops=step_flops.matmul_flops(traced.jaxpr.jaxpr) / len(devices),
      xla_flops=cost.get("flops", 0.0),
      xla_bytes=cost.get("bytes accessed", 0.0),
      movement=movement,
  )


def trace_step(config: config_lib.ExperimentConfig, mesh: Mesh) -> Any:
  """Traces the training step of a config on shapes alone.

  Args:
    config: The run.
    mesh: Of devices, there or not.

  Returns:
    The `jax.stages.Traced` step.

  Raises:
    InputError: If the devices cannot share the batch.
  """
  _check_batch(config, mesh)
  model = factories.make_model(config)
  optimizer = _make_optimizer(config)
  source = _stand_in(config.data)
  step = factories.make_step(config, model, optimizer, mesh, source)
  return step.trace(*abstract_inputs(config, mesh))


def abstract_inputs(
    config: config_lib.ExperimentConfig, mesh: Mesh
) -> tuple[train_state.TrainState, pipeline.Batch]:
  """Returns what a step takes, as shapes, dtypes and where they lie."""
  initialise = factories.make_initialiser(
      config, factories.make_model(config), _make_optimizer(config)
  )
  state = train_state.abstract_state(initialise, mesh)
  size, split = config.train.batch_size, sharding.batch_sharding(mesh)
  slots = (size, 2, config.data.num_frames)
  frames = ((*slots, config.data.feature_dim), _stand_in(config.data).dtype)
  others = ((slots, np.dtype(bool)), ((size,), np.dtype(np.int32)))
  batch = pipeline.Batch(
      *(
          jax.ShapeDtypeStruct(shape, dtype, sharding=split)
          for shape, dtype in (frames, *others)
      )
  )
  if config.neighbours.num_neighbours:
    shape = (size, neighbours.table_width(config.neighbours.num_neighbours))
    rows, weights = (
        jax.ShapeDtypeStruct(shape, dtype, sharding=split)
        for dtype in (np.dtype(np.int32), np.dtype(np.float32))
    )
    batch = batch._replace(neighbours=neighbours.BatchNeighbours(rows, weights))
  return state, batch


def _make_optimizer(
    config: config_lib.ExperimentConfig,
) -> optax.GradientTransformation:
  # The numbers of a schedule change nothing in the program but constants.
  schedule = optimizer_lib.make_schedule(
      learning_rate=config.optimizer.learning_rate,
      warmup_steps=config.optimizer.warmup_steps,
      num_steps=10_000,
  )
  return factories.make_optimizer(config.optimizer, schedule)


def _stand_in(config: config_lib.DataConfig) -> sources.FramesSource:
  """Makes one video of zeros, stored as the config's dataset would be."""
  is_bytes = (
      config.dataset == "prepared"
      and config.feature_dim == youtube8m.FEATURE_DIM
  )
  dtype = np.dtype(np.uint8 if is_bytes else np.float32)
  source = sources.FramesSource([np.zeros((1, config.feature_dim), dtype)])
  if is_bytes:
    source.scaling = records.Scaling(
        np.float32(youtube8m.FEATURE_SCALE),
        np.float32(youtube8m.FEATURE_OFFSET),
    )
  return source


def _check_batch(config: config_lib.ExperimentConfig, mesh: Mesh) -> None:
  size, shares = config.train.batch_size, sharding.data_size(mesh)
  if size % shares:
    raise InputError(
        f"`train.batch_size` must be a multiple of the {shares} parts that"
        f" {mesh.size} devices split it into, got {size}; try {max(1, size // shares) * shares}."
    )


def _read_dump(
    folder: str, num_devices: int
) -> compiled_program.Movement | None:
  for file in pathlib.Path(folder).glob("*.jit_step.*after_optimizations.txt"):
    return compiled_program.read_movement(
        file.read_text(), num_devices=num_devices
    )
  return None


def _too_large(error: Exception) -> str:
  """Says in a line that memory did not suffice; raises what else went wrong."""
  text = str(error)
  if isinstance(error, MemoryError):
    return "this machine's memory is too small to compile it"
  for pattern in _OUT_OF_MEMORY:
    if match := re.search(pattern, text):
      return "needs {needed} of {there}".format(**match.groupdict())
  if "RESOURCE_EXHAUSTED" in text:
    return text.splitlines()[0]
  raise RunError(f"the compiler failed: {text.splitlines()[0]}") from error
