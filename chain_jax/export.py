"""From a trained state to the packed codes of a whole split."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, UInt8

from chain_jax import codes as codes_lib
from chain_jax import config as config_lib
from chain_jax import errors, prefetch, progress, sharding
from chain_jax.data import augment, pipeline, records, sources
from chain_jax.models import chain
from chain_jax.train_state import TrainState


def make_encode(
    model: chain.ChainModel, mesh: Mesh
) -> Callable[..., jax.Array]:
  """Makes the jitted encoder: variables and stored frames -> hash logits.

  Args:
    model: The model.
    mesh: The batch is split over its axis `data`; every host gets all rows.

  Returns:
    A function of ({"params", "statistics"}, scaling, frames as stored
    `[batch, frames, dim]`, mask `[batch, frames]`) to float32
    `[batch, num_bits]`.
  """
  whole, split = sharding.replicated(mesh), sharding.batch_sharding(mesh)

  def encode(
      variables: Any, scaling: records.Scaling, frames: Any, mask: Any
  ) -> jax.Array:
    features = augment.to_features(frames, mask, scaling)
    return model.apply(variables, features, mask, method="encode")

  return jax.jit(
      encode, in_shardings=(None, whole, split, split), out_shardings=whole
  )


def encode_split(
    encode: Callable[..., jax.Array],
    state: TrainState,
    source: sources.VideoSource,
    mesh: Mesh,
    *,
    batch_size: int,
    num_frames: int,
    num_workers: int = 0,
) -> UInt8[np.ndarray, "n bytes"]:
  """Encodes all videos of a split, in order.

  Args:
    encode: From `make_encode`.
    state: The trained state.
    source: The split.
    mesh: The mesh that `encode` was made for.
    batch_size: Videos a step, over all devices.
    num_frames: Frames a view.
    num_workers: Processes that read; 0 = threads of this one.

  Returns:
    The packed codes, on every host.
  """
  variables = {"params": state.params, "statistics": state.statistics}
  batches = pipeline.make_export_batches(
      source,
      batch_size=batch_size,
      num_frames=num_frames,
      host=jax.process_index(),
      num_hosts=jax.process_count(),
      num_workers=num_workers,
  )
  packed = []
  with batches as iterator:
    for batch in progress.track(
        prefetch.to_devices(iterator, mesh),
        total=len(source),
        what="export",
        size=batch_size,
        shown=jax.process_index() == 0,
    ):
      hash_logits = encode(
          variables, source.scaling, batch.frames[:, 0], batch.frame_mask[:, 0]
      )
      packed.append(_pack(np.asarray(hash_logits)))
  return np.concatenate(packed)[: len(source)]


def _pack(
    hash_logits: Float32[np.ndarray, "batch bits"],
) -> UInt8[np.ndarray, "batch bytes"]:
  if not np.isfinite(hash_logits).all():
    raise errors.RunError(
        "hash logits must be finite to be exported, got NaN or infinity; train"
        " again with a lower `optimizer.learning_rate` and a new --workdir."
    )
  return codes_lib.pack_bits(codes_lib.binarise(hash_logits))


def manifest(
    config: config_lib.ExperimentConfig,
    source: sources.VideoSource,
    *,
    split: str,
    step: int,
) -> dict[str, Any]:
  """Says where the codes of a split come from.

  "features" tells how a prepared dataset's frames were made, which `search
  --video` does again.
  """
  return {
      "method": "chain",
      "split": split,
      "step": step,
      "seed": config.train.seed,
      "config": dataclasses.asdict(config),
      "features": sources.origin(source),
  }


def write_split(
    path: str,
    packed: UInt8[np.ndarray, "n bytes"],
    source: sources.VideoSource,
    *,
    manifest: dict[str, Any],
) -> None:
  """Writes the code directory of a split; one process of a run calls it."""
  codes_lib.write_code_directory(
      path,
      packed=packed,
      ids=source.ids,
      labels=source.labels,
      manifest=manifest,
  )
