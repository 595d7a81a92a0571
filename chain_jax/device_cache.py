"""The train split on the devices: no batch crosses from host to device.

Where the frames of a set fit there as stored, a step needs from the host only
which videos it shows. Views are sampled by the devices, by the rules of the
host's pipeline (`data/frame_sampling.py`) from draws of their own.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Int, Num

from chain_jax import sharding
from chain_jax.data import cached_source, frame_sampling, pipeline, sources
from chain_jax.data.neighbour_plan import NeighbourPlan
from chain_jax.data.training_plan import TrainingPlan
from chain_jax.errors import InputError

# A copy on every device makes each gather local; up to this share of a
# device's memory, that is worth it.
_COPY_SHARE = 0.25
# The most that a set may fill, in parts; the rest is for the model and a step.
_LARGEST_SHARE = 0.7
# Sets the draws here apart from those of the training step.
_STREAM = 1


class DeviceCache(NamedTuple):
  """All videos of a split, padded to the longest."""

  frames: Num[Array, "rows slots *variants dim"]  # As stored.
  num_frames: Int[Array, "rows"]


def fill(source: sources.VideoSource, mesh: Mesh) -> DeviceCache:
  """Puts a whole split on the devices.

  Args:
    source: The split.
    mesh: Its devices get a copy each where that is small, else a part each.

  Returns:
    The cache, in the dtype of the source (float64 as float32).

  Raises:
    InputError: If the split is too large for the devices, or damaged.
  """
  dtype = np.dtype(np.float32) if source.dtype.itemsize == 8 else source.dtype
  dtype = dtype.newbyteorder("=")
  placed = _placement(source, dtype.itemsize, mesh)
  num_parts = sharding.data_size(mesh)
  num_rows = -(-len(source) // num_parts) * num_parts
  variants = (source.num_variants,) if source.num_variants > 1 else ()
  shape = (num_rows, int(source.num_frames.max()), *variants)
  shape = (*shape, source.feature_dim)

  @functools.lru_cache(maxsize=1)  # Devices with copies share one reading.
  def read(start: int, stop: int) -> np.ndarray:
    frames = np.zeros((stop - start, *shape[1:]), dtype)
    rows = range(start, min(stop, len(source)))
    for first, block in sources.read_in_blocks(
        source, what="read onto the devices", rows=rows
    ):
      block = block.reshape(*block.shape[:2], *shape[2:])
      first -= start
      frames[first : first + len(block), : block.shape[1]] = block
    return frames

  num_frames = np.ones(num_rows, np.int32)
  num_frames[: len(source)] = source.num_frames
  return DeviceCache(
      jax.make_array_from_callback(
          shape, placed, lambda part: read(*part[0].indices(num_rows)[:2])
      ),
      jax.make_array_from_callback(
          (num_rows,), sharding.replicated(mesh), lambda part: num_frames[part]
      ),
  )


def make_batches(
    cache: DeviceCache,
    plan: TrainingPlan | NeighbourPlan,
    mesh: Mesh,
    *,
    seed: int,
    steps: range,
    views: frame_sampling.ViewSettings,
) -> Iterator[pipeline.Batch]:
  """Makes the global batches of `steps` on the devices.

  Args:
    cache: From `fill`.
    plan: Which videos each batch holds: the same as from the host's pipeline.
    mesh: The devices of the cache.
    seed: Of the views, together with step and row.
    steps: Global steps to make batches for; its start is where to resume.
    views: How the two views of a video are sampled.
  """
  sample = _make_sampler(mesh, seed=seed, views=views)
  num_rows = plan.batch_size // jax.process_count()
  first_row = jax.process_index() * num_rows
  rows = slice(first_row, first_row + num_rows)
  for step in steps:
    videos = plan.videos(step, rows).astype(np.int32)
    batch = sample(cache, sharding.to_global(videos, mesh), step)
    neighbours = sharding.to_global(plan.neighbours(step, rows), mesh)
    yield batch._replace(neighbours=neighbours)


def _make_sampler(
    mesh: Mesh, *, seed: int, views: frame_sampling.ViewSettings
) -> Callable[..., pipeline.Batch]:
  num_draws = frame_sampling.draws_per_view(views.num_frames)

  def sample(
      cache: DeviceCache, videos: Int[Array, "batch"], step: Int[Array, ""]
  ) -> pipeline.Batch:
    rng = jax.random.fold_in(jax.random.key(seed), _STREAM)
    frame_rng, variant_rng = jax.random.split(jax.random.fold_in(rng, step))
    indices, mask = frame_sampling.sample_frame_indices(
        cache.num_frames[videos],
        jax.random.uniform(frame_rng, (len(videos), 2, num_draws)),
        xp=jnp,
        **views._asdict(),
    )
    chosen = (videos[:, None, None], indices)
    if cache.frames.ndim == 4:
      num_variants = cache.frames.shape[2]
      shape = (len(videos), 2, 1)
      chosen += (jax.random.randint(variant_rng, shape, 0, num_variants),)
    frames = cache.frames.at[chosen].get(mode="promise_in_bounds")
    frames = jnp.where(mask[..., None], frames, 0).astype(cache.frames.dtype)
    return pipeline.Batch(frames, mask, videos)

  return jax.jit(sample, out_shardings=sharding.batch_sharding(mesh))


def _placement(
    source: sources.VideoSource, itemsize: int, mesh: Mesh
) -> NamedSharding:
  """Decides between a copy and a part of the set on every device."""
  num_values = int(source.num_frames.max()) * source.num_variants
  num_bytes = len(source) * num_values * source.feature_dim * itemsize
  memory = _memory_per_device(mesh)
  if memory is not None and jax.process_count() > 1:
    # All processes must decide the same; MiB, for it is sent as int32.
    sent = np.int32(memory // 2**20)
    memory = int(multihost_utils.broadcast_one_to_all(sent)) * 2**20
  if memory is None or num_bytes <= _COPY_SHARE * memory:
    return sharding.replicated(mesh)
  if num_bytes <= _LARGEST_SHARE * memory * sharding.data_size(mesh):
    return sharding.batch_sharding(mesh)
  raise InputError(
      "`data.cache_on_device` needs the train split to fit in"
      f" {_LARGEST_SHARE:.0%} of the memory of the devices: it takes"
      f" {num_bytes / 2**30:.1f} GiB and {mesh.size} devices have"
      f" {memory / 2**30:.1f} GiB each; set it to False to send batches from"
      " the host, or use more devices."
  )


def _memory_per_device(mesh: Mesh) -> int | None:
  """Returns the bytes one device may use; None where nobody tells."""
  device = mesh.local_devices[0]
  statistics = device.memory_stats() or {}
  if "bytes_limit" in statistics:
    return statistics["bytes_limit"]
  available = cached_source.available_memory()  # CPU devices share it.
  return None if available is None else available // len(mesh.local_devices)
