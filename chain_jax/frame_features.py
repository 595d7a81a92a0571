"""Frames -> features by a backbone, in batches of one size."""

import functools
import os
import pathlib

import numpy as np
from jaxtyping import Float16, UInt8

from chain_jax.errors import InputError
from chain_jax.models.backbones.loading import Backbone, load_backbone

# Larger batches were not faster on a CPU, and are no more than half of what
# keeps an accelerator busy.
BATCH_SIZE = 100


@functools.lru_cache(maxsize=1)
def cached_backbone(name: str, weights: str | None) -> Backbone:
  """Loads a backbone, once a process."""
  path = pathlib.Path(os.path.expanduser(weights)) if weights else None
  return load_backbone(name, path)


def remembered_weights(weights: str | None) -> dict[str, str]:
  """Returns what a dataset remembers of where its weights lay.

  It is a hint, for `search` to find them again: the checksum decides.
  """
  if weights is None:
    return {}
  return {"weights": os.path.abspath(os.path.expanduser(weights))}


def extract_features(
    backbone: Backbone,
    views: UInt8[np.ndarray, "num_frames num_variants size size 3"],
    *,
    batch_size: int = BATCH_SIZE,
) -> Float16[np.ndarray, "num_frames num_variants dim"]:
  """Extracts the features of a video's frames, of all their variants.

  Args:
    backbone: The network.
    views: As `ViewLoader` makes them.
    batch_size: Frames at a time; the last batch is filled up, so that the
      network is compiled once and gives the same features in any company.

  Raises:
    InputError: If a feature is too large for float16, or not finite.
  """
  frames = views.reshape(-1, *views.shape[2:])
  features = np.empty((len(frames), backbone.feature_dim), np.float16)
  for start in range(0, len(frames), batch_size):
    batch = frames[start : start + batch_size]
    missing = batch_size - len(batch)
    filled = np.pad(batch, [(0, missing), (0, 0), (0, 0), (0, 0)])
    extracted = np.asarray(backbone.extract(backbone.variables, filled))
    with np.errstate(over="ignore"):
      features[start : start + len(batch)] = extracted[: len(batch)]
  if not np.isfinite(features).all():
    raise InputError(
        f"features of the backbone {backbone.name!r} must fit float16, got NaN"
        " or more than 65504; check its weights."
    )
  return features.reshape(*views.shape[:2], -1)
