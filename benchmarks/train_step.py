"""Times one training step, and says what share of the machine it uses.

    python -m benchmarks.train_step

The share is the step's useful matrix-product work (`chain_jax/step_flops.py`,
nothing recomputed) per second, over the rate of a large matrix product measured
in the same run on the same devices.
"""

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import in_memory, machine
from chain_jax import config as config_lib
from chain_jax import factories, sharding, step_flops
from chain_jax import optimizer as optimizer_lib
from chain_jax.data import pipeline


def matmul_rate(size: int, *, dtype: str, repeats: int = 5) -> float:
  """Measures the floating point operations a second of a square product."""
  factor = jnp.ones((size, size), dtype)
  product = jax.jit(jnp.matmul)
  product(factor, factor).block_until_ready()
  seconds = []
  for _ in range(repeats):
    start = time.perf_counter()
    product(factor, factor).block_until_ready()
    seconds.append(time.perf_counter() - start)
  return 2 * size**3 / min(seconds)


def make_case(**changes: int) -> config_lib.ExperimentConfig:
  """Returns the default config at UCF101's size with some fields changed."""
  config = config_lib.ExperimentConfig()
  for name, value in changes.items():
    part = config.train if name == "batch_size" else config.model
    part = config.data if name in ("num_frames", "feature_dim") else part
    setattr(part, name, value)
  return config


def time_step(config: config_lib.ExperimentConfig, repeats: int) -> float:
  """Returns the best seconds of a step, its batch on the devices already."""
  mesh = sharding.make_mesh()
  model = factories.make_model(config)
  schedule = optimizer_lib.make_schedule(
      learning_rate=1e-3, warmup_steps=0, num_steps=100
  )
  optimizer = factories.make_optimizer(config.optimizer, schedule)
  initialise = factories.make_initialiser(config, model, optimizer)
  whole = sharding.replicated(mesh)
  state = jax.jit(initialise, out_shardings=whole)(0)
  step = factories.make_step(
      config, model, optimizer, mesh, in_memory.random_source(1, 1, 1)
  )
  batch = sharding.to_global(_make_batch(config), mesh)
  seconds = []
  for _ in range(repeats + 1):
    start = time.perf_counter()
    state, metrics = step(state, batch)
    jax.block_until_ready((state, metrics))
    seconds.append(time.perf_counter() - start)
  return min(seconds[1:])  # The first one compiles.


def _make_batch(config: config_lib.ExperimentConfig) -> Any:
  shape = (config.train.batch_size, 2, config.data.num_frames)
  rng = np.random.default_rng(0)
  views = rng.random((*shape, config.data.feature_dim), np.float32)
  videos = np.arange(config.train.batch_size, dtype=np.int32)
  return pipeline.Batch(views, np.ones(shape, bool), videos)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--batch_size", type=int, default=64)
  parser.add_argument("--feature_dim", type=int, default=4096)
  parser.add_argument("--matmul_size", type=int, default=2048)
  parser.add_argument("--repeats", type=int, default=5)
  flags = parser.parse_args()
  size = {"batch_size": flags.batch_size, "feature_dim": flags.feature_dim}
  cases = {"default model": {}, "12 blocks of 256": {"depth": 12}}
  print(machine.machine_line("jax", "flax"), jax.devices()[0].device_kind)
  print(f"{'case':20}{'s/step':>9}{'videos/s':>10}{'GFLOP/s':>9}{'share':>7}")
  for name, changes in cases.items():
    config = make_case(**size, **changes)
    # Beside each case: a shared machine's speed changes within minutes.
    rate = matmul_rate(flags.matmul_size, dtype=config.model.dtype)
    seconds = time_step(config, flags.repeats)
    rate = max(rate, matmul_rate(flags.matmul_size, dtype=config.model.dtype))
    speed = step_flops.useful_flops(config) / seconds
    print(
        f"{name:20}{seconds:9.3f}{flags.batch_size / seconds:10.0f}"
        f"{speed / 1e9:9.0f}{speed / rate:7.2f}",
        flush=True,
    )


if __name__ == "__main__":
  main()
