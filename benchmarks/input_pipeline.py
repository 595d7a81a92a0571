"""Times `prepare youtube8m`, and the training batches that a host makes.

    python -m benchmarks.input_pipeline

Preparing is timed in one process, beside reading the same shards by the
protobuf library and writing nothing, and, where TensorFlow is installed, by
tf.data. Then come training batches: records and bytes a second.

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
from tensorflow_datasets.proto import tf_example_pb2

from benchmarks import machine
from chain_jax.data import (
    dataset_folder,
    examples,
    frame_sampling,
    pipeline,
    sources,
    synthetic_youtube8m,
    tfrecord,
)
from chain_jax.data.dataset_layout import FrameForm
from chain_jax.data.hdf5_source import Hdf5Source
from chain_jax.data.training_plan import TrainingPlan
from chain_jax.preparation import finish, tasks
from chain_jax.preparation.plan import Plan, claim_output
from chain_jax.preparation.split_rule import SplitRule
from chain_jax.preparation.youtube8m import ShardReader

_CROP = (0.5, 1.0)


def write_features(path: pathlib.Path, shape: tuple[int, int, int]) -> None:
  """Writes random float16 features in one piece, as the field's files are."""
  rng = np.random.default_rng(0)
  with h5py.File(path, "w") as file:
    features = file.create_dataset("feats", shape, np.float16)
    for row in range(shape[0]):
      features[row] = rng.random(shape[1:], np.float32)


def make_plan(
    output: pathlib.Path, dim: int, shards: list[pathlib.Path]
) -> Plan:
  """Plans a dataset of a train split alone."""
  return Plan(
      output=output,
      name="yt8m_frames",
      form=FrameForm(dim, "uint8"),
      scale=1.0,
      offset=0.0,
      num_classes=4000,
      rule=SplitRule(),
      parts=["train"] * len(shards),
      inputs=[[[shard.name, 0]] for shard in shards],
      settings={},
  )


def write_array_records(
    output: pathlib.Path, num_videos: int, num_frames: int, dim: int
) -> sources.VideoSource:
  """Writes random uint8 videos as `prepare` does; opens them."""
  plan = make_plan(output, dim, [output])
  claim_output(plan)
  rng = np.random.default_rng(0)
  none = np.zeros(0, np.int64)
  tasks.write_task(
      plan,
      0,
      (
          examples.Video(
              f"{i}", none, rng.integers(0, 256, (num_frames, dim), np.uint8)
          )
          for i in range(num_videos)
      ),
  )
  finish.finish(plan)
  return dataset_folder.open_dataset(output).split("train")


def time_preparing(folder: pathlib.Path, num_videos: int) -> None:
  """Prints how fast shards are read, and prepared, in one process."""
  num_shards = max(1, num_videos // 200)
  shards = synthetic_youtube8m.write_shards(
      folder / "shards", num_shards=num_shards, videos_per_shard=200, seed=0
  )
  num_bytes = sum(shard.stat().st_size for shard in shards)
  plan = make_plan(folder / "prepared", 1152, shards)
  claim_output(plan)
  read = ShardReader(tuple(map(str, shards)), segments=False)

  def prepare() -> None:
    for task in range(num_shards):
      plan.journal(task).unlink(missing_ok=True)
      tasks.write_task(plan, task, read(task))

  # A virtual machine gets memory from its host when it first writes to it: the
  # page cache of files as large as these is written to once beforehand.
  prepare()

  ways = {
      "protobuf, reading": lambda: [_by_protobuf(shard) for shard in shards],
      "ours, reading": lambda: [
          None for task in range(num_shards) for _ in read(task)
      ],
      "ours, prepare": prepare,
  }
  ways |= _tf_data(shards)
  print(f"YouTube-8M shards, {num_shards} x 200 videos, 120 to 300 frames")
  print(f"{'':18}{'records/s':>10}{'a core':>9}{'MB/s':>8}")
  for name, way in ways.items():
    wall, cpu = time.perf_counter(), time.process_time()
    way()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    count = num_shards * 200
    print(
        f"{name:18}{count / wall:10.0f}{count / cpu:9.0f}"
        f"{num_bytes / wall / 1e6:8.0f}",
        flush=True,
    )


def _by_protobuf(shard: pathlib.Path) -> None:
  for record in tfrecord.read_records(shard):
    lists = tf_example_pb2.SequenceExample.FromString(
        bytes(record.payload)
    ).feature_lists.feature_list
    for key in ("rgb", "audio"):
      rows = [f.bytes_list.value[0] for f in lists[key].feature]
      np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)


def _tf_data(shards: list[pathlib.Path]) -> dict[str, Callable[[], None]]:
  try:
    import tensorflow as tf
  except ImportError:
    print("TensorFlow is not installed: nothing is timed with tf.data")
    return {}

  def read() -> None:
    features = {
        key: tf.io.FixedLenSequenceFeature([], tf.string)
        for key in ("rgb", "audio")
    }
    parse = lambda payload: tf.io.parse_single_sequence_example(  # noqa: E731
        payload, sequence_features=features
    )[1]
    for _ in tf.data.TFRecordDataset([str(s) for s in shards]).map(parse):
      pass

  return {"tf.data, reading": read}


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
  parser.add_argument("--folder", help="where to write; default: temporary")
  flags = parser.parse_args()
  print(machine.machine_line("grain", "h5py"), f"({os.cpu_count()} in all)")
  with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
    time_preparing(pathlib.Path(folder), flags.num_videos)
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
      output = pathlib.Path(folder) / f"{num_frames}"
      compare(
          f"{num_frames} x {dim} in ArrayRecord files",
          write_array_records(output, flags.num_videos, num_frames, dim),
          flags.batch_size,
          flags.seconds,
      )


if __name__ == "__main__":
  main()
