"""Whole runs whose codes have detail bits."""

import numpy as np
import pytest
import tiny

from chain_jax import codes, errors, run
from chain_jax.data import detail_bits, pooling
from chain_jax.data import splits as splits_lib


def _config(**changes):
  # A view shows all 8 stored frames.
  settings = {"model__detail_share": 0.5, "data__num_frames": 8}
  return tiny.tiny_config(
      **settings | {"evaluation__baseline_videos": 0} | changes
  )


def _means(source):
  return pooling.pooled_features(source, l2_normalise=False)


def test_detail_bits_are_those_fitted_to_the_train_videos(tmp_path):
  config = _config()
  run.run(config, path=str(tmp_path), mode="train")
  splits = splits_lib.make_splits(config.data, seed=0)
  train, gallery = _means(splits.train), _means(splits.gallery)
  frames = np.concatenate(
      [splits.train.read_frames(video) for video in range(len(splits.train))]
  )
  # Centred, and divided by one number.
  scale = 1 / np.sqrt(np.mean(np.var(frames, axis=0, dtype=np.float64)))
  centred = ((rows - frames.mean(axis=0)) * scale for rows in (train, gallery))
  train, gallery = (rows.astype(np.float32) for rows in centred)
  fitted = detail_bits.fit_detail_directions(train, num_bits=8)
  projections = gallery @ fitted.directions - fitted.offsets
  exported = codes.read_code_directory(str(tmp_path / "codes/gallery"))
  bits = codes.unpack_bits(exported.packed)[:, 8:]
  # The order of float32 sums may turn a bit at its threshold.
  is_clear = np.abs(projections) > 1e-3
  assert is_clear.mean() > 0.95
  np.testing.assert_array_equal(bits[is_clear], np.sign(projections[is_clear]))


def test_too_few_train_videos_are_refused_before_training(tmp_path):
  config = _config(data__synthetic__num_train=16, train__batch_size=8)
  with pytest.raises(errors.InputError, match="model.detail_share.*got 16"):
    run.run(config, path=str(tmp_path), mode="train")
