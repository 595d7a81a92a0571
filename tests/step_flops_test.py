"""The work of a step: counted by hand, and by the program's own products."""

import jax
import pytest
from tiny import tiny_config

from chain_jax import compiled_step, sharding, step_flops


def test_a_step_without_blocks_is_counted_by_hand():
  config = tiny_config(model__depth=0, loss__frame_order=0.0)
  config.loss.scene_change = config.loss.decorrelation = 0.0
  # 16 videos, 2 views, 6 frames of 24 features to width 16, to 16 bits, to
  # logits of 32 views: multiplications, times 2 or 3 for the way back.
  projection = 2 * (16 * 2 * 6 * 24 * 16)
  hashing = 3 * (16 * 2 * 16 * 16)
  contrastive = 3 * (32 * 32 * 16)
  # Two operations a multiplication: it is added to something.
  expected = 2.0 * (projection + hashing + contrastive)
  assert step_flops.useful_flops(config) == expected


def test_a_block_is_counted_by_hand():
  without, one = (
      step_flops.useful_flops(tiny_config(model__depth=depth))
      for depth in (0, 1)
  )
  # A token of width 16: query, key, value and output; an MLP of 16; scores and
  # sums over 6 tokens. 16 videos of 3 views of 6 tokens, and back twice.
  token = 4 * 16 * 16 + 2 * 16 * 16 + 2 * 6 * 16
  assert one - without == 2 * 3 * (16 * 3 * 6) * token


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss__frame_order": 0.0},
        {"model__hash_hidden_dim": 8},
        {"model__hash_pooling": "hash_then_mean"},
        {"model__depth": 3},
    ],
    ids=str,
)
def test_the_count_is_that_of_the_traced_step(changes):
  config = tiny_config(loss__contrastive_method="global", **changes)
  mesh = sharding.make_mesh(jax.devices()[:1])
  jaxpr = compiled_step.trace_step(config, mesh).jaxpr.jaxpr
  traced = compiled_step.matmul_flops(jaxpr)
  assert traced == step_flops.useful_flops(config)


def test_what_is_computed_again_is_not_useful():
  config = tiny_config(model__remat=True, loss__contrastive_method="global")
  mesh = sharding.make_mesh(jax.devices()[:1])
  jaxpr = compiled_step.trace_step(config, mesh).jaxpr.jaxpr
  useful = step_flops.useful_flops(config)
  assert useful < compiled_step.matmul_flops(jaxpr)
  config.model.remat = False
  assert useful == step_flops.useful_flops(config)
