"""Times exact search beside plain FAISS flat indexes, in the same run.

python -m benchmarks.search
"""

import argparse
import time

import faiss
import numpy as np

from benchmarks import machine
from chain_jax import nearest


def _make_codes(rng, num_videos, num_bits, *, kind):
  if kind == "random":
    return rng.integers(0, 256, (num_videos, num_bits // 8), dtype=np.uint8)
  spread = {"clustered": 0.7, "crowded": 0.05}[kind]
  centres = np.random.default_rng(1).standard_normal((200, num_bits))
  chosen = centres[rng.integers(0, len(centres), num_videos)]
  noise = spread * rng.standard_normal(chosen.shape, dtype=np.float32)
  return np.packbits(chosen + noise > 0, axis=1)


def _plain_faiss(query, gallery, top_k, *, use_heap):
  index = faiss.IndexBinaryFlat(8 * gallery.shape[1])
  index.use_heap = use_heap
  index.add(gallery)
  return index.search(query, top_k)


def _best_seconds(function, repeats):
  seconds = []
  for _ in range(repeats):
    start = time.perf_counter()
    result = function()
    seconds.append(time.perf_counter() - start)
  return min(seconds), result


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--num_gallery", type=int, default=1_000_000)
  parser.add_argument("--num_queries", type=int, default=1_000)
  parser.add_argument("--num_bits", type=int, default=64)
  parser.add_argument("--top_k", type=int, default=100)
  parser.add_argument("--repeats", type=int, default=3)
  flags = parser.parse_args()
  print(machine.machine_line("faiss-cpu"))
  print(
      f"{flags.num_queries} queries in {flags.num_gallery} codes of"
      f" {flags.num_bits} bits, top {flags.top_k}, index built each time, best"
      f" of {flags.repeats}; seconds"
  )
  print(
      f"{'codes':<11}{'FAISS flat':>11}{'use_heap=False':>16}{'ours':>7}"
      f"{'flat/ours':>11}  same distances"
  )
  for kind in ("random", "clustered", "crowded"):
    _compare(kind, flags)


def _compare(kind, flags):
  rng = np.random.default_rng(0)
  gallery, query = (
      _make_codes(rng, size, flags.num_bits, kind=kind)
      for size in (flags.num_gallery, flags.num_queries)
  )
  ours, (_, distances) = _best_seconds(
      lambda: nearest.search_codes(query, gallery, top_k=flags.top_k),
      flags.repeats,
  )
  plain, counting = (
      _best_seconds(
          lambda h=heap: _plain_faiss(query, gallery, flags.top_k, use_heap=h),
          flags.repeats,
      )
      for heap in (True, False)
  )
  same = np.array_equal(plain[1][0], distances)
  print(
      f"{kind:<11}{plain[0]:>11.2f}{counting[0]:>16.2f}{ours:>7.2f}"
      f"{plain[0] / ours:>11.2f}  {'yes' if same else 'NO'}",
      flush=True,
  )


if __name__ == "__main__":
  main()
