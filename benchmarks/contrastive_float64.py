"""NT-Xent and its gradients in NumPy's float64, for batches of any size."""

import numpy as np
from jaxtyping import Float, Float64

_BLOCK_ROWS = 512


def value_and_gradients(
    embeddings: Float[np.ndarray, "batch 2 dim"], temperature: float
) -> tuple[
    Float64[np.ndarray, ""],
    Float64[np.ndarray, "batch 2 dim"],
    Float64[np.ndarray, ""],
]:
  """Computes the loss, in nats, by blocks of rows of the logits.

  Args:
    embeddings: Two views of each video; none all zero.
    temperature: Divides the cosines; not so small that exp(1 / it) overflows.

  Returns:
    The value, its gradient by the embeddings and its slope by the temperature.
  """
  rows = embeddings.astype(np.float64).reshape(-1, embeddings.shape[-1])
  lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
  units = rows / lengths
  partners = units.reshape(-1, 2, units.shape[-1])[:, ::-1].reshape(units.shape)
  positives = np.sum(units * partners, axis=-1) / temperature
  negatives = np.concatenate(
      [np.sum(block, axis=-1) for _, _, block in _blocks(units, temperature)]
  )
  value = np.mean(np.log1p(negatives / np.exp(positives)))
  # Of each row's log(sum of negatives); of its positive it is the opposite.
  slopes = negatives / (negatives + np.exp(positives)) / len(rows)
  pair_slopes = slopes.reshape(-1, 2).sum(axis=-1).repeat(2)
  by_units = -pair_slopes[:, None] * partners
  shares = slopes / negatives
  # d loss / d logit times the logit, over all logits.
  by_scale = -np.sum(slopes * positives)
  for part, logits, block in _blocks(units, temperature):
    by_scale += np.sum(shares[part] * np.einsum("ij,ij->i", block, logits))
    # A logit counts for its row and for its column.
    by_units[part] += (block * (shares[part, None] + shares)) @ units
  by_units /= temperature
  radial = np.sum(by_units * units, axis=-1, keepdims=True)
  gradient = (by_units - radial * units) / lengths
  return value, gradient.reshape(embeddings.shape), -by_scale / temperature


def _blocks(units, temperature):
  """Yields some rows, their logits, and the exponentials of their negatives."""
  for start in range(0, len(units), _BLOCK_ROWS):
    part = np.arange(start, min(start + _BLOCK_ROWS, len(units)))
    logits = units[part] @ units.T / temperature
    block = np.exp(logits)
    block[np.arange(len(part)), part] = 0
    block[np.arange(len(part)), part ^ 1] = 0
    yield part, logits, block
