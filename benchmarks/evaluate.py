"""Times the evaluation at FCVID's size, each query in its own gallery.

python -m benchmarks.evaluate
"""

import argparse
import resource
import time

import numpy as np

from benchmarks import machine
from chain_jax import codes, retrieval_metrics
from chain_jax.labels import Labels


def _make_codes(num_videos, num_bits, *, num_classes, seed):
  """Codes that scatter around one random code a class, as trained ones do."""
  rng = np.random.default_rng(seed)
  classes = rng.integers(0, num_classes, num_videos)
  centres = rng.standard_normal((num_classes, num_bits))
  logits = centres[classes] + rng.standard_normal((num_videos, num_bits))
  return codes.CodeSet(
      codes.pack_bits(codes.binarise(logits)),
      np.array([f"video {i}" for i in range(num_videos)]),
      Labels.from_classes(classes, num_classes=num_classes),
      {},
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--num_videos", type=int, default=45_600)
  parser.add_argument("--num_classes", type=int, default=239)
  parser.add_argument("--num_bits", type=int, nargs="+", default=[16, 64, 128])
  flags = parser.parse_args()
  print(machine.machine_line())
  print(
      f"all metrics, {flags.num_videos} queries x {flags.num_videos} in"
      " gallery, self-matches kept and removed"
  )
  print(f"{'bits':>5}{'seconds':>9}{'us/query':>10}{'mAP@20':>8}{'peak MB':>9}")
  for num_bits in flags.num_bits:
    code_set = _make_codes(
        flags.num_videos, num_bits, num_classes=flags.num_classes, seed=0
    )
    start = time.perf_counter()
    result = retrieval_metrics.evaluate_codes(code_set, code_set)
    seconds = time.perf_counter() - start
    # Linux counts in KiB, and the peak includes making the codes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{num_bits:>5}{seconds:>9.1f}{1e6 * seconds / flags.num_videos:>10.0f}"
        f"{result['map_at_k']['20']:>8.3f}{peak:>9.0f}",
        flush=True,
    )


if __name__ == "__main__":
  main()
