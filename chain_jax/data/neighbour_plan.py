"""Which videos each global batch holds, where neighbours count as positives.

Of a large set hardly any neighbours would meet in a batch by chance: a share of
it can be drawn as neighbours of the rest.
"""

import numpy as np
from jaxtyping import Float32, Int32, Int64

from chain_jax.data import neighbours as neighbours_lib
from chain_jax.data.training_plan import TrainingPlan
from chain_jax.errors import InputError

# Above any seed: the draws here are not those of the views.
_STREAM = 2**32


class NeighbourPlan:
  """A `TrainingPlan` whose batches are filled up with neighbours.

  An epoch shows each video once among those drawn at random; neighbours come
  on top. No batch holds a video twice.
  """

  def __init__(
      self,
      drawn: TrainingPlan,
      *,
      batch_size: int,
      seed: int,
      neighbours: Int32[np.ndarray, "n width"],
      weights: Float32[np.ndarray, "n width"],
  ) -> None:
    """Plans all epochs.

    Args:
      drawn: The videos drawn at random; its batches are at most as large.
      batch_size: Of the whole batch.
      seed: Of the choice among neighbours, with the step.
      neighbours: Of every video, as in `NeighbourTable`.
      weights: Of each as a positive; of weight 0 it is not drawn.

    Raises:
      InputError: If a batch is larger than the train split.
    """
    if batch_size > len(neighbours):
      raise InputError(
          f"`train.batch_size` must be at most the {len(neighbours)} train"
          f" videos, got {batch_size}; try"
          f" {1 << (len(neighbours).bit_length() - 1)}."
      )
    self.batch_size = batch_size
    self.steps_per_epoch = drawn.steps_per_epoch
    self._drawn = drawn
    self._seed = seed
    self._neighbours = neighbours
    self._weights = weights
    self._known: tuple[int, np.ndarray] | None = None

  def videos(
      self, step: int, rows: slice = slice(None)
  ) -> Int64[np.ndarray, "rows"]:
    """Returns the videos of some rows of global batch `step`."""
    return self._whole(step)[rows]

  def neighbours(
      self, step: int, rows: slice = slice(None)
  ) -> neighbours_lib.BatchNeighbours:
    """Returns which rows of the batch show neighbours of some of its rows."""
    return neighbours_lib.in_batch(
        self._whole(step), rows, self._neighbours, self._weights
    )

  def epoch(self, step: int) -> int:
    """Returns the epoch that global batch `step` belongs to."""
    return self._drawn.epoch(step)

  def _whole(self, step: int) -> np.ndarray:
    known = self._known  # Read once: threads share the plan.
    if known is None or known[0] != step:
      self._known = known = step, self._fill(step)
    return known[1]

  def _fill(self, step: int) -> np.ndarray:
    drawn = self._drawn.videos(step)
    num_missing = self.batch_size - len(drawn)
    if not num_missing:
      return drawn
    rng = np.random.Generator(
        np.random.Philox(key=np.array([_STREAM + self._seed, step], np.uint64))
    )
    # Each drawn video in turn gives its first neighbour in a random order;
    # where that is not enough, any videos do.
    order = rng.permuted(
        np.tile(np.arange(self._neighbours.shape[1]), (len(drawn), 1)), axis=1
    )
    weights = np.take_along_axis(self._weights[drawn], order, axis=1)
    candidates = np.take_along_axis(self._neighbours[drawn], order, axis=1)
    taken = dict.fromkeys(drawn.tolist())
    for row, row_weights in zip(candidates, weights, strict=True):
      for video in row[row_weights > 0].tolist():
        if video not in taken:
          taken[video] = None
          break
      if len(taken) == self.batch_size:
        break
    while len(taken) < self.batch_size:
      taken.setdefault(int(rng.integers(len(self._neighbours))))
    return np.fromiter(taken, np.int64, self.batch_size)
