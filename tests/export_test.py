"""Exported codes are the signs of the encoder's logits, in order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from chain_jax import codes as codes_lib
from chain_jax import export, factories, sharding, train_state
from chain_jax.data import splits as splits_lib


@pytest.fixture(scope="module")
def setting():
  config = tiny.tiny_config()
  splits = splits_lib.make_splits(config.data, seed=0)
  model = train_state.make_model(config.model)
  optimizer = factories.make_optimizer(config.optimizer, lambda step: 0.1)
  initialise = factories.make_initialiser(config, model, optimizer)
  return config, splits, model, jax.device_get(jax.jit(initialise)(0))


def _encode(setting, *, num_devices, batch_size):
  config, splits, model, state = setting
  mesh = sharding.make_mesh(jax.devices()[:num_devices])
  return export.encode_split(
      export.make_encode(model, mesh),
      state,
      splits.query,
      mesh,
      batch_size=batch_size,
      num_frames=config.data.num_frames,
  )


def _logits(setting):
  config, splits, model, state = setting
  rows = []
  for video in range(len(splits.query)):
    # The middles of [0, 1), [1, 2), [2, 4), [4, 5), [5, 6), [6, 8).
    frames = splits.query.read_frames(video)[[0, 1, 2, 4, 5, 6]]
    mask = np.ones(6, bool)
    rows.append(
        model.apply(
            {"params": state.params, "statistics": state.statistics},
            jnp.asarray(frames)[None],
            jnp.asarray(mask)[None],
            method="encode",
        )[0]
    )
  return np.stack(rows)


# 12 queries: less than a batch, just one, two and a half.
@pytest.mark.parametrize(
    "num_devices, batch_size", [(1, 16), (1, 12), (1, 5), (8, 8)]
)
def test_codes_are_the_signs_of_each_video_alone(
    setting, num_devices, batch_size
):
  packed = _encode(setting, num_devices=num_devices, batch_size=batch_size)
  logits = _logits(setting)
  codes = codes_lib.unpack_bits(packed)
  # A logit this near to 0 may take either sign in another order of sums.
  clear = np.abs(logits) > 1e-5
  np.testing.assert_array_equal(codes[clear], np.sign(logits[clear]))
  assert codes.shape == (12, 16) and clear.mean() > 0.99
