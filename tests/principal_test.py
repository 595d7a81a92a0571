import numpy as np
import pytest

from chain_jax import principal


def _features(num_videos, dim):
  rng = np.random.default_rng(0)
  mixing = rng.normal(size=(dim, dim)) * np.linspace(1, 3, dim)
  return (rng.normal(size=(num_videos, dim)) @ mixing + 5).astype(np.float32)


@pytest.mark.parametrize("dense_size", [8, 1024])
@pytest.mark.parametrize(("num_videos", "dim"), [(200, 40), (40, 90)])
def test_directions_are_those_of_a_singular_value_decomposition(
    num_videos, dim, dense_size, monkeypatch
):
  monkeypatch.setattr(principal, "_BLOCK", 16)
  # The smaller one goes by Lanczos: 4 of 40 pairs.
  monkeypatch.setattr(principal, "_DENSE_SIZE", dense_size)
  features = _features(num_videos, dim)
  mean = features.mean(axis=0)
  values, directions = principal.principal_directions(features, mean, 4)
  _, singular, right = np.linalg.svd(
      np.float64(features) - mean, full_matrices=False
  )
  # Sums of float32 features, squared.
  np.testing.assert_allclose(values, singular[:4] ** 2, rtol=1e-5, strict=True)
  cosines = np.abs(np.sum(directions * right[:4].T, axis=0))
  np.testing.assert_allclose(cosines, np.ones(4), atol=1e-5, strict=True)
  np.testing.assert_allclose(
      np.linalg.norm(directions, axis=0), np.ones(4), atol=1e-6, strict=True
  )


def test_features_that_do_not_vary_have_finite_directions():
  features = np.ones((5, 9), np.float32)
  values, directions = principal.principal_directions(features, features[0], 2)
  assert values.tolist() == [0, 0]
  assert np.isfinite(directions).all()
