"""Measures memory, time and error of the contrastive loss, method by method.

    python -m benchmarks.contrastive

"naive" is the plain formula, its rows gathered on every device; the others are
the methods of `nt_xent`. Memory is what the compiled value and gradients need
beside their inputs and outputs, a device; it is known without running, so a
case that does not fit has it too. Errors are the largest, relative to the
largest entry, against float64. On CPU the devices share the machine's cores.
"""

import argparse
import functools
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Float64

from benchmarks import contrastive_float64, machine
from chain_jax import sharding
from chain_jax.losses import contrastive

_METHODS = ("naive", "global", "tiled", "ring")
_TEMPERATURE = 0.1
# Of the free memory: others run on the machine as well.
_USABLE_MEMORY = 0.6


class Case(NamedTuple):
  """One method at one size."""

  method: str
  batch: int
  num_devices: int


class Measured(NamedTuple):
  """What a case needs, and how far off it is; None where it did not run."""

  memory: int  # Bytes a device.
  seconds: float | None
  errors: tuple[float, ...] | None  # Value, embeddings, temperature.


def naive_loss(
    embeddings: Float[Array, "batch 2 dim"],
    temperature: Float[Array, ""],
    mesh: Mesh,
) -> Float[Array, ""]:
  """The plain formula: all rows on every device, nothing recomputed."""

  def on_device(embeddings, rows, temperature):
    length = jnp.linalg.norm(embeddings, axis=-1, keepdims=True)
    units = (embeddings / length).reshape(-1, embeddings.shape[-1])
    everyone = jax.lax.all_gather(units, "data", tiled=True)
    logits = jnp.matmul(units, everyone.T, precision=jax.lax.Precision.HIGHEST)
    columns = jnp.arange(len(everyone))
    rows = rows.reshape(-1, 1)
    logits = jnp.where(columns == rows, -jnp.inf, logits / temperature)
    scores = jax.nn.log_softmax(logits)
    picked = jnp.sum(jnp.where(columns == rows ^ 1, scores, 0.0), axis=-1)
    return jax.lax.pmean(-jnp.mean(picked), "data")

  rows = jnp.arange(2 * len(embeddings)).reshape(-1, 2)
  return jax.shard_map(
      on_device,
      mesh=mesh,
      in_specs=(P("data"), P("data"), P()),
      out_specs=P(),
  )(embeddings, rows, temperature)


def make_loss(method: str, mesh: Mesh, tile_size: int) -> Callable[..., Any]:
  """Makes (embeddings, temperature) -> loss."""
  if method == "naive":
    return functools.partial(naive_loss, mesh=mesh)

  def loss(embeddings, temperature):
    return contrastive.nt_xent(
        embeddings,
        temperature=temperature,
        method=method,
        mesh=mesh,
        tile_size=tile_size,
    )

  return loss


def make_embeddings(batch: int, dim: int) -> Float[np.ndarray, "batch 2 dim"]:
  """Draws videos whose two views are alike, as in the midst of training."""
  rng = np.random.default_rng(0)
  video = rng.standard_normal((batch, 1, dim))
  noise = rng.standard_normal((batch, 2, dim))
  return (video + 0.7 * noise).astype(np.float32)


def measure(
    case: Case,
    embeddings: Float[np.ndarray, "batch 2 dim"],
    exact: tuple[Float64[np.ndarray, "*shape"], ...],
    *,
    tile_size: int,
    repeats: int,
) -> Measured:
  """Compiles a case and, if it fits, runs it."""
  mesh = sharding.make_mesh(jax.devices()[: case.num_devices])
  loss = make_loss(case.method, mesh, tile_size)
  whole, split = sharding.replicated(mesh), sharding.batch_sharding(mesh)
  inputs = (
      jax.device_put(embeddings, split),
      jax.device_put(np.float32(_TEMPERATURE), whole),
  )
  compiled = (
      jax.jit(
          jax.value_and_grad(loss, argnums=(0, 1)),
          out_shardings=(whole, (split, whole)),
      )
      .lower(*inputs)
      .compile()
  )
  memory = compiled.memory_analysis().temp_size_in_bytes
  if memory > _USABLE_MEMORY * free_memory(mesh):
    return Measured(memory, None, None)
  value, gradients = jax.block_until_ready(compiled(*inputs))
  errors = tuple(
      float(np.max(np.abs(actual - expected)) / np.max(np.abs(expected)))
      for actual, expected in zip((value, *gradients), exact, strict=True)
  )
  return Measured(memory, best_seconds(compiled, inputs, repeats), errors)


def best_seconds(
    compiled: Callable[..., Any], inputs: Any, repeats: int
) -> float:
  """Times a program that has run before."""
  seconds = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(compiled(*inputs))
    seconds.append(time.perf_counter() - start)
  return min(seconds)


def free_memory(mesh: Mesh) -> float:
  """Returns the bytes that a device may use, its own or of the machine's."""
  device = mesh.devices.flat[0]
  if device.platform == "cpu":
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024 / mesh.size
  return device.memory_stats()["bytes_limit"]


def exponent(measured: dict[int, Measured]) -> float:
  """Fits x in "memory grows as batch ** x" over the sizes."""
  sizes = np.log(list(measured))
  memories = np.log([case.memory for case in measured.values()])
  return float(np.polyfit(sizes, memories, 1)[0])


def line_of(case: Case, measured: Measured) -> str:
  """Returns a case's line of the table."""
  line = (
      f"{case.num_devices:7}{case.batch:7}  {case.method:7}"
      f"{measured.memory / 2**20:10.1f}"
  )
  if measured.errors is None:
    return f"{line}  not run: more than {_USABLE_MEMORY:.0%} of free memory"
  errors = "".join(f"{error:12.1e}" for error in measured.errors)
  return f"{line}{measured.seconds:9.3f}{errors}"


def parse_flags() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
      "--sizes",
      type=int,
      nargs="+",
      default=[2**n for n in (10, 12, 13, 14, 15)],
  )
  parser.add_argument("--devices", type=int, nargs="+", default=[1, 8])
  parser.add_argument("--methods", nargs="+", default=_METHODS)
  parser.add_argument("--dim", type=int, default=64)
  parser.add_argument("--tile_size", type=int, default=1024)
  parser.add_argument("--repeats", type=int, default=3)
  return parser.parse_args()


def measure_all(flags: argparse.Namespace) -> dict[Case, Measured]:
  """Prints the table, a line when it is known, and returns it."""
  table = {}
  for batch in flags.sizes:
    embeddings = make_embeddings(batch, flags.dim)
    exact = contrastive_float64.value_and_gradients(embeddings, _TEMPERATURE)
    for num_devices in flags.devices:
      for method in flags.methods:
        case = Case(method, batch, num_devices)
        if num_devices > jax.device_count() or (
            method == "tiled" and num_devices > 1
        ):
          continue
        table[case] = measure(
            case,
            embeddings,
            exact,
            tile_size=flags.tile_size,
            repeats=flags.repeats,
        )
        print(line_of(case, table[case]), flush=True)
  return table


def print_growth(table: dict[Case, Measured]) -> None:
  """Prints how memory grows, and ring beside global at each size."""
  kinds = dict.fromkeys((case.num_devices, case.method) for case in table)
  for num_devices, method in kinds:
    sizes = {
        case.batch: measured
        for case, measured in table.items()
        if (case.num_devices, case.method) == (num_devices, method)
    }
    if len(sizes) > 1:
      print(
          f"{num_devices} devices, {method}: memory grows as B **"
          f" {exponent(sizes):.2f}"
      )
  for case, measured in table.items():
    kept = table.get(case._replace(method="global"))
    if case.method != "ring" or case.num_devices == 1 or kept is None:
      continue
    line = f"{case.num_devices} devices, B = {case.batch}: ring / global"
    line += f" memory {measured.memory / kept.memory:.3f}"
    if measured.seconds and kept.seconds:
      line += f", seconds {measured.seconds / kept.seconds:.2f}"
    print(line)


def main() -> None:
  flags = parse_flags()
  # Before the first use of a device; of no effect on those that are none.
  if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    jax.config.update("jax_num_cpu_devices", max(flags.devices))
  print(
      machine.machine_line("jax"),
      f"{jax.device_count()} x {jax.devices()[0].device_kind}",
  )
  for num_devices in flags.devices:
    if num_devices > jax.device_count():
      print(f"not run: {num_devices} devices, there are {jax.device_count()}")
  print(
      f"{'devices':>7}{'B':>7}  {'method':7}{'MiB':>10}{'s/step':>9}"
      f"{'value':>12}{'gradient':>12}{'temperature':>12}"
  )
  print_growth(measure_all(flags))


if __name__ == "__main__":
  main()
