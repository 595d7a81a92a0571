"""One update: equal on any number of devices, a function of (seed, step)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from chain_jax import config as config_lib
from chain_jax import optimizer as optimizer_lib
from chain_jax import sharding, train_state, train_step
from chain_jax.data import augment, pipeline, records
from chain_jax.losses import total

_BATCH, _FRAMES, _DIM = 16, 5, 8
_WEIGHTS = {
    "contrastive": 1.0,
    "frame_order": 0.1,
    "scene_change": 0.1,
    "quantisation": 0.01,
    "bit_balance": 0.01,
    "decorrelation": 0.01,
}


_AUGMENTED = augment.FeatureAugmentation(
    noise_std=0.1, dropout_rate=0.1, mix_max=0.2
)


def _setting(
    num_devices,
    optimizer=None,
    *,
    scaling=records.IDENTITY,
    augmentation=_AUGMENTED,
    model_parallel=1,
    rounds=1,
    dropout_rate=0.1,
    learned_temperature=None,
    mask_fraction=0.0,
    **weights,
):
  mesh = sharding.make_mesh(
      jax.devices()[:num_devices], model_parallel=model_parallel
  )
  config = config_lib.ModelConfig(
      num_bits=16,
      width=8,
      depth=1,
      num_heads=2,
      mlp_dim=16,
      dropout_rate=dropout_rate,
      decoder_width=12,
  )
  model = train_state.make_model(
      config, reconstructs="reconstruction" in weights
  )
  optimizer = optimizer or optimizer_lib.make_optimizer(
      lambda step: 1e-2, weight_decay=0.01, gradient_clip=1.0, adam_b2=0.98
  )
  initialise = train_state.make_initialiser(
      model,
      optimizer,
      num_frames=_FRAMES,
      feature_dim=_DIM,
      learned_temperature=learned_temperature,
  )
  state = train_state.start(initialise, 0, mesh)
  step = train_step.make_train_step(
      model,
      optimizer,
      mesh,
      weights=total.LossWeights(**(_WEIGHTS | weights)),
      temperature=0.5,
      positive_prior=0.0,
      scene_threshold_std=1.0,
      rounds=rounds,
      scaling=scaling,
      augmentation=augmentation,
      mask_fraction=mask_fraction,
      seed=0,
  )
  return state, step, mesh


def _batch(seed=0):
  rng = np.random.default_rng(seed)
  mask = np.ones((_BATCH, 2, _FRAMES), bool)
  mask[::3, 0, -2:] = False
  return pipeline.Batch(
      rng.standard_normal((_BATCH, 2, _FRAMES, _DIM), dtype=np.float32),
      mask,
      np.arange(_BATCH, dtype=np.int32) + seed,
  )


def _run(
    num_devices, num_steps=3, optimizer=None, make_batch=_batch, **settings
):
  state, step, mesh = _setting(num_devices, optimizer, **settings)
  metrics = []
  for seed in range(num_steps):
    state, row = step(state, sharding.to_global(make_batch(seed), mesh))
    metrics.append(jax.device_get(row))
  return jax.device_get(state), metrics


@pytest.fixture(scope="module")
def on_one_device():
  return _run(1)


@pytest.fixture(scope="module")
def by_gradient_descent():
  return _run(1, optimizer=optax.sgd(0.1))


@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_losses_gradients_and_updates_do_not_depend_on_devices(
    num_devices, by_gradient_descent
):
  # Plain gradient descent: its updates are the gradients. Adam would divide
  # the rounding of a gradient that is 0 (an attention key's bias) by itself.
  _check_same(_run(num_devices, optimizer=optax.sgd(0.1)), by_gradient_descent)


@pytest.mark.parametrize("num_devices, model_parallel", [(2, 2), (8, 2)])
def test_nor_on_how_many_devices_share_the_wide_layers(
    num_devices, model_parallel, by_gradient_descent
):
  run = _run(
      num_devices, optimizer=optax.sgd(0.1), model_parallel=model_parallel
  )
  _check_same(run, by_gradient_descent)


@pytest.fixture(scope="module")
def without_dropout():
  return _run(
      1, optimizer=optax.sgd(0.1), dropout_rate=0.0, learned_temperature=0.5
  )


@pytest.mark.parametrize(
    "num_devices, model_parallel, rounds", [(1, 1, 2), (4, 2, 4), (8, 1, 2)]
)
def test_nor_on_the_rounds_in_which_a_batch_is_run(
    num_devices, model_parallel, rounds, without_dropout
):
  run = _run(
      num_devices,
      optimizer=optax.sgd(0.1),
      dropout_rate=0.0,
      learned_temperature=0.5,
      model_parallel=model_parallel,
      rounds=rounds,
  )
  _check_same(run, without_dropout)


_GUESSING = {
    "optimizer": optax.sgd(0.1),
    "dropout_rate": 0.0,
    "mask_fraction": 0.5,
    "reconstruction": 1.0,
}


@pytest.fixture(scope="module")
def guessing():
  return _run(1, **_GUESSING)


@pytest.mark.parametrize(
    "num_devices, model_parallel, rounds", [(8, 1, 1), (1, 1, 4), (4, 2, 2)]
)
def test_nor_do_hidden_frames_and_their_guesses(
    num_devices, model_parallel, rounds, guessing
):
  run = _run(
      num_devices, model_parallel=model_parallel, rounds=rounds, **_GUESSING
  )
  _check_same(run, guessing)


def test_guessing_moves_every_parameter_of_the_decoder_and_is_logged(guessing):
  before = jax.device_get(_setting(1, **_GUESSING)[0]).params["decoder"]
  state, metrics = guessing
  unmoved = [
      jax.tree_util.keystr(path)
      for path, old in jax.tree_util.tree_leaves_with_path(before)
      if np.array_equal(old, _at(state.params["decoder"], path))
  ]
  assert not unmoved
  # Of standard normal features, dropped and noisy: a guess of 0 would err by
  # about 1, and the first guesses are worse.
  assert all(0.5 < row["reconstruction"] < 5 for row in metrics)


def test_hidden_frames_are_others_at_every_step():
  batch, values = _batch(), []
  state, step, mesh = _setting(
      1,
      optimizer=optax.sgd(0.0),
      augmentation=augment.FeatureAugmentation(),
      dropout_rate=0.0,
      mask_fraction=0.5,
  )
  for _ in range(2):
    state, row = step(state, sharding.to_global(batch, mesh))
    values.append(float(row["contrastive"]))
  assert abs(values[0] - values[1]) > 1e-4


def test_without_hidden_frames_nothing_is_guessed():
  state, metrics = _run(1, 1)
  assert "decoder" not in state.params
  assert "reconstruction" not in metrics[0]


def test_the_wide_layers_stay_split_from_step_to_step():
  state, step, mesh = _setting(4, model_parallel=2)
  state, _ = step(state, sharding.to_global(_batch(), mesh))
  jax.tree.map(
      lambda leaf, place: _check_lies(leaf, place),
      state,
      sharding.parameter_shardings(state, mesh),
  )
  kernel = state.params["encoder"]["blocks"]["mlp_in"]["kernel"]
  assert {shard.data.shape for shard in kernel.addressable_shards} == {
      (1, 8, 8)
  }


def _check_lies(leaf, place):
  assert leaf.sharding.is_equivalent_to(place, leaf.ndim)


def test_rounds_need_memory_for_their_own_rows_only():
  sizes = []
  for rounds in (1, 8):
    state, step, mesh = _setting(1, rounds=rounds, dropout_rate=0.0)
    rng = np.random.default_rng(0)
    shape = (512, 2, _FRAMES, _DIM)
    batch = pipeline.Batch(
        rng.standard_normal(shape, dtype=np.float32),
        np.ones(shape[:3], bool),
        np.arange(512, dtype=np.int32),
    )
    compiled = step.lower(state, sharding.to_global(batch, mesh)).compile()
    sizes.append(compiled.memory_analysis().temp_size_in_bytes)
  # The logits of the loss and the answers stay whole, the activations don't.
  logits = 4 * 1024**2 * 3
  assert sizes[1] - logits < 0.5 * (sizes[0] - logits), sizes


def test_a_learned_temperature_moves_by_its_own_gradient_and_has_a_bound():
  state, step, mesh = _setting(1, optax.sgd(1e-2), learned_temperature=0.5)
  batch = sharding.to_global(_batch(), mesh)
  state, first = step(state, batch)
  assert float(first["temperature"]) == pytest.approx(0.5)
  moved = float(train_state.temperature_of(state.params))
  assert 1e-5 < abs(moved - 0.5) < 0.1
  low, step, _ = _setting(1, optax.sgd(1e3), learned_temperature=0.02)
  low, _ = step(low, batch)
  assert float(train_state.temperature_of(low.params)) >= 0.01 * (1 - 1e-6)


def _check_same(run, expected_run):
  state, metrics = run
  expected_state, expected_metrics = expected_run
  for row, expected in zip(metrics, expected_metrics, strict=True):
    row, expected = dict(row), dict(expected)
    assert row.keys() == expected.keys()
    assert row.pop("batch_checksum") == expected["batch_checksum"]
    for name, value in row.items():
      # float32 sums in another order, through three updates.
      np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-6)
  jax.tree.map(
      lambda actual, wanted: np.testing.assert_allclose(
          actual, wanted, rtol=1e-4, atol=1e-6, strict=True
      ),
      state.params,
      expected_state.params,
  )


_SCALING = records.Scaling(np.float32(4 / 255), np.float32(4 / 512 - 2))


def _stored_batch(seed):
  batch = _batch(seed)
  stored = np.clip(np.rint((batch.frames + 2) * 255 / 4), 0, 255)
  return batch._replace(frames=stored.astype(np.uint8))


def _float_batch(seed):
  batch = _stored_batch(seed)
  features = records.to_features(batch.frames, _SCALING)
  features[~batch.frame_mask] = 0
  return batch._replace(frames=features)


def test_features_stored_in_8_bits_train_like_their_float32_copy():
  optimizer = optax.sgd(0.1)
  stored, _ = _run(
      1, optimizer=optimizer, make_batch=_stored_batch, scaling=_SCALING
  )
  floats, _ = _run(1, optimizer=optimizer, make_batch=_float_batch)
  other, _ = _run(1, optimizer=optimizer, make_batch=_stored_batch)
  jax.tree.map(
      lambda actual, wanted: np.testing.assert_allclose(
          # Product and sum in one rounding or two, through three updates.
          actual,
          wanted,
          rtol=1e-4,
          atol=1e-6,
          strict=True,
      ),
      stored.params,
      floats.params,
  )
  kernels = [run.params["projection"]["kernel"] for run in (stored, other)]
  assert np.abs(kernels[0] - kernels[1]).max() > 1e-3


@pytest.mark.parametrize("part", ["noise_std", "dropout_rate", "mix_max"])
def test_each_part_of_the_augmentation_reaches_the_loss(part):
  plain, changed = (
      _run(1, 1, augmentation=augment.FeatureAugmentation(**parts))[1][0]
      for parts in ({}, {part: 0.5})
  )
  assert abs(plain["contrastive"] - changed["contrastive"]) > 1e-4


def test_two_runs_are_equal_bit_for_bit(on_one_device):
  state, _ = _run(1)
  jax.tree.map(np.testing.assert_array_equal, state, on_one_device[0])


def test_every_parameter_and_no_statistic_moves(on_one_device):
  before = jax.device_get(_setting(1)[0])
  after = on_one_device[0]
  unmoved = [
      jax.tree_util.keystr(path)
      for path, old in jax.tree_util.tree_leaves_with_path(before.params)
      if np.array_equal(old, _at(after.params, path))
  ]
  assert not unmoved
  jax.tree.map(
      np.testing.assert_array_equal, before.statistics, after.statistics
  )
  assert after.step == 3


def _at(tree, path):
  for part in path:
    tree = tree[part.key]
  return tree


def test_the_state_given_is_donated():
  state, step, mesh = _setting(1)
  step(state, sharding.to_global(_batch(), mesh))
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_without_frame_order_nothing_is_shuffled_and_its_head_rests():
  before = jax.device_get(_setting(1, frame_order=0.0)[0]).params
  state, metrics = _run(1, 1, frame_order=0.0)
  assert "frame_order" not in metrics[0]
  moved = jax.tree.map(
      lambda old, new: np.abs(old - new).max(),
      before["frame_order_head"],
      state.params["frame_order_head"],
  )
  # Weight decay alone still pulls: 1e-2 * 1e-2 of kernels below 2.
  assert max(jax.tree.leaves(moved)) <= 2e-4


def test_permutations_shuffle_valid_frames_and_leave_padding_last():
  mask = jnp.arange(9) < jnp.array([9, 4, 1, 0])[:, None]
  permutation = np.asarray(
      train_step.draw_permutations(jax.random.key(0), mask)
  )
  for row, num_valid in zip(permutation, [9, 4, 1, 0], strict=True):
    assert sorted(row[:num_valid]) == list(range(num_valid))
    np.testing.assert_array_equal(row[num_valid:], np.arange(num_valid, 9))
  many = train_step.draw_permutations(
      jax.random.key(1), jnp.ones((3000, 4), bool)
  )
  shares = np.stack([np.bincount(column, minlength=4) for column in many.T])
  # 3000 draws a slot: 1/4 each, within 5 standard deviations of 0.008.
  np.testing.assert_allclose(shares / 3000, np.full((4, 4), 0.25), atol=0.04)


def test_permutations_change_with_the_step_only():
  mask = jnp.ones((4, 8), bool)
  keys = [jax.random.fold_in(jax.random.key(0), step) for step in (0, 0, 1)]
  first, again, other = (
      train_step.draw_permutations(key, mask) for key in keys
  )
  np.testing.assert_array_equal(first, again, strict=True)
  assert not np.array_equal(first, other)


def test_the_checksum_tells_batches_and_row_orders_apart():
  videos = np.random.default_rng(0).permutation(1000)[:64].astype(np.int32)
  others = [videos[::-1], np.roll(videos, 1), videos + 1, videos[:32]]
  sums = [int(train_step.checksum(jnp.asarray(v))) for v in [videos, *others]]
  assert len(set(sums)) == 5
