"""Times the export of codes: from frames in memory to packed codes.

    python -m benchmarks.encode

Also prints the same encoder alone, its batch on the devices already: the
difference is reading, stacking, transfer and packing.
"""

import argparse
import time

import jax
import numpy as np

from benchmarks import in_memory, machine
from chain_jax import config as config_lib
from chain_jax import export, factories, sharding, train_state
from chain_jax import optimizer as optimizer_lib


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--num_videos", type=int, default=1024)
  parser.add_argument("--batch_size", type=int, default=256)
  parser.add_argument("--feature_dim", type=int, default=4096)
  flags = parser.parse_args()
  config = config_lib.ExperimentConfig()
  config.data.feature_dim = flags.feature_dim
  mesh = sharding.make_mesh()
  model = train_state.make_model(config.model)
  schedule = optimizer_lib.make_schedule(
      learning_rate=1e-3, warmup_steps=0, num_steps=100
  )
  optimizer = factories.make_optimizer(config.optimizer, schedule)
  state = jax.jit(factories.make_initialiser(config, model, optimizer))(0)
  encode = export.make_encode(model, mesh)
  source = in_memory.random_source(
      flags.num_videos, config.data.num_frames, flags.feature_dim
  )

  def export_all() -> None:
    export.encode_split(
        encode,
        state,
        source,
        mesh,
        batch_size=flags.batch_size,
        num_frames=config.data.num_frames,
    )

  rows = np.zeros((flags.batch_size, config.data.num_frames), bool)
  frames = rows[..., None].repeat(flags.feature_dim, -1).astype(np.float16)
  on_device = sharding.to_global((frames, ~rows), mesh)
  variables = {"params": state.params, "statistics": state.statistics}
  num_batches = -(-flags.num_videos // flags.batch_size)

  def encode_only() -> None:
    for _ in range(num_batches):
      encode(variables, source.scaling, *on_device).block_until_ready()

  print(machine.machine_line("jax", "flax"))
  print(f"{flags.num_videos} videos of 25 x {flags.feature_dim}, 64 bits")
  for name, fn in (("export", export_all), ("encoder alone", encode_only)):
    fn()
    start = time.perf_counter()
    fn()
    seconds = time.perf_counter() - start
    print(
        f"{name:14}{seconds:8.2f} s{flags.num_videos / seconds:8.0f} videos/s"
    )


if __name__ == "__main__":
  main()
