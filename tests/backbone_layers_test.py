"""Convolution, pooling and preprocessing, each by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_backbones as reference

from chain_jax.models.backbones import layers, preprocessing


def test_preprocessing_maps_known_pixels():
  pixel = jnp.array([255, 0, 51], jnp.uint8).reshape(1, 1, 1, 3)
  caffe = preprocessing.preprocess(pixel, preprocessing.CAFFE)
  torchvision = preprocessing.preprocess(pixel, preprocessing.TORCHVISION)
  # By hand: 51 - 103.939, 0 - 116.779, 255 - 123.68: blue comes first.
  np.testing.assert_allclose(
      np.asarray(caffe).ravel(),
      np.float32([-52.939, -116.779, 131.32]),
      rtol=1e-6,  # One rounding each.
      strict=True,
  )
  # (1 - .485) / .229, (0 - .456) / .224, (.2 - .406) / .225
  np.testing.assert_allclose(
      np.asarray(torchvision).ravel(),
      np.float32([2.2489083, -2.0357143, -0.9155556]),
      rtol=1e-6,
      strict=True,
  )


@pytest.mark.parametrize(
    ("size", "stride", "padding"), [(3, 2, 0), (2, 2, 0), (3, 2, 1), (3, 1, 1)]
)
@pytest.mark.parametrize("height", [6, 7])
def test_max_pool_takes_the_greatest_of_each_whole_window(
    size, stride, padding, height
):
  maps = np.random.default_rng(0).normal(size=(2, height, 9, 3)) - 5
  maps = maps.astype(np.float32)  # Below 0: zeros as padding would show.
  expected = reference.max_pool(
      maps.transpose(0, 3, 1, 2), size, stride, padding
  )
  actual = layers.max_pool(
      jnp.asarray(maps), size=size, stride=stride, padding=padding
  )
  np.testing.assert_array_equal(
      np.asarray(actual), expected.transpose(0, 2, 3, 1), strict=True
  )


@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [(1, 1, 0), (1, 2, 0), (1, 1, 1), (3, 2, 0), (3, 1, 1)],
)
def test_convolution_agrees_with_loops_in_float64(size, stride, padding):
  rng = np.random.default_rng(0)
  maps = rng.normal(size=(2, 7, 8, 3)).astype(np.float32)
  layer = layers.convolution(
      5, size, stride=stride, padding=padding, name="layer"
  )
  kernel = rng.normal(size=(5, 3, size, size)).astype(np.float32)
  params = {"kernel": kernel.transpose(2, 3, 1, 0), "bias": np.arange(5.0)}
  variables = {"params": jax.tree.map(jnp.float32, params)}
  expected = reference.convolve(
      maps.transpose(0, 3, 1, 2),
      kernel,
      np.arange(5.0),
      stride=stride,
      padding=padding,
  )
  np.testing.assert_allclose(
      np.asarray(jax.jit(layer.apply)(variables, jnp.asarray(maps))),
      expected.transpose(0, 2, 3, 1).astype(np.float32),
      rtol=1e-5,
      atol=1e-5,  # Sums of 27 float32.
      strict=True,
  )
