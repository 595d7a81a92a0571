"""NT-Xent over the global batch: each view finds its partner among all."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

# Keeps the gradient of a norm finite at an all-zero embedding.
_SMALLEST_SQUARED_NORM = 1e-24


def nt_xent(
    embeddings: Float[Array, "batch 2 dim"],
    *,
    temperature: float,
    positive_prior: float = 0.0,
) -> Float[Array, ""]:
  """Scores how well each view finds the other view of its video.

  Every view is an anchor once. Its negatives are the `2 * batch - 2` views
  of all other videos of the global batch, whichever device holds them.

  Args:
    embeddings: Two views of each video, of any length; float32 or bfloat16.
    temperature: Divides the cosines; dimensionless, > 0.
    positive_prior: Chance that a negative shows the class of its anchor
      (tau+). Above 0 the sum over negatives is corrected for it.

  Returns:
    Mean over all `2 * batch` anchors, in nats, float32.

  Raises:
    ValueError: If a setting is out of range or there are no negatives.

  Source: arXiv:2002.05709, Eq. 1; with `positive_prior`, arXiv:2007.00224,
  Eq. 8 with one positive: for positive p and N negatives n, all exponentials
  of logits, the sum of negatives is replaced by
  `max((sum(n) - N * tau * p) / (1 - tau), N * exp(-1 / temperature))`.
  Differs: computed from logarithms, so that no temperature overflows.

  >>> views = jnp.repeat(jnp.eye(4)[:, None], 2, axis=1)
  >>> print(f"{nt_xent(views, temperature=1.0):.4f}")  # log(1 + 6 / e)
  1.1654
  """
  num_negatives = 2 * embeddings.shape[0] - 2
  _check_settings(num_negatives, temperature, positive_prior)
  logits, is_self, is_partner = _pairwise_logits(embeddings, temperature)
  positive = jnp.sum(jnp.where(is_partner, logits, 0.0), axis=-1)
  negatives = jnp.where(is_self | is_partner, -jnp.inf, logits)
  log_negatives = jax.nn.logsumexp(negatives, axis=-1)
  if positive_prior > 0:
    log_negatives = _debias(
        log_negatives,
        positive,
        num_negatives=num_negatives,
        temperature=temperature,
        positive_prior=positive_prior,
    )
  return jnp.mean(jax.nn.softplus(log_negatives - positive))


def _pairwise_logits(embeddings, temperature):
  vectors = embeddings.astype(jnp.float32)
  squared = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
  vectors *= jax.lax.rsqrt(jnp.maximum(squared, _SMALLEST_SQUARED_NORM))
  vectors = vectors.reshape(-1, vectors.shape[-1])  # [batch * 2, dim]
  # HIGHEST: accelerators would otherwise round the factors to bfloat16.
  cosines = jnp.matmul(vectors, vectors.T, precision=jax.lax.Precision.HIGHEST)
  row = np.arange(vectors.shape[0])
  is_self = row[:, None] == row
  # Rows 2i and 2i + 1 show video i: the partner differs in the last bit.
  is_partner = (row ^ 1)[:, None] == row
  return cosines / temperature, is_self, is_partner


def _debias(
    log_negatives, positive, *, num_negatives, temperature, positive_prior
):
  # Of sum(n), the part that positives among the negatives account for.
  log_part = np.log(num_negatives * positive_prior) + positive - log_negatives
  floor = np.log(num_negatives) - 1.0 / temperature
  # Where the correction exceeds the sum the floor holds; the inner `where`
  # keeps log1p's infinite slope at -1 out of the gradient. The exponential
  # rounds to 1 already a little below 0.
  positive_rest = log_part < -1e-6
  rest = jnp.log1p(-jnp.exp(jnp.where(positive_rest, log_part, -1.0)))
  corrected = log_negatives + rest - np.log1p(-positive_prior)
  return jnp.where(positive_rest, jnp.maximum(corrected, floor), floor)


def _check_settings(num_negatives, temperature, positive_prior):
  if temperature <= 0:
    raise ValueError(
        f"`temperature` must be > 0, got {temperature}; 0.3 is usual."
    )
  if not 0 <= positive_prior < 1:
    raise ValueError(
        f"`positive_prior` must be in [0, 1), got {positive_prior}; 0 switches"
        " the correction off."
    )
  if num_negatives < 1:
    raise ValueError(
        "`embeddings` must hold at least 2 videos, or there are no negatives,"
        " got 1; raise the batch size."
    )
