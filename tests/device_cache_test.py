"""A split on the devices: the host's videos, and views like the host's."""

import jax
import numpy as np
import pytest
from array_source import ArraySource

from chain_jax import device_cache, sharding
from chain_jax.data import frame_sampling, pipeline
from chain_jax.data.training_plan import TrainingPlan
from chain_jax.errors import InputError

_LENGTHS = [9, 3, 1, 12, 9, 7, 20, 2, 9, 9, 5, 30, 4]
_VIEWS = frame_sampling.ViewSettings(
    num_frames=6, crop_fraction=(0.4, 1.0), playback_rate=(0.5, 2.0)
)


def _numbered(dtype=np.uint8, num_variants=None):
  """Frame t of video v holds v + 1 in dimension 0, t + 1 in dimension 1.

  With variants, dimension 2 holds the variant.
  """
  videos = []
  for video, length in enumerate(_LENGTHS):
    frames = np.zeros((length, num_variants or 1, 3), dtype)
    frames[..., 0] = video + 1
    frames[..., 1] = np.arange(length)[:, None] + 1
    frames[..., 2] = np.arange(num_variants or 1)
    videos.append(frames if num_variants else frames[:, 0])
  return ArraySource(videos)


def _mesh(num_devices):
  return sharding.make_mesh(jax.devices()[:num_devices])


def _batches(source, mesh, steps, *, seed=0):
  plan = TrainingPlan(len(source), batch_size=8, seed=seed)
  cache = device_cache.fill(source, mesh)
  return list(
      device_cache.make_batches(
          cache, plan, mesh, seed=seed, steps=steps, views=_VIEWS
      )
  )


def _give_memory(monkeypatch, num_bytes):
  monkeypatch.setattr(
      device_cache, "_memory_per_device", lambda mesh: num_bytes
  )


# 13 videos of 30 x 3 bytes, padded: 1,170. A quarter of the first, not of the
# second.
@pytest.fixture(params=[10**5, 4000], ids=["copies", "parts"])
def memory(request, monkeypatch):
  _give_memory(monkeypatch, request.param)


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_batches_hold_the_host_pipelines_videos_on_any_devices(
    num_devices, memory
):
  source = _numbered()
  batches = _batches(source, _mesh(num_devices), range(4))
  expected = _batches(source, _mesh(1), range(4))
  plan = TrainingPlan(len(source), batch_size=8, seed=0)
  for step, (batch, same) in enumerate(zip(batches, expected, strict=True)):
    assert batch.frames.dtype == np.uint8
    assert len(batch.frames.sharding.device_set) == num_devices
    np.testing.assert_array_equal(
        batch.videos, plan.videos(step).astype(np.int32), strict=True
    )
    jax.tree.map(np.testing.assert_array_equal, batch, same)


def test_every_view_shows_frames_of_its_video_in_order(memory):
  for batch in _batches(_numbered(), _mesh(8), range(20)):
    frames, mask, videos, _ = jax.device_get(batch)
    assert np.all(frames[~mask] == 0)
    for row, video in enumerate(videos):
      for view in range(2):
        shown = frames[row, view][mask[row, view]].astype(int)
        assert np.all(shown[:, 0] == video + 1)
        assert np.all(np.diff(shown[:, 1]) > 0)
        assert 1 <= shown[0, 1] and shown[-1, 1] <= _LENGTHS[video]


def test_a_restart_at_any_step_continues_the_stream():
  source, mesh = _numbered(), _mesh(2)
  expected = _batches(source, mesh, range(5))
  for start in (0, 3):
    for batch, same in zip(
        _batches(source, mesh, range(start, 5)), expected[start:], strict=True
    ):
      jax.tree.map(np.testing.assert_array_equal, batch, same)


def _statistics(batches):
  """How long views are, and where they start and how far they reach."""
  rows = []
  for batch in batches:
    frames, mask = jax.device_get((batch.frames, batch.frame_mask))
    shown = frames[..., 1].astype(float)
    last = np.max(np.where(mask, shown, 0), axis=-1)
    rows.append(np.stack([mask.sum(axis=-1), shown[..., 0], last], axis=-1))
  return np.concatenate(rows).reshape(-1, 2, 3)


def test_views_have_the_statistics_of_the_host_pipelines():
  source = ArraySource(_numbered().videos[-2:-1] * 8)  # 30 frames each.
  on_devices = _statistics(_batches(source, _mesh(1), range(150)))
  plan = TrainingPlan(8, batch_size=8, seed=0)
  with pipeline.make_training_batches(
      source, plan, seed=0, steps=range(150), views=_VIEWS
  ) as batches:
    on_host = _statistics(batches)
  pooled = on_host.reshape(-1, 3).std(axis=0) * np.sqrt(2 / 2400)
  difference = on_devices.mean(axis=(0, 1)) - on_host.mean(axis=(0, 1))
  # Means of 2,400 views each: within 5 standard errors of the difference.
  assert np.all(np.abs(difference) < 5 * pooled)
  spread = on_devices.std(axis=(0, 1)) / on_host.std(axis=(0, 1))
  np.testing.assert_allclose(spread, np.ones(3), atol=0.1)
  # The two views of a video are independent: 1 / sqrt(1200) = .029.
  both = np.corrcoef(on_devices[:, 0, 1], on_devices[:, 1, 1])[0, 1]
  assert abs(both) < 0.145


def test_a_view_shows_one_stored_variant_and_any_of_them(memory):
  pairs = np.zeros((3, 3))
  for batch in _batches(_numbered(num_variants=3), _mesh(2), range(120)):
    frames, mask = jax.device_get((batch.frames, batch.frame_mask))
    variants = frames[..., 2]
    first = variants[:, :, :1]
    assert np.all((variants == first) | ~mask)
    np.add.at(pairs, tuple(first[..., 0].T), 1)
  # 960 videos, 9 cells: chi-square with 8 degrees of freedom exceeds 32 once
  # in 10^4; the views are drawn independently, so all pairs are as likely.
  assert np.sum((pairs - 960 / 9) ** 2 / (960 / 9)) < 32


def test_float64_becomes_float32_and_other_dtypes_stay():
  for dtype, wanted in (("f8", "f4"), ("f4", "f4"), ("f2", "f2")):
    cache = device_cache.fill(_numbered(dtype), _mesh(1))
    assert cache.frames.dtype == wanted


def test_a_split_too_large_for_the_devices_is_refused(monkeypatch):
  _give_memory(monkeypatch, 1000)
  device_cache.fill(_numbered(), _mesh(2))  # 1,170 bytes in two parts.
  with pytest.raises(InputError, match=r"`data\.cache_on_device`.* 1 devices"):
    device_cache.fill(_numbered(), _mesh(1))
