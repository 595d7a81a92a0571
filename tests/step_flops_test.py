"""The work of a step: counted by hand, and by the program's own products."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P
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
        {"model__frame_deviations": True},
        {
            "loss__reconstruction": 1.0,
            "augment__mask_fraction": 0.5,
            "model__decoder_width": 12,
        },
    ],
    ids=str,
)
def test_the_count_is_that_of_the_traced_step(changes):
  config = tiny_config(loss__contrastive_method="global", **changes)
  mesh = sharding.make_mesh(jax.devices()[:1])
  jaxpr = compiled_step.trace_step(config, mesh).jaxpr.jaxpr
  traced = step_flops.matmul_flops(jaxpr)
  assert traced == step_flops.useful_flops(config)


def test_a_decoder_is_counted_by_hand():
  without, there = (
      step_flops.useful_flops(
          tiny_config(
              loss__reconstruction=weight,
              model__decoder_width=12,
              model__decoder_depth=1,
          )
      )
      for weight in (0.0, 1.0)
  )
  # A frame goes from 16 to 12, through query, key, value, output, an MLP of 48
  # and scores and sums over 6 frames, to 24 features; 16 videos of 2 views.
  frame = 16 * 12 + 4 * 12 * 12 + 2 * 12 * 48 + 2 * 6 * 12 + 12 * 24
  assert there - without == 2 * 3 * (16 * 2 * 6) * frame


def test_what_is_computed_again_is_not_useful():
  config = tiny_config(model__remat=True, loss__contrastive_method="global")
  mesh = sharding.make_mesh(jax.devices()[:1])
  jaxpr = compiled_step.trace_step(config, mesh).jaxpr.jaxpr
  useful = step_flops.useful_flops(config)
  assert useful < step_flops.matmul_flops(jaxpr)
  config.model.remat = False
  assert useful == step_flops.useful_flops(config)


def _flops(function, *arrays):
  return step_flops.matmul_flops(jax.make_jaxpr(function)(*arrays).jaxpr)


def test_a_product_in_a_scan_counts_at_every_turn():
  square = jnp.ones((4, 4))

  def five_times(start):
    return jax.lax.scan(lambda x, _: (x @ square, None), start, length=5)

  # 4 x 4 sums of 4 products, a product and a sum each, five times.
  assert _flops(five_times, square) == 5 * 2 * 4**3


def test_a_product_on_every_device_counts_on_each():
  mesh = sharding.make_mesh(jax.devices()[:8])
  local = functools.partial(
      jax.shard_map, mesh=mesh, in_specs=P("data"), out_specs=P("data")
  )
  rows = jnp.ones((16, 4))
  # On each of 8 devices 2 rows times their transpose: 2 x 2 sums of 4.
  assert _flops(local(lambda x: x @ x.T @ x), rows) == 8 * 2 * (2 * 2 * 4) * 2
