"""What the frame-order and scene-change tasks do on order-only classes.

    python -m benchmarks.local_tasks --seeds 0 1 2

Runs the quickstart once for every (variant, seed) and prints the mean mAP@20 and
its spread over seeds, beside ITQ and LSH on the same features. Only the two
weights differ between variants.
"""

import argparse
import contextlib
import io
import os
import tempfile

import numpy as np

from benchmarks import machine
from chain_jax import config as config_lib
from chain_jax import main_flags, run
from chain_jax import report as report_lib

# Name -> keep the frame-order task, keep the scene-change task.
_VARIANTS = {
    "both": (True, True),
    "order only": (True, False),
    "scene only": (False, True),
    "neither": (False, False),
}
_TOP_KS = ("5", "20", "100")


def run_variant(
    config: config_lib.ExperimentConfig, *, order: bool, scene: bool, seed: int
) -> dict[str, dict[str, float]]:
  """Runs one variant; returns the field's mAP by method and K."""
  config.train.seed = config.evaluation.baseline_seed = seed
  config.loss.frame_order *= order
  config.loss.scene_change *= scene
  with tempfile.TemporaryDirectory() as path:
    with contextlib.redirect_stdout(io.StringIO()):
      run.run(config, path=path, mode="train")
    report = report_lib.read_report(os.path.join(path, "report.json"))
  return {row["method"]: row["map_at_k"] for row in report["results"]}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--config", default="configs/quickstart.py")
  parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
  parser.add_argument("--max_steps", type=int, default=0)
  arguments = parser.parse_args()
  scores = {}
  for name, (order, scene) in _VARIANTS.items():
    for seed in arguments.seeds:
      config = main_flags.load_config(arguments.config)
      config.train.max_steps = arguments.max_steps
      found = run_variant(config, order=order, scene=scene, seed=seed)
      scores.setdefault(f"chain, {name}", []).append(found["chain"])
      print(f"{name}, seed {seed}: {found['chain']['20']:.4f}", flush=True)
      if name == "both":
        scores.setdefault("itq", []).append(found["itq"])
        scores.setdefault("lsh", []).append(found["lsh"])
  print(machine.machine_line("jax", "flax"))
  print(f"mAP@K, mean and standard deviation of seeds {arguments.seeds}")
  print("method".ljust(20) + "".join(f"@{k}".rjust(16) for k in _TOP_KS))
  for name, rows in scores.items():
    cells = [
        f"{np.mean([row[k] for row in rows]):.3f} +-"
        f" {np.std([row[k] for row in rows]):.3f}".rjust(16)
        for k in _TOP_KS
    ]
    print(name.ljust(20) + "".join(cells))


if __name__ == "__main__":
  main()
