"""AdamW under a warm-up and a cosine, with clipped gradients."""

from typing import Any

import jax
import optax


def make_schedule(
    *, learning_rate: float, warmup_steps: int, num_steps: int
) -> optax.Schedule:
  """Rises linearly for `warmup_steps`, then falls as a cosine to 0.

  Args:
    learning_rate: At the peak.
    warmup_steps: Cut to half the run where a run is that short.
    num_steps: Length of the run.

  Returns:
    Step -> learning rate.
  """
  warmup_steps = min(warmup_steps, num_steps // 2)
  return optax.warmup_cosine_decay_schedule(
      init_value=0.0 if warmup_steps else learning_rate,
      peak_value=learning_rate,
      warmup_steps=warmup_steps,
      decay_steps=max(num_steps, warmup_steps + 1),
  )


def make_optimizer(
    schedule: optax.Schedule,
    *,
    weight_decay: float,
    gradient_clip: float,
    adam_b2: float,
) -> optax.GradientTransformation:
  """Makes AdamW; weight decay skips norms and biases.

  Args:
    schedule: Step -> learning rate.
    weight_decay: Pull of kernels towards 0, times the learning rate.
    gradient_clip: Largest global norm of the gradients; 0 = no clipping.
    adam_b2: Decay of the squared gradients' mean.

  Returns:
    The transformation.
  """
  clip = (
      optax.clip_by_global_norm(gradient_clip)
      if gradient_clip
      else optax.identity()
  )
  adamw = optax.adamw(
      schedule, b2=adam_b2, weight_decay=weight_decay, mask=decays
  )
  return optax.chain(clip, adamw)


def decays(params: Any) -> Any:
  """Marks with True what weight decay acts on: the kernels.

  Blocks are stacked for the scan over layers, so the number of axes does not
  tell a bias from a kernel; the name does.
  """
  return jax.tree_util.tree_map_with_path(
      lambda path, _: path[-1].key == "kernel", params
  )
