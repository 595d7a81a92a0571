"""Times the training batches that a host makes: records and bytes a second.

    python -m benchmarks.input_pipeline

Beside them, on the same videos in the same run: reading whole rows with h5py
and nothing else, and a pipeline of the usual kind, grain's shuffle, one record
at a time to the same two views as stored, then batched. "a core" is by CPU
time of all threads, so that the machine's other users count less; files are
in the page cache.
"""

import argparse
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator

import grain
import h5py
import numpy as np

from benchmarks import in_memory, machine
from chain_jax.data import frame_sampling, pipeline, sources
from chain_jax.data.hdf5_source import Hdf5Source
from chain_jax.data.training_plan import TrainingPlan

_CROP = (0.5, 1.0)


def write_features(path: pathlib.Path, shape: tuple[int, int, int]) -> None:
  """Writes random float16 features in one piece, as the field's files are."""
  rng = np.random.default_rng(0)
  with h5py.File(path, "w") as file:
    features = file.create_dataset("feats", shape, np.float16)
    for row in range(shape[0]):
      features[row] = rng.random(shape[1:], np.float32)


def ours(
    source: sources.VideoSource, views: frame_sampling.ViewSettings, batch: int
) -> Iterator[np.ndarray]:
  """Yields the frames of our batches, without end."""
  plan = TrainingPlan(
      len(source),
      batch_size=batch,
      seed=0,
      shard_starts=source.shard_starts,
      shuffle_window=len(source.shard_starts),
  )
  with pipeline.make_training_batches(
      source, plan, seed=0, steps=range(10**6), views=views
  ) as batches:
    for one in batches:
      yield one.frames


def record_by_record(
    source: sources.VideoSource, views: frame_sampling.ViewSettings, batch: int
) -> Iterator[np.ndarray]:
  """Yields the frames of batches that grain puts together from records."""
  num_draws = frame_sampling.draws_per_view(views.num_frames)

  def two_views(video: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    frames = source.read_frames(video)
    draws = rng.random((1, 2, num_draws), np.float32)
    indices, mask = frame_sampling.sample_frame_indices(
        np.array([len(frames)]), draws, **views._asdict()
    )
    shown = frames[indices[0]]
    shown[~mask[0]] = 0
    return {"frames": shown, "frame_mask": mask[0], "video": np.int32(video)}

  records = grain.MapDataset.range(len(source)).shuffle(seed=0).repeat()
  batches = records.seed(0).random_map(two_views).batch(batch)
  options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=3)
  for one in batches.to_iter_dataset(options):
    yield one["frames"]


def rows_only(path: pathlib.Path, batch: int) -> Iterator[np.ndarray]:
  """Yields whole videos in random order, read by h5py."""
  rng = np.random.default_rng(0)
  with h5py.File(path) as file:
    features = file["feats"]
    while True:
      rows = rng.integers(len(features), size=batch)
      yield np.stack([features[row] for row in rows])


def measure(batches: Iterator[np.ndarray], seconds: float) -> dict[str, float]:
  """Draws batches for some seconds, after two that do not count."""
  for _ in range(2):
    next(batches)
  num_records, num_bytes = 0, 0
  wall, cpu = time.perf_counter(), time.process_time()
  while time.perf_counter() - wall < seconds:
    frames = next(batches)
    num_records, num_bytes = (
        num_records + len(frames),
        num_bytes + frames.nbytes,
    )
  wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
  batches.close()
  return {
      "records/s": num_records / wall,
      "a core": num_records / cpu,
      "MB/s": num_bytes / wall / 1e6,
  }


def compare(
    name: str,
    source: sources.VideoSource,
    batch: int,
    seconds: float,
    **others: Callable[[], Iterator[np.ndarray]],
) -> None:
  """Prints a row a pipeline; the last column is by CPU time, grain's = 1."""
  num_slots = int(source.num_frames.max())
  views = frame_sampling.ViewSettings(num_slots, crop_fraction=_CROP)
  makers = others | {
      "record by record": lambda: record_by_record(source, views, batch),
      "ours": lambda: ours(source, views, batch),
  }
  print(f"{name}, {source.dtype}, {len(source)} videos, batches of {batch}")
  print(f"{'':18}{'records/s':>10}{'a core':>9}{'MB/s':>8}{'ratio':>7}")
  rows = {maker: measure(makers[maker](), seconds) for maker in makers}
  for maker, row in rows.items():
    ratio = row["a core"] / rows["record by record"]["a core"]
    print(
        f"{maker:18}{row['records/s']:10.0f}{row['a core']:9.0f}"
        f"{row['MB/s']:8.0f}{ratio:7.1f}",
        flush=True,
    )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--num_videos", type=int, default=2000)
  parser.add_argument("--batch_size", type=int, default=128)
  parser.add_argument("--seconds", type=float, default=5.0)
  flags = parser.parse_args()
  print(machine.machine_line("grain", "h5py"), f"({os.cpu_count()} in all)")
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "feats.h5"
    write_features(path, (flags.num_videos, 25, 4096))
    compare(
        "25 x 4096 in one HDF5 file",
        Hdf5Source(path, labels=None),
        flags.batch_size,
        flags.seconds,
        **{"h5py, rows only": lambda: rows_only(path, flags.batch_size)},
    )
    for num_frames, dim in ((25, 1024), (300, 1152)):
      compare(
          f"{num_frames} x {dim} in memory",
          in_memory.random_source(flags.num_videos, num_frames, dim, "uint8"),
          flags.batch_size,
          flags.seconds,
      )


if __name__ == "__main__":
  main()
