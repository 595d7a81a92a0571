"""From a video source to this host's rows of each global batch.

The step is the whole state: batch `s` holds the same videos and the same
views for any number of hosts and workers, and after a restart at any step.
The batch is grain's element, so grain's cost is paid once a batch.
"""

import contextlib
import dataclasses
import functools
import multiprocessing.connection
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from chain_jax import errors
from chain_jax.data import augment, sources


class Batch(NamedTuple):
  """Rows of a batch: two views for training, one for export."""

  views: Float32[np.ndarray, "batch views frames dim"]
  frame_mask: Bool[np.ndarray, "batch views frames"]
  videos: Int32[np.ndarray, "batch"]  # Positions in the split.


class TrainingPlan:
  """Which videos each global batch holds.

  Every epoch is a new permutation. Videos that do not fill a last batch wait
  for the next epoch, so that a batch never holds a video twice: its copy
  would be a false negative.
  """

  def __init__(self, num_videos: int, *, batch_size: int, seed: int) -> None:
    if batch_size > num_videos:
      raise errors.InputError(
          f"`train.batch_size` must be at most the {num_videos} train videos,"
          f" got {batch_size}; try {1 << (num_videos.bit_length() - 1)}."
      )
    self.batch_size = batch_size
    self.steps_per_epoch = num_videos // batch_size
    # grain's shuffle of epoch e with seed s is that of epoch e - 1 with s + 1:
    # keep the seeds of two runs far apart.
    shuffled = grain.MapDataset.range(num_videos).shuffle(
        seed=zlib.crc32(b"chain_jax shuffle %d" % seed)
    )
    used = self.steps_per_epoch * batch_size
    self._order = shuffled[:used].repeat()

  def videos(self, step: int) -> Int64[np.ndarray, "batch"]:
    """Returns the videos of global batch `step`."""
    start = step * self.batch_size
    rows = range(start, start + self.batch_size)
    return np.array([self._order[row] for row in rows], np.int64)

  def epoch(self, step: int) -> int:
    """Returns the epoch that global batch `step` belongs to."""
    return step // self.steps_per_epoch


def make_training_batches(
    source: sources.VideoSource,
    plan: TrainingPlan,
    *,
    seed: int,
    steps: range,
    make_views: Callable[..., augment.Views],
    host: int = 0,
    num_hosts: int = 1,
    num_workers: int = 0,
) -> contextlib.AbstractContextManager[Iterator[Batch]]:
  """Makes this host's rows of the global batches of `steps`.

  Args:
    source: The train split.
    plan: Which videos each batch holds.
    seed: Of the views, together with (epoch, video).
    steps: Global steps to make batches for; its start is where to resume.
    make_views: `augment.make_views` with its settings bound; picklable.
    host: This host's number.
    num_hosts: Divides the batch size.
    num_workers: Processes; 0 makes batches in threads of this one.

  Returns:
    A context manager around the iterator; leaving it ends the workers.
  """
  if plan.batch_size % num_hosts:
    raise errors.InputError(
        f"`train.batch_size` must be a multiple of the {num_hosts} hosts, got"
        f" {plan.batch_size}; try {plan.batch_size // num_hosts * num_hosts}."
    )
  rows = plan.batch_size // num_hosts
  load = _TrainingLoader(
      source=source,
      plan=plan,
      seed=seed,
      rows=slice(host * rows, (host + 1) * rows),
      make_views=make_views,
  )
  return _iterate(load, steps, num_workers=num_workers)


def make_export_batches(
    source: sources.VideoSource,
    *,
    batch_size: int,
    num_frames: int,
    host: int = 0,
    num_hosts: int = 1,
    num_workers: int = 0,
) -> contextlib.AbstractContextManager[Iterator[Batch]]:
  """Makes this host's rows of a split in order, one plain view a video.

  The last batch is filled up with copies of the last video, so that all
  batches have one shape; the caller drops what lies beyond the split.

  Args:
    source: The split.
    batch_size: Videos a batch over all hosts.
    num_frames: Frames a view.
    host: This host's number.
    num_hosts: Divides the batch size.
    num_workers: Processes; 0 makes batches in threads of this one.

  Returns:
    A context manager around the iterator; leaving it ends the workers.
  """
  load = _ExportLoader(
      source=source,
      batch_size=batch_size,
      first_row=host * (batch_size // num_hosts),
      num_rows=batch_size // num_hosts,
      num_frames=num_frames,
  )
  num_steps = -(-len(source) // batch_size)
  return _iterate(load, range(num_steps), num_workers=num_workers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _TrainingLoader:
  """Loads the rows of a step; worker processes get it pickled."""

  source: sources.VideoSource
  plan: TrainingPlan
  seed: int
  rows: slice
  make_views: Callable[..., augment.Views]

  def __call__(self, step: int) -> Batch:
    _end_with_parent()
    epoch = self.plan.epoch(step)
    videos = self.plan.videos(step)[self.rows]
    views = [
        self.make_views(
            self.source.read_frames(int(video)),
            augment.video_rng(self.seed, epoch=epoch, video=int(video)),
        )
        for video in videos
    ]
    frames, mask = map(np.stack, zip(*views, strict=True))
    return Batch(frames, mask, videos.astype(np.int32))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ExportLoader:
  """Loads plain views of neighbouring videos."""

  source: sources.VideoSource
  batch_size: int
  first_row: int
  num_rows: int
  num_frames: int

  def __call__(self, step: int) -> Batch:
    _end_with_parent()
    start = step * self.batch_size + self.first_row
    videos = np.arange(start, start + self.num_rows)
    videos = np.minimum(videos, len(self.source) - 1)
    views = [
        augment.plain_view(
            self.source.read_frames(int(video)), num_frames=self.num_frames
        )
        for video in videos
    ]
    frames, mask = map(np.stack, zip(*views, strict=True))
    return Batch(frames[:, None], mask[:, None], videos.astype(np.int32))


@functools.cache
def _end_with_parent() -> None:
  """Lets a worker process end when its run was killed, not live on alone."""
  parent = multiprocessing.parent_process()
  if parent is None:  # No worker: a thread of the run itself.
    return

  def wait() -> None:
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def _iterate(
    load: Callable[[int], Batch], steps: range, *, num_workers: int
) -> Iterator[Iterator[Batch]]:
  batches = grain.MapDataset.range(steps.stop).map(load)[steps.start :]
  # Two threads keep one batch ahead of the device without owning the machine.
  dataset = batches.to_iter_dataset(
      grain.ReadOptions(num_threads=2, prefetch_buffer_size=3)
  )
  if num_workers:
    dataset = dataset.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=num_workers)
    )
  iterator = iter(dataset)
  try:
    yield iterator
  finally:
    if hasattr(iterator, "close"):
      iterator.close()
