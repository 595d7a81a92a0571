"""From a video source to this host's rows of each global batch.

The step is the whole state: batch `s` holds the same videos and the same
views for any number of hosts and workers, and after a restart at any step.
The batch is the unit of work: its views are drawn and its frames gathered all
at once, as stored; what the numbers mean is the devices' business
(`augment.py`).
"""

import contextlib
import dataclasses
import re
import signal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grain
import numpy as np
from jaxtyping import Bool, Float32, Int32, Num

from chain_jax import errors, stop_notice
from chain_jax.data import frame_sampling, records, sources
from chain_jax.data import neighbours as neighbours_lib
from chain_jax.data.neighbour_plan import NeighbourPlan
from chain_jax.data.training_plan import TrainingPlan
from chain_jax.parent_process import end_with_parent

# One more draw a view than its frames take: which stored variant it shows.
_VARIANT_DRAWS = 1
# Philox counts in blocks of this many float32 draws.
_DRAWS_PER_COUNT = 8


class Batch(NamedTuple):
  """Rows of a batch, on the host or the devices: two views, one for export."""

  frames: Num[Any, "batch views slots dim"]  # As stored.
  frame_mask: Bool[Any, "batch views slots"]  # False: padding.
  videos: Int32[Any, "batch"]  # Positions in the split.
  neighbours: neighbours_lib.BatchNeighbours | None = None  # None: not used.


def draw_views(
    *, seed: int, step: int, first_row: int, num_rows: int, num_frames: int
) -> Float32[np.ndarray, "rows 2 num_draws"]:
  """Draws what decides the views of some rows of a global batch.

  A function of (seed, step, row): Philox is a counter under a key, the key is
  (seed, step), and each row counts in a range of its own.

  Args:
    seed: Of the run.
    step: Of the batch.
    first_row: In the global batch.
    num_rows: How many.
    num_frames: Slots of a view.

  Returns:
    Uniform in [0, 1). The first draw of a view decides its stored variant,
    the others are for `sample_frame_indices`.
  """
  num_draws = _VARIANT_DRAWS + frame_sampling.draws_per_view(num_frames)
  counts_per_row = -(-2 * num_draws // _DRAWS_PER_COUNT)
  generator = np.random.Generator(
      np.random.Philox(
          key=np.array([seed % 2**64, step], np.uint64),
          counter=np.array([first_row * counts_per_row, 0, 0, 0], np.uint64),
      )
  )
  shape = (num_rows, counts_per_row * _DRAWS_PER_COUNT)
  draws = generator.random(shape, np.float32)[:, : 2 * num_draws]
  return draws.reshape(num_rows, 2, num_draws)


def make_training_batches(
    source: sources.VideoSource,
    plan: TrainingPlan | NeighbourPlan,
    *,
    seed: int,
    steps: range,
    views: frame_sampling.ViewSettings,
    host: int = 0,
    num_hosts: int = 1,
    num_workers: int = 0,
) -> contextlib.AbstractContextManager[Iterator[Batch]]:
  """Makes this host's rows of the global batches of `steps`.

  Args:
    source: The train split.
    plan: Which videos each batch holds.
    seed: Of the views, together with step and row.
    steps: Global steps to make batches for; its start is where to resume.
    views: How the two views of a video are sampled.
    host: This host's number.
    num_hosts: Divides the batch size.
    num_workers: Processes; 0 makes batches in threads of this one.

  Returns:
    A context manager around the iterator; leaving it ends the workers.

  Raises:
    InputError: If hosts cannot share the batch.
  """
  if plan.batch_size % num_hosts:
    raise errors.InputError(
        f"`train.batch_size` must be a multiple of the {num_hosts} hosts, got"
        f" {plan.batch_size}; try {plan.batch_size // num_hosts * num_hosts}."
    )
  num_rows = plan.batch_size // num_hosts
  load = _TrainingLoader(
      source=source,
      plan=plan,
      seed=seed,
      first_row=host * num_rows,
      num_rows=num_rows,
      views=views,
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
  plan: TrainingPlan | NeighbourPlan
  seed: int
  first_row: int
  num_rows: int
  views: frame_sampling.ViewSettings

  def __call__(self, step: int) -> Batch:
    end_with_parent()
    source, first = self.source, self.first_row
    rows = slice(first, first + self.num_rows)
    videos = self.plan.videos(step, rows)
    draws = draw_views(
        seed=self.seed,
        step=step,
        first_row=first,
        num_rows=self.num_rows,
        num_frames=self.views.num_frames,
    )
    variants = None
    if source.num_variants > 1:
      variants = (draws[..., 0] * source.num_variants).astype(np.int32)
    indices, mask = frame_sampling.sample_frame_indices(
        source.num_frames[videos],
        draws[..., _VARIANT_DRAWS:],
        **self.views._asdict(),
    )
    batch = _load(source, videos, indices, mask, variants)
    return batch._replace(neighbours=self.plan.neighbours(step, rows))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ExportLoader:
  """Loads plain views of neighbouring videos."""

  source: sources.VideoSource
  batch_size: int
  first_row: int
  num_rows: int
  num_frames: int

  def __call__(self, step: int) -> Batch:
    end_with_parent()
    start = step * self.batch_size + self.first_row
    videos = np.arange(start, start + self.num_rows)
    videos = np.minimum(videos, len(self.source) - 1)
    indices, mask = frame_sampling.plain_frame_indices(
        self.source.num_frames[videos], num_frames=self.num_frames
    )
    return _load(self.source, videos, indices[:, None], mask[:, None], None)


def _load(
    source: sources.VideoSource,
    videos: np.ndarray,
    frame_indices: np.ndarray,
    frame_mask: np.ndarray,
    variants: np.ndarray | None,
) -> Batch:
  frames = sources.gather_frames(source, videos, frame_indices, variants)
  frames = records.for_device(frames)
  frames[~frame_mask] = 0
  return Batch(frames, frame_mask, videos.astype(np.int32))


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
        grain.MultiprocessingOptions(num_workers=num_workers),
        worker_init_fn=_leave_signals_to_the_run,
    )
  iterator = iter(dataset)
  try:
    yield _told_of_loss(iterator)
  finally:
    if hasattr(iterator, "close"):
      iterator.close()


def _told_of_loss(batches: Iterator[Batch]) -> Iterator[Batch]:
  """Passes batches on; says plainly where a process that makes them is gone.

  Raises:
    RunError: If one was killed or crashed; none once a notice to stop is here,
      which may have reached the process too.
  """
  try:
    yield from batches
  except RuntimeError as error:  # grain has no class of its own for this.
    is_loss = "Worker process was terminated" in str(error)
    if not is_loss or stop_notice.requested():
      raise
    code = re.search(r"exit code (-?\d+)", str(error))
    raise errors.RunError(
        "a process that reads videos was killed or crashed"
        f" ({code[0] if code else 'no exit code'}), perhaps for want of memory;"
        " lower `data.num_workers` or `train.batch_size`, or run the same"
        " command again."
    ) from error


def _leave_signals_to_the_run(worker: int, num_workers: int) -> None:
  """Keeps a worker at work when a signal goes to all processes of a job."""
  del worker, num_workers
  end_with_parent()
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
