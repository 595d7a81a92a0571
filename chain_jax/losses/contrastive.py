"""NT-Xent over the global batch: each view finds its partner among all."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Int

from chain_jax.losses import contrastive_ring, contrastive_tiles

METHODS = ("auto", "global", "tiled", "ring")
# Keeps the gradient of a norm finite at an all-zero embedding.
_SMALLEST_SQUARED_NORM = 1e-24
# Of what was tried, benchmarks/contrastive.py on CPU: larger tiles are as fast
# and need more memory, smaller ones are slower.
_TILE_SIZE = 1024


def nt_xent(
    embeddings: Float[Array, "batch 2 dim"],
    *,
    temperature: float | Float[Array, ""],
    positive_prior: float = 0.0,
    method: str = "auto",
    mesh: Mesh | None = None,
    axis: str = "data",
    tile_size: int = _TILE_SIZE,
    neighbour_rows: Int[Array, "batch neighbours"] | None = None,
    neighbour_weights: Float[Array, "batch neighbours"] | None = None,
) -> Float[Array, ""]:
  """Scores how well each view finds the other view of its video.

  Every view is an anchor once. Its negatives are the `2 * batch - 2` views
  of all other videos of the global batch, whichever device holds them. The
  method decides memory and time, never the value or a gradient:

  - "global" keeps all logits, split over the devices by the compiler: memory
    grows with `batch**2`.
  - "tiled" computes tiles of logits, again in the backward pass: memory
    grows with `batch`. For one device.
  - "ring" does so on every device of `mesh`, whose rows are passed around:
    memory grows with `batch / devices`.
  - "auto" is what `choose_method` says for the devices along `axis`;
    without a mesh nobody knows them, and it is "global".

  Args:
    embeddings: Two views of each video, of any length; float32 or bfloat16.
    temperature: Divides the cosines; dimensionless, > 0. An array may be
      learned: the loss has its gradient. Its value is not checked.
    positive_prior: Chance that a negative shows the class of its anchor
      (tau+). Above 0 the sum over negatives is corrected for it.
    method: One of `METHODS`.
    mesh: Of the devices that hold the batch; "ring" needs it.
    axis: Of the mesh, over which the batch is split.
    tile_size: Rows and columns of a tile of logits, > 0; any batch will do.
    neighbour_rows: Rows of the batch whose videos are further positives of
      each row's; None = none. They stay in the denominator.
    neighbour_weights: Of each of their views as a positive, >= 0, beside 1 of
      the own second view; of weight 0 a row counts for nothing.

  Returns:
    Mean over all `2 * batch` anchors, in nats, float32.

  Raises:
    ValueError: If a setting is out of range or there are no negatives, or
      the mesh does not suit the method.

  Source: arXiv:2002.05709, Eq. 1; with `positive_prior`, arXiv:2007.00224,
  Eq. 8 with one positive: for positive p and N negatives n, all exponentials
  of logits, the sum of negatives is replaced by
  `max((sum(n) - N * tau * p) / (1 - tau), N * exp(-1 / temperature))`.
  Differs: computed from logarithms, so that no temperature overflows. With
  neighbours, arXiv:2004.11362, Eq. 2, its mean over positives weighted.

  >>> views = jnp.repeat(jnp.eye(4)[:, None], 2, axis=1)
  >>> print(f"{nt_xent(views, temperature=1.0):.4f}")  # log(1 + 6 / e)
  1.1654
  """
  num_negatives = 2 * embeddings.shape[0] - 2
  _check_settings(num_negatives, temperature, positive_prior, tile_size)
  num_devices = _count_devices(mesh, axis)
  if method == "auto":
    known = mesh is not None
    batch = embeddings.shape[0]
    method = choose_method(batch, num_devices) if known else "global"
  vectors = _logit_vectors(embeddings, temperature)
  if method == "global":
    log_negatives = _global_log_negatives(vectors)
  elif method == "tiled":
    log_negatives = contrastive_tiles.tiled_log_negatives(
        vectors, tile_size=tile_size
    )
  else:
    _check_ring(method, embeddings.shape[0], mesh, num_devices)
    log_negatives = contrastive_ring.ring_log_negatives(
        vectors, mesh=mesh, axis=axis, tile_size=tile_size
    )
  # [batch, 1]: the logit of the one pair counts for both of its views.
  positive = jnp.sum(vectors[:, 0] * vectors[:, 1], axis=-1, keepdims=True)
  if positive_prior > 0:
    log_negatives = _debias(
        log_negatives,
        positive,
        num_negatives=num_negatives,
        temperature=temperature,
        positive_prior=positive_prior,
    )
  losses = jax.nn.softplus(log_negatives - positive)
  if neighbour_rows is not None:
    losses += positive - _mean_positive(
        vectors, positive, neighbour_rows, neighbour_weights
    )
  return jnp.mean(losses)


def choose_method(batch: int, num_devices: int) -> str:
  """Returns what "auto" stands for, from static sizes alone.

  "global" while a device's share of the logits, `(2 * batch)**2 / devices`, is
  at most one tile of 1024 x 1024: nothing is saved by smaller ones, and a ring
  waits for its messages. Beyond that "tiled" on one device, "ring" on more.
  In benchmarks/contrastive.py on CPU global and ring break even near there:
  on 8 devices global is faster at 1024 videos, ring at 2048.

  Args:
    batch: Videos in the global batch.
    num_devices: That the batch is split over.

  >>> choose_method(512, 1), choose_method(1024, 1)
  ('global', 'tiled')
  >>> choose_method(1024, 8), choose_method(2048, 8)
  ('global', 'ring')
  """
  # Devices that do not divide the batch cannot hold equal shares of it.
  uneven = batch % num_devices > 0
  if uneven or (2 * batch) ** 2 <= _TILE_SIZE**2 * num_devices:
    return "global"
  return "ring" if num_devices > 1 else "tiled"


def _logit_vectors(embeddings, temperature):
  """Vectors whose inner products are cosines over the temperature."""
  vectors = embeddings.astype(jnp.float32)
  squared = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
  vectors *= jax.lax.rsqrt(jnp.maximum(squared, _SMALLEST_SQUARED_NORM))
  return vectors * jax.lax.rsqrt(jnp.asarray(temperature, jnp.float32))


def _global_log_negatives(vectors):
  vectors = vectors.reshape(-1, vectors.shape[-1])  # [batch * 2, dim]
  # HIGHEST: accelerators would otherwise round the factors to bfloat16.
  logits = jnp.matmul(vectors, vectors.T, precision=jax.lax.Precision.HIGHEST)
  # Not NumPy's: the program would carry the whole matrix as a constant.
  video = jnp.arange(vectors.shape[0]) // 2
  negatives = jnp.where(video[:, None] == video, -jnp.inf, logits)
  return jax.nn.logsumexp(negatives, axis=-1).reshape(-1, 2)


def _mean_positive(vectors, positive, rows, weights):
  """Weighted mean of the logits of all positives of each view."""
  both_views = jnp.sum(vectors, axis=1)  # [batch, dim]
  target = jnp.einsum(
      "bn,bnd->bd", weights, both_views[rows], precision="highest"
  )
  logits = positive + jnp.einsum(
      "bvd,bd->bv", vectors, target, precision="highest"
  )
  return logits / (1.0 + 2.0 * jnp.sum(weights, axis=-1, keepdims=True))


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


def _count_devices(mesh, axis):
  if mesh is None:
    return 1
  if axis not in mesh.shape:
    raise ValueError(
        f"`axis` must be one of the mesh's axes {mesh.axis_names}, got"
        f" {axis!r}; name the one that splits the batch."
    )
  return mesh.shape[axis]


def _check_ring(method, batch, mesh, num_devices):
  if method != "ring":
    raise ValueError(
        f"`method` must be one of {METHODS}, got {method!r}; 'auto' chooses."
    )
  if mesh is None:
    raise ValueError(
        "`mesh` must be given for `method` 'ring', got None; give the mesh or"
        " 'tiled'."
    )
  if batch % num_devices:
    raise ValueError(
        f"`embeddings` must hold a multiple of {num_devices} videos, one share"
        f" a device, got {batch}; try {batch - batch % num_devices}."
    )


def _check_settings(num_negatives, temperature, positive_prior, tile_size):
  # Of an array the value may not be known before the program runs.
  if not isinstance(temperature, Array) and temperature <= 0:
    raise ValueError(
        f"`temperature` must be > 0, got {temperature}; 0.3 is usual."
    )
  if not 0 <= positive_prior < 1:
    raise ValueError(
        f"`positive_prior` must be in [0, 1), got {positive_prior}; 0 switches"
        " the correction off."
    )
  if tile_size < 1:
    raise ValueError(
        f"`tile_size` must be > 0, got {tile_size}; {_TILE_SIZE} is usual."
    )
  if num_negatives < 1:
    raise ValueError(
        "`embeddings` must hold at least 2 videos, or there are no negatives,"
        " got 1; raise the batch size."
    )
