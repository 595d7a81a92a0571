"""Tiles and the ring change memory and time, never a value or a gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax.extend.core import Literal
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from chain_jax.losses import contrastive

# 8 videos on 2 devices, tiles of 3: 8 rows, the last tile has two.
_TILE = 3
_PLACES = [("global", 1), ("global", 8), ("tiled", 1)]
_PLACES += [("ring", 1), ("ring", 2), ("ring", 4), ("ring", 8)]
_FEW_PLACES = [("global", 8), ("tiled", 1), ("ring", 2)]
_SPLIT = P("data")
# temperature, positive_prior, anchors of 16 whose debiased sum is at its floor.
_SETTINGS = [(0.1, 0.0, 0), (0.3, 0.02, 0), (0.5, 0.3, 7), (0.5, 0.6, 13)]


def _embeddings(batch=8, dim=6, seed=0):
  rng = np.random.default_rng(seed)
  video = rng.normal(size=(batch, 1, dim))
  return (video + 0.7 * rng.normal(size=(batch, 2, dim))).astype(np.float32)


def _mesh(num_data, num_model=1):
  return jax.make_mesh(
      (num_data, num_model),
      ("data", "model"),
      axis_types=(AxisType.Auto,) * 2,
      devices=jax.devices()[: num_data * num_model],
  )


def _value_and_gradients(
    embeddings,
    temperature,
    *,
    method,
    mesh,
    spec=_SPLIT,
    tile_size=_TILE,
    positive_prior=0.0,
):
  """The loss, its gradient by the embeddings and by the temperature."""
  loss = functools.partial(
      contrastive.nt_xent,
      positive_prior=positive_prior,
      method=method,
      mesh=mesh,
      tile_size=tile_size,
  )
  step = jax.jit(
      jax.value_and_grad(lambda x, t: loss(x, temperature=t), argnums=(0, 1))
  )
  value, gradients = step(
      jax.device_put(embeddings, NamedSharding(mesh, spec)),
      jax.device_put(np.float32(temperature), NamedSharding(mesh, P())),
  )
  return value, *gradients


@functools.cache
def _expected(temperature, positive_prior):
  """The same in float64, by loops and central differences."""
  embeddings = _embeddings()

  def loss(point, temperature):
    return reference.nt_xent(
        point, temperature=temperature, positive_prior=positive_prior
    )

  return (
      loss(embeddings, temperature),
      reference.gradient(lambda x: loss(x, temperature), embeddings),
      reference.gradient(lambda t: loss(embeddings, t), temperature),
  )


def _assert_close(actual, expected, tolerance=1e-5):
  """Compares relative to the largest entry: small ones are differences."""
  for one, other in zip(actual, expected, strict=True):
    other = np.asarray(other, np.float32)
    np.testing.assert_allclose(
        np.asarray(one),
        other,
        rtol=0,
        atol=tolerance * np.abs(other).max(),
        strict=True,
    )


@pytest.mark.parametrize(("method", "num_devices"), _PLACES)
@pytest.mark.parametrize(
    ("temperature", "positive_prior", "num_at_floor"), _SETTINGS
)
def test_value_and_gradients_agree_with_loops_in_float64(
    method, num_devices, temperature, positive_prior, num_at_floor
):
  assert _count_at_floor(temperature, positive_prior) == num_at_floor
  actual = _value_and_gradients(
      _embeddings(),
      temperature,
      positive_prior=positive_prior,
      method=method,
      mesh=_mesh(num_devices),
  )
  # Logits up to 10 in float32 are off by 1e-6 each; a missed one moves 1e-2.
  _assert_close(actual, _expected(temperature, positive_prior))


def _count_at_floor(temperature, positive_prior):
  if not positive_prior:
    return 0
  units = _embeddings().astype(np.float64).reshape(16, -1)
  units /= np.linalg.norm(units, axis=-1, keepdims=True)
  scores = np.exp(units @ units.T / temperature)
  row = np.arange(16)
  positive = scores[row, row ^ 1]
  negatives = scores.sum(axis=-1) - scores[row, row] - positive
  corrected = (negatives - 14 * positive_prior * positive) / (
      1 - positive_prior
  )
  return np.sum(corrected < 14 * np.exp(-1 / temperature))


@pytest.mark.parametrize(("num_data", "num_model"), [(1, 2), (4, 2)])
@pytest.mark.parametrize("spec", [_SPLIT, P("data", None, "model"), P()])
def test_the_ring_is_right_beside_a_model_axis(num_data, num_model, spec):
  actual = _value_and_gradients(
      _embeddings(),
      0.1,
      method="ring",
      mesh=_mesh(num_data, num_model),
      spec=spec,
  )
  # As above; counted once per copy it would be off by the number of copies.
  _assert_close(actual, _expected(0.1, 0.0))


@pytest.mark.parametrize("tile_size", [1, 4, 7, 1000])
@pytest.mark.parametrize(("method", "num_devices"), [("tiled", 1), ("ring", 8)])
def test_any_tile_size_gives_the_loss_of_no_tiles(
    method, num_devices, tile_size
):
  # 10 rows on each of 8 devices, 80 on one: most sizes divide neither.
  case = {"embeddings": _embeddings(batch=40), "temperature": 0.1}
  actual = _value_and_gradients(
      **case, method=method, mesh=_mesh(num_devices), tile_size=tile_size
  )
  expected = _value_and_gradients(**case, method="global", mesh=_mesh(1))
  # Sums in another order: a few ulp.
  _assert_close(actual, expected, tolerance=2e-6)


def test_the_loss_ignores_which_device_holds_which_rows():
  # One whole share further: each device gets the rows of the one before.
  embeddings, mesh = _embeddings(batch=16), _mesh(8)
  here = _value_and_gradients(embeddings, 0.1, method="ring", mesh=mesh)
  value, gradient, slope = _value_and_gradients(
      np.roll(embeddings, 2, axis=0), 0.1, method="ring", mesh=mesh
  )
  # Sums in another order: a few ulp.
  _assert_close(
      (value, np.roll(gradient, -2, axis=0), slope), here, tolerance=2e-6
  )


@pytest.mark.parametrize(("method", "num_devices"), _FEW_PLACES)
def test_bfloat16_embeddings_accumulate_in_float32(method, num_devices):
  embeddings = jnp.asarray(_embeddings(), jnp.bfloat16)
  value, gradient, slope = _value_and_gradients(
      embeddings, 0.1, method=method, mesh=_mesh(num_devices)
  )
  rounded = np.asarray(embeddings, np.float64)
  expected = reference.nt_xent(rounded, temperature=0.1)
  # The inputs' rounding is in both; bfloat16 products would be off by 1e-2.
  _assert_close((value,), (expected,))
  expected_slope = reference.gradient(
      lambda t: reference.nt_xent(rounded, temperature=t), 0.1
  )
  _assert_close((slope,), (expected_slope,))
  assert gradient.dtype == jnp.bfloat16


@pytest.mark.parametrize("positive_prior", [0.0, 0.1])
@pytest.mark.parametrize(("method", "num_devices"), _FEW_PLACES)
def test_a_zero_embedding_is_alike_to_none(method, num_devices, positive_prior):
  embeddings = _embeddings()
  embeddings[3, 1] = 0.0
  value, gradient, slope = _value_and_gradients(
      embeddings,
      0.3,
      positive_prior=positive_prior,
      method=method,
      mesh=_mesh(num_devices),
  )

  def loss(others):
    # The zero stays: a step away from it is another direction.
    point = np.where(embeddings == 0, 0.0, others)
    return reference.nt_xent(
        point, temperature=0.3, positive_prior=positive_prior
    )

  # As with the other embeddings; the cosine 0 is exact.
  _assert_close((value,), (loss(embeddings),))
  expected = reference.gradient(loss, embeddings)
  _assert_close(
      (np.where(embeddings == 0, 0.0, gradient).astype(np.float32),),
      (expected,),
  )
  assert np.all(np.isfinite(gradient)) and np.isfinite(slope)


@pytest.mark.parametrize("positive_prior", [0.0, 0.1])
@pytest.mark.parametrize(("method", "num_devices"), _FEW_PLACES[1:])
def test_a_tiny_temperature_neither_overflows_nor_loses_a_row(
    method, num_devices, positive_prior
):
  case = {"embeddings": _embeddings(), "temperature": 1e-3}
  case["positive_prior"] = positive_prior
  actual = _value_and_gradients(**case, method=method, mesh=_mesh(num_devices))
  expected = _value_and_gradients(**case, method="global", mesh=_mesh(1))
  # Logits of 1000 are off by 1e-4 each.
  _assert_close(actual, expected, tolerance=1e-3)
  assert all(np.all(np.isfinite(part)) for part in actual)


@pytest.mark.parametrize(("method", "num_devices"), _FEW_PLACES)
def test_an_encoder_learns_through_every_method(method, num_devices):
  inputs = _embeddings(dim=4)
  kernel = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
  mesh = _mesh(num_devices)

  def loss(kernel, inputs):
    return contrastive.nt_xent(
        inputs @ kernel,
        temperature=0.3,
        method=method,
        mesh=mesh,
        tile_size=_TILE,
    )

  actual = jax.jit(jax.grad(loss))(
      jax.device_put(kernel, NamedSharding(mesh, P())),
      jax.device_put(inputs, NamedSharding(mesh, P("data"))),
  )
  expected = reference.gradient(
      lambda kernel: reference.nt_xent(inputs @ kernel, temperature=0.3), kernel
  )
  # Replicated parameters: a sum over devices counted twice would double it.
  _assert_close((actual,), (expected,))


def _compile(method, batch, num_devices=8, tile_size=64):
  mesh = _mesh(num_devices)
  split = NamedSharding(mesh, P("data"))
  loss = functools.partial(
      contrastive.nt_xent,
      temperature=0.1,
      method=method,
      mesh=mesh,
      tile_size=tile_size,
  )
  step = jax.jit(
      jax.value_and_grad(loss), in_shardings=split, out_shardings=(None, split)
  )
  return step.lower(jax.ShapeDtypeStruct((batch, 2, 64), jnp.float32)).compile()


def _memory(method, batch, **settings):
  compiled = _compile(method, batch, **settings)
  return compiled.memory_analysis().temp_size_in_bytes


def test_the_ring_needs_a_fraction_of_the_memory_of_all_logits():
  # All logits of a device at B = 8192 are 128 MiB, its vectors 0.5 MiB.
  assert _memory("ring", 8192) * 6 < _memory("global", 8192)


@pytest.mark.parametrize(("method", "num_devices"), [("tiled", 1), ("ring", 8)])
def test_memory_grows_with_the_batch_and_not_with_its_square(
    method, num_devices
):
  small, large = (
      _memory(method, batch, num_devices=num_devices)
      for batch in (16384, 65536)
  )
  # Four times the rows; all logits would take sixteen times.
  assert large < 4.4 * small


def test_the_next_block_is_sent_before_the_present_one_is_used():
  loop = _loop_with_messages(
      jax.make_jaxpr(
          functools.partial(
              contrastive.nt_xent, temperature=0.1, method="ring", mesh=_mesh(8)
          )
      )(_embeddings())
  )
  sent = [eqn for eqn in loop.eqns if eqn.primitive.name == "ppermute"]
  arrived = {var for eqn in sent for var in eqn.outvars}
  for eqn in loop.eqns:
    if eqn in sent:
      # What is sent lay there when the step began: nothing to wait for.
      assert set(eqn.invars) <= set(loop.invars)
    else:
      # What arrives is for the next step: nothing waits for it.
      used = [var for var in eqn.invars if not isinstance(var, Literal)]
      assert not arrived & set(used)
  assert arrived <= set(loop.outvars)


def _loop_with_messages(jaxpr):
  """The innermost program that has a ppermute of its own."""
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == "ppermute":
      return getattr(jaxpr, "jaxpr", jaxpr)
    for inner in jax.tree.leaves(
        list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
    ):
      if hasattr(inner, "eqns") and (found := _loop_with_messages(inner)):
        return found
  return None


@pytest.mark.parametrize(
    ("num_devices", "batch", "method"),
    [(1, 512, "global"), (1, 513, "tiled"), (8, 1448, "global")]
    + [(8, 1456, "ring"), (8, 4095, "global")],
)
def test_auto_goes_by_the_logits_of_a_device(num_devices, batch, method):
  # (2 * 1448)^2 / 8 is the last multiple of 8 below 1024^2.
  case = {"temperature": 0.1, "mesh": _mesh(num_devices)}
  rows = jax.ShapeDtypeStruct((batch, 2, 4), jnp.float32)
  programs = [
      str(
          jax.make_jaxpr(
              functools.partial(contrastive.nt_xent, method=name, **case)
          )(rows)
      )
      for name in ("auto", method)
  ]
  assert contrastive.choose_method(batch, num_devices) == method
  assert ("ppermute" in programs[0]) == ("ppermute" in programs[1])
  assert ("scan" in programs[0]) == ("scan" in programs[1])


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"method": "tilde"}, "method"),
        ({"method": "ring"}, "mesh"),
        ({"tile_size": 0}, "tile_size"),
        ({"method": "ring", "mesh": _mesh(4)}, "embeddings"),
        ({"axis": "rows", "mesh": _mesh(4)}, "axis"),
    ],
)
def test_settings_that_do_not_suit_are_named(settings, field):
  with pytest.raises(ValueError, match=f"^`{field}` must"):
    contrastive.nt_xent(jnp.ones((6, 2, 3)), temperature=0.1, **settings)
