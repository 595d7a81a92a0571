import itertools
import pathlib

import h5py
import numpy as np
import pytest
import scipy.io

from chain_jax import baselines, codes, retrieval_metrics
from chain_jax.errors import InputError
from chain_jax.labels import Labels

_UCF101 = pathlib.Path(__file__).parents[2] / "shared/data/ucf101_vgg16"


def _features(num_videos, dim, *, rank=None, seed=0):
  rng = np.random.default_rng(seed)
  rank = rank or dim
  scales = 1.3 ** -np.arange(rank)
  left = rng.standard_normal((num_videos, rank)) * scales
  features = left @ rng.standard_normal((rank, dim)) + 3
  return features.astype(np.float32)


def test_codes_are_signs_of_centred_projections():
  linear_hash = baselines.LinearHash(
      np.array([1, 1], np.float32), np.array([[1, 0], [0, -2]], np.float32)
  )
  features = np.array([[2, 2], [0, 0], [1, 1]], np.float32)
  expected = np.array([[1, -1], [-1, 1], [1, 1]], np.int8)
  actual = baselines.apply_linear_hash(linear_hash, features)
  np.testing.assert_array_equal(actual, expected, strict=True)


def test_lsh_splits_by_angle():
  """Charikar: two vectors differ in a bit with probability angle / pi."""
  angle = np.pi / 5
  features = np.array([[1, 0], [np.cos(angle), np.sin(angle)]], np.float32)
  features = np.concatenate([features, -features])  # Their mean is 0.
  linear_hash = baselines.fit_lsh(features, num_bits=20_000, seed=0)
  signs = baselines.apply_linear_hash(linear_hash, features)
  # Standard error of 20,000 draws at p = .2: .0028; four of them.
  assert np.mean(signs[0] != signs[1]) == pytest.approx(0.2, abs=0.0113)


@pytest.mark.parametrize("fit", [baselines.fit_lsh, baselines.fit_itq])
def test_seed_decides_the_hash(fit):
  features = _features(50, 12)
  first, again, other = (
      fit(features, num_bits=8, seed=seed).projection for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(first, again, strict=True)
  assert not np.allclose(first, other)


@pytest.mark.parametrize(("num_videos", "dim"), [(200, 20), (30, 90)])
def test_itq_projects_onto_the_principal_directions(
    num_videos, dim, monkeypatch
):
  monkeypatch.setattr(baselines, "_BLOCK", 16)  # Of the projection.
  features = _features(num_videos, dim)
  linear_hash = baselines.fit_itq(features, num_bits=8, seed=0)
  centred = features.astype(np.float64) - features.mean(
      axis=0, dtype=np.float64
  )
  _, _, right = np.linalg.svd(centred, full_matrices=False)
  # float32 features and products: directions to 1e-4.
  np.testing.assert_allclose(
      linear_hash.projection.T @ linear_hash.projection,
      np.eye(8, dtype=np.float32),
      atol=1e-4,
      strict=True,
  )
  cosines = np.linalg.svd(right[:8] @ linear_hash.projection)[1]
  np.testing.assert_allclose(cosines, np.ones(8), atol=1e-4, strict=True)


def _quantisation_error(projected, rotation):
  rotated = projected @ rotation
  return np.square(np.where(rotated >= 0, 1, -1) - rotated).sum()


def test_each_iteration_of_itq_lowers_the_quantisation_error():
  projected = np.random.default_rng(0).standard_normal((300, 6))
  errors = [
      _quantisation_error(
          projected,
          baselines._fit_rotation(projected, seed=0, num_iterations=steps),
      )
      for steps in (0, 1, 2, 5, 20, 50)
  ]
  assert all(b <= a for a, b in itertools.pairwise(errors))
  assert errors[-1] < 0.99 * errors[0]


def test_itq_finds_the_rotation_that_makes_signs():
  rng = np.random.default_rng(0)
  signs = rng.choice([-1.0, 1.0], (400, 3))
  turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
  rotation = baselines._fit_rotation(signs @ turn, seed=1, num_iterations=50)
  error = _quantisation_error(signs @ turn, rotation)
  # The cube's corners are found exactly, up to float64 rounding of 1200 terms.
  assert error < 1e-20


def test_more_bits_than_directions_are_refused():
  with pytest.raises(InputError, match=r"min\(n - 1, dim\) = 9 .* got 16; use"):
    baselines.fit_itq(_features(10, 40), num_bits=16, seed=0)


@pytest.mark.parametrize(("num_videos", "dim"), [(100, 20), (20, 100)])
def test_features_of_lower_rank_than_bits_are_refused(num_videos, dim):
  features = _features(num_videos, dim, rank=4)
  with pytest.raises(InputError, match="span fewer"):
    baselines.fit_itq(features, num_bits=16, seed=0)


@pytest.mark.parametrize("fit", [baselines.fit_lsh, baselines.fit_itq])
def test_nan_features_are_refused(fit):
  features = _features(50, 12)
  features[3, 4] = np.nan
  with pytest.raises(InputError, match="must be finite"):
    fit(features, num_bits=8, seed=0)


def _ucf101(split):
  with h5py.File(_UCF101 / f"ucf_{split}_feats.h5") as file:
    pooled = file["feats"][:].astype(np.float32).mean(axis=1)
  pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
  matrix = scipy.io.loadmat(_UCF101 / f"ucf_{split}_labels.mat")["labels"]
  return pooled, Labels.from_matrix(matrix)


@pytest.mark.skipif(
    not _UCF101.is_dir(), reason=f"needs the real features in {_UCF101}"
)
@pytest.mark.slow
def test_baselines_reach_the_known_map_on_real_features():
  train, query = _ucf101("train"), _ucf101("test")
  # Measured apart from this package, mean of 5 seeds: mAP@5, @20, @100.
  for fit, known in (
      (baselines.fit_itq, (0.837, 0.769, 0.452)),
      (baselines.fit_lsh, (0.625, 0.502, 0.266)),
  ):
    scores = []
    for seed in range(2):
      linear_hash = fit(train[0], num_bits=64, seed=seed)
      sets = [
          codes.CodeSet(
              codes.pack_bits(baselines.apply_linear_hash(linear_hash, pooled)),
              np.array([f"{name} {i}" for i in range(len(pooled))]),
              labels,
              {},
          )
          for name, (pooled, labels) in (("q", query), ("g", train))
      ]
      result = retrieval_metrics.evaluate_codes(*sets)["map_at_k"]
      scores.append([result[k] for k in ("5", "20", "100")])
    # Seeds differ by .01 to .02 in standard deviation; a broken step by .1.
    np.testing.assert_allclose(
        np.mean(scores, axis=0), np.array(known), atol=0.05, strict=True
    )
