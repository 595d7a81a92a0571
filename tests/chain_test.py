import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chain_jax.models import chain

_SMALL = dict(num_bits=16, width=16, depth=2, num_heads=2, mlp_dim=24)


def _case(batch=4, frames=6, dim=10, seed=0):
  rng = np.random.default_rng(seed)
  views = rng.normal(size=(batch, 2, frames, dim)).astype(np.float32)
  lengths = rng.integers(3, frames + 1, size=(batch, 2, 1))
  mask = np.arange(frames) < lengths
  permutation = np.stack([rng.permutation(frames) for _ in range(batch)])
  return tuple(map(jnp.asarray, (views, mask, permutation.astype(np.int32))))


@functools.cache
def _variables():
  """Of the small model, every parameter moved from where it starts."""
  init = jax.jit(
      functools.partial(chain.ChainModel(**_SMALL).init, deterministic=True)
  )
  leaves, tree = jax.tree.flatten(init(jax.random.key(0), *_case()))
  rng = np.random.default_rng(0)
  moved = [
      leaf + 0.2 * rng.normal(size=leaf.shape).astype(np.float32)
      for leaf in leaves
  ]
  return jax.tree.unflatten(tree, moved)


def _run(views, mask, permutation, **settings):
  model = chain.ChainModel(**{**_SMALL, **settings})
  apply = jax.jit(functools.partial(model.apply, deterministic=True))
  return apply(_variables(), views, mask, permutation)


@pytest.mark.parametrize("num_bits", [16, 32, 64, 128])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shapes_and_types_follow_the_fields(num_bits, dtype):
  model = chain.ChainModel(**{**_SMALL, "num_bits": num_bits, "dtype": dtype})
  output, variables = jax.eval_shape(
      functools.partial(model.init_with_output, deterministic=True),
      jax.random.key(0),
      *_case(),
  )
  assert output.frame_errors is None  # No decoder.
  assert [array.shape for array in output[:4]] == [
      (4, 2, num_bits),
      (4, 2, num_bits),
      (4, 6, 6),
      (4, 2, 5),
  ]
  assert {array.dtype.name for array in output[:4]} == {"float32"}
  assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float32"}


def test_blocks_are_stacked_and_statistics_stand_apart():
  variables = _variables()
  assert set(variables) == {"params", "statistics"}
  assert variables["statistics"]["standardizer"]["mean"].shape == (10,)
  blocks = variables["params"]["encoder"]["blocks"]
  assert {leaf.shape[0] for leaf in jax.tree.leaves(blocks)} == {2}


def test_a_model_initialised_without_a_shuffled_view_has_its_order_head():
  views, mask, permutation = _case()
  model = chain.ChainModel(**_SMALL)
  shapes = [
      jax.eval_shape(
          functools.partial(model.init, deterministic=True),
          jax.random.key(0),
          views,
          mask,
          order,
      )
      for order in (permutation, None)
  ]
  assert shapes[0] == shapes[1]


def test_the_shuffled_view_changes_no_other_output():
  views, mask, permutation = _case()
  shuffled = _run(views, mask, permutation)
  plain = _run(views, mask, None)
  assert plain.frame_order_logits is None
  # The same products in batches of another size.
  for name in ("hash_logits", "relaxed_codes", "scene_change_logits"):
    np.testing.assert_allclose(
        getattr(shuffled, name),
        getattr(plain, name),
        rtol=1e-4,
        atol=1e-5,
        strict=True,
    )


def test_encode_gives_the_hash_logits_of_a_view():
  views, mask, permutation = _case()
  model = chain.ChainModel(**_SMALL)
  expected = _run(views, mask, permutation).hash_logits
  encode = jax.jit(functools.partial(model.apply, method="encode"))
  for view in range(2):
    # The same products in batches of another size.
    np.testing.assert_allclose(
        encode(_variables(), views[:, view], mask[:, view]),
        expected[:, view],
        rtol=1e-4,
        atol=1e-5,
        strict=True,
    )


def test_encode_takes_another_number_of_frames():
  views, mask, _ = _case(frames=6)
  model = chain.ChainModel(**_SMALL)
  encode = jax.jit(functools.partial(model.apply, method="encode"))
  longer = jnp.pad(views[:, 0], ((0, 0), (0, 5), (0, 0)))
  longer_mask = jnp.pad(mask[:, 0], ((0, 0), (0, 5)))
  # Padding adds zeros to the sums.
  np.testing.assert_allclose(
      encode(_variables(), longer, longer_mask),
      encode(_variables(), views[:, 0], mask[:, 0]),
      rtol=1e-4,
      atol=1e-5,
      strict=True,
  )


def test_dropout_is_off_in_encode_and_on_in_training():
  views, mask, permutation = _case()
  model = chain.ChainModel(**_SMALL, dropout_rate=0.5)
  encode = jax.jit(functools.partial(model.apply, method="encode"))
  train = jax.jit(functools.partial(model.apply, deterministic=False))
  first = encode(_variables(), views[:, 0], mask[:, 0])
  again = encode(_variables(), views[:, 0], mask[:, 0])
  np.testing.assert_array_equal(first, again, strict=True)
  outputs = [
      train(
          _variables(),
          views,
          mask,
          permutation,
          rngs={"dropout": jax.random.key(seed)},
      ).hash_logits
      for seed in range(2)
  ]
  assert np.any(outputs[0] != outputs[1])


@pytest.mark.parametrize("pooling", ["pool_then_hash", "hash_then_mean"])
def test_padded_content_reaches_no_code_and_no_valid_local_answer(pooling):
  views, mask, permutation = _case()
  changed = jnp.where(mask[..., None], views, jnp.nan)
  plain = _run(views, mask, permutation, hash_pooling=pooling)
  other = _run(changed, mask, permutation, hash_pooling=pooling)
  slots = jnp.take_along_axis(mask[:, 0], permutation, axis=1)
  pairs = mask[..., 1:] & mask[..., :-1]
  for actual, expected in (
      (other.hash_logits, plain.hash_logits),
      (other.relaxed_codes, plain.relaxed_codes),
      (other.frame_order_logits[slots], plain.frame_order_logits[slots]),
      (other.scene_change_logits[pairs], plain.scene_change_logits[pairs]),
  ):
    np.testing.assert_array_equal(actual, expected, strict=True)


def test_a_view_with_one_valid_frame_works():
  views, mask, permutation = _case()
  mask = mask.at[0, 0].set(jnp.arange(6) == 0)
  output = _run(views, mask, permutation)
  assert all(np.all(np.isfinite(array)) for array in jax.tree.leaves(output))


def test_slot_s_of_the_shuffled_view_shows_frame_p_of_s():
  views, mask, permutation = _case()
  rows = jnp.arange(4)[:, None]
  by_hand = views.at[:, 0].set(views[rows, 0, permutation])
  mask_by_hand = mask.at[:, 0].set(mask[rows, 0, permutation])
  identity = jnp.tile(jnp.arange(6, dtype=jnp.int32), (4, 1))
  # The same numbers reach the same products.
  np.testing.assert_allclose(
      _run(views, mask, permutation).frame_order_logits,
      _run(by_hand, mask_by_hand, identity).frame_order_logits,
      rtol=1e-5,
      atol=1e-6,
      strict=True,
  )


def test_the_order_of_content_free_frames_cannot_be_told():
  views, _, permutation = _case()
  views = jnp.broadcast_to(views[:, :, :1], views.shape)
  mask = jnp.ones((4, 2, 6), bool)
  first = _run(views, mask, permutation).frame_order_logits
  second = _run(views, mask, permutation[:, ::-1]).frame_order_logits
  np.testing.assert_array_equal(first, second, strict=True)


def test_frames_with_content_do_show_their_order():
  views, _, permutation = _case()
  mask = jnp.ones((4, 2, 6), bool)
  first = _run(views, mask, permutation).frame_order_logits
  second = _run(views, mask, permutation[:, ::-1]).frame_order_logits
  assert np.all(np.any(np.abs(first - second) > 1e-3, axis=-1))


def test_videos_and_views_do_not_see_each_other():
  views, mask, permutation = _case()
  changed = views.at[1, 1].add(1.0)
  plain = _run(views, mask, permutation)
  other = _run(changed, mask, permutation)
  same = np.ones((4, 2), bool)
  same[1, 1] = False
  np.testing.assert_array_equal(
      other.hash_logits[same], plain.hash_logits[same], strict=True
  )
  np.testing.assert_array_equal(
      other.frame_order_logits, plain.frame_order_logits, strict=True
  )
  assert np.any(other.hash_logits[1, 1] != plain.hash_logits[1, 1])


def test_remat_and_bfloat16_keep_the_answer():
  case = _case()
  plain = _run(*case).hash_logits
  # Remat runs the same operations; bfloat16 keeps 8 bits over a dozen steps.
  np.testing.assert_allclose(
      _run(*case, remat=True).hash_logits, plain, atol=1e-5, strict=True
  )
  half = _run(*case, dtype=jnp.bfloat16).hash_logits
  assert np.mean(np.abs(half - plain)) < 0.05


def test_untrained_codes_are_those_of_a_projection_of_the_mean_frame():
  views, _, _ = _case(batch=64)
  mask = jnp.ones((64, 2, 6), bool)
  model = chain.ChainModel(
      **{**_SMALL, "num_bits": 128, "width": 256},
      normalise_bits=False,
      position_scale=0.1,
  )
  init = jax.jit(functools.partial(model.init, deterministic=True))
  variables = init(jax.random.key(0), views[:1], mask[:1], None)
  encode = jax.jit(functools.partial(model.apply, method="encode"))
  codes = encode(variables, views[:, 0], mask[:, 0]) >= 0
  means = np.array(views[:, 0].mean(1))
  means /= np.linalg.norm(means, axis=-1, keepdims=True)
  angles = np.arccos(np.clip(means @ means.T, -1, 1)) / np.pi
  distances = np.mean(codes[:, None] != codes[None], axis=-1)
  pairs = np.triu_indices(64, 1)
  # For random hyperplanes the expected distance is the angle; 128 bits leave
  # a deviation of .04 beside a spread of angles of .1: correlation .9.
  assert np.corrcoef(angles[pairs], distances[pairs])[0, 1] > 0.8


def _with_deviations(views, mask, visible_mask=None, *, blind_to_frames=False):
  """Logits of a model whose tokens tell of deviations, maybe of no more."""
  model = chain.ChainModel(**_SMALL, frame_deviations=True)
  init = functools.partial(model.init, deterministic=True)
  variables = jax.jit(init)(jax.random.key(0), views, mask, None)
  params = dict(variables["params"])
  if blind_to_frames:
    params["projection"] = jax.tree.map(jnp.zeros_like, params["projection"])
  apply = jax.jit(functools.partial(model.apply, deterministic=True))
  output = apply(
      variables | {"params": params}, views, mask, None, visible_mask
  )
  encode = jax.jit(functools.partial(model.apply, method="encode"))
  single = encode(variables | {"params": params}, views[:, 0], mask[:, 0])
  if visible_mask is None:
    np.testing.assert_allclose(output.hash_logits[:, 0], single, atol=1e-5)
  return output.hash_logits


def test_deviations_tell_what_moves_and_not_what_stands_still():
  views, mask, _ = _case()
  shifted = views + jnp.linspace(-1, 1, 10)
  faster = jnp.concatenate([views[..., :5] * 3, views[..., 5:]], axis=-1)
  plain, same, other = (
      _with_deviations(each, mask, blind_to_frames=True)
      for each in (views, shifted, faster)
  )
  np.testing.assert_allclose(same, plain, atol=1e-4)
  assert np.mean(np.abs(other - plain)) > 0.05
  moved = _with_deviations(shifted, mask) - _with_deviations(views, mask)
  assert np.mean(np.abs(moved)) > 0.05


def test_a_hidden_frame_is_not_seen_by_deviations_either():
  views, _, _ = _case()
  mask = jnp.ones((4, 2, 6), bool)
  visible = mask.at[:, :, 2].set(False)
  changed = views.at[:, :, 2].add(5.0)
  np.testing.assert_array_equal(
      _with_deviations(changed, mask, visible),
      _with_deviations(views, mask, visible),
      strict=True,
  )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 0),
        ("width", 15),
        ("num_heads", 0),
        ("mlp_dim", 0),
        ("depth", -1),
        ("dropout_rate", 1.0),
        ("dropout_rate", -0.1),
        ("branch_init_scale", -1.0),
        ("decoder_width", 15),
        ("decoder_depth", -1),
        ("dtype", "float16"),
        ("dtype", "nonsense"),
        ("num_bits", 20),
        ("hash_hidden_dim", -2),
        ("hash_relaxation", "sigmoid"),
        ("hash_pooling", "max"),
    ],
)
def test_bad_settings_are_named_before_anything_runs(field, value):
  with pytest.raises(ValueError, match=f"^`{field}` must.*{value}"):
    chain.ChainModel(**{**_SMALL, "reconstructs": True, field: value})


def test_a_decoder_that_is_not_there_may_have_any_size():
  chain.ChainModel(**{**_SMALL, "decoder_width": 15})


def test_detail_bits_are_a_share_in_whole_bytes():
  for num_bits, detail_share, expected in (
      (64, 0.0, 0),
      (64, 0.125, 8),
      (128, 0.125, 16),
      (32, 0.125, 0),
      (80, 0.3, 24),
      (8, 0.99, 0),
  ):
    model = chain.ChainModel(num_bits=num_bits, detail_share=detail_share)
    assert model.num_detail_bits == expected
  with pytest.raises(ValueError, match="^`detail_share` must.*got 1.0"):
    chain.ChainModel(detail_share=1.0)


def test_detail_bits_are_linear_in_the_mean_frame():
  views, mask, _ = _case(batch=40)
  model = chain.ChainModel(**{**_SMALL, "num_bits": 24}, detail_share=2 / 3)
  variables = model.init(
      jax.random.key(0), views, mask, None, deterministic=True
  )
  model = model.clone(normalise_bits=False)
  output = jax.jit(functools.partial(model.apply, deterministic=True))(
      variables, views, mask, None
  )
  valid = np.float64(mask)[..., None]
  means = (np.float64(views) * valid).sum(axis=2) / valid.sum(axis=2)
  inputs = np.concatenate([means, np.ones_like(means[..., :1])], axis=-1)
  logits = np.float64(output.hash_logits).reshape(80, 24)
  fit, *_ = np.linalg.lstsq(inputs.reshape(80, -1), logits, rcond=None)
  errors = np.abs(inputs.reshape(80, -1) @ fit - logits).max(axis=0)
  # float32 sums of ten products; tokens pass an attention and an MLP.
  assert errors[8:].max() < 1e-5
