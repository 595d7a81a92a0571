"""What the fields of a `chain.ChainModel` may be."""

from typing import Any

import jax.numpy as jnp


def check(model: Any) -> None:
  """Checks the fields of a `chain.ChainModel` but for those of its hash layer.

  Raises:
    ValueError: If one is out of range; names the field.
  """
  for field in ("width", "num_heads", "mlp_dim"):
    if getattr(model, field) < 1:
      raise ValueError(
          f"`{field}` must be >= 1, got {getattr(model, field)}; the default"
          f" is {getattr(type(model), field)}."
      )
  sizes = [("width", "depth")]
  if model.reconstructs:
    sizes.append(("decoder_width", "decoder_depth"))
  for width_field, depth_field in sizes:
    width, depth = getattr(model, width_field), getattr(model, depth_field)
    if width < 1 or width % 2 or width % model.num_heads:
      raise ValueError(
          f"`{width_field}` must be even and a multiple of the"
          f" {model.num_heads} heads, got {width}; try"
          f" {2 * model.num_heads} or a multiple of it."
      )
    if depth < 0:
      raise ValueError(f"`{depth_field}` must be >= 0, got {depth}; try 2.")
  if not 0 <= model.dropout_rate < 1:
    raise ValueError(
        f"`dropout_rate` must be in [0, 1), got {model.dropout_rate}; 0"
        " switches it off."
    )
  if model.branch_init_scale < 0:
    raise ValueError(
        "`branch_init_scale` must be >= 0, got"
        f" {model.branch_init_scale}; 0 starts each block as the identity."
    )
  try:
    dtype = jnp.dtype(model.dtype)
  except TypeError:
    dtype = None
  if dtype not in (jnp.float32, jnp.bfloat16):
    raise ValueError(
        f'`dtype` must be "float32" or "bfloat16", got {model.dtype!r};'
        " float32 is as fast on a CPU."
    )
