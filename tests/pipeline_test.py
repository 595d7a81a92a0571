"""The stream of batches: the step is its whole state."""

import functools
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from chain_jax import errors
from chain_jax.data import augment, pipeline, synthetic

_NUM_VIDEOS, _BATCH = 22, 8


@pytest.fixture(scope="module")
def source():
  world = synthetic.make_world(
      num_appearances=2,
      num_patterns=2,
      num_frames=8,
      feature_dim=4,
      difficulty=1.0,
      seed=0,
  )
  return synthetic.SyntheticSource(world, split="train", num_videos=_NUM_VIDEOS)


_make_views = functools.partial(
    augment.make_views,
    num_frames=6,
    sampling="segments",
    crop_fraction=(0.5, 1.0),
    playback_rate=(0.5, 2.0),
    noise_std=0.1,
    dropout_rate=0.1,
    mix_max=0.2,
)


def _batches(source, steps, *, seed=0, **settings):
  plan = pipeline.TrainingPlan(len(source), batch_size=_BATCH, seed=seed)
  with pipeline.make_training_batches(
      source, plan, seed=seed, steps=steps, make_views=_make_views, **settings
  ) as iterator:
    return list(iterator)


def _assert_same(actual, expected):
  assert len(actual) == len(expected)
  for one, other in zip(actual, expected, strict=True):
    for left, right in zip(one, other, strict=True):
      np.testing.assert_array_equal(left, right, strict=True)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("num_hosts", [1, 2, 4])
def test_global_batches_do_not_depend_on_hosts_and_workers(
    source, num_hosts, num_workers
):
  expected = _batches(source, range(5))
  by_host = [
      _batches(
          source,
          range(5),
          host=host,
          num_hosts=num_hosts,
          num_workers=num_workers,
      )
      for host in range(num_hosts)
  ]
  joined = [
      pipeline.Batch(*map(np.concatenate, zip(*rows, strict=True)))
      for rows in zip(*by_host, strict=True)
  ]
  _assert_same(joined, expected)


@pytest.mark.parametrize("step", range(6))
def test_a_restart_at_any_step_continues_the_stream(source, step):
  expected = _batches(source, range(6))
  _assert_same(_batches(source, range(step, 6)), expected[step:])


def test_every_epoch_is_another_permutation_and_no_batch_repeats_a_video():
  plan = pipeline.TrainingPlan(_NUM_VIDEOS, batch_size=_BATCH, seed=0)
  assert plan.steps_per_epoch == 2
  epochs = [
      np.concatenate([plan.videos(2 * epoch), plan.videos(2 * epoch + 1)])
      for epoch in range(40)
  ]
  for epoch in epochs:
    assert len(set(epoch.tolist())) == 16
  assert len({tuple(epoch) for epoch in epochs}) == 40
  # 6 of 22 videos sit out an epoch, never the same ones for 40 epochs.
  assert set(np.concatenate(epochs).tolist()) == set(range(_NUM_VIDEOS))


def test_the_seed_decides_videos_and_views(source):
  first, other = _batches(source, range(1)), _batches(source, range(1), seed=1)
  assert not np.array_equal(first[0].videos, other[0].videos)
  _assert_same(_batches(source, range(1)), first)


def test_a_video_gets_new_views_in_every_epoch(source):
  seen = {}
  for batch in _batches(source, range(8)):
    for video, views in zip(batch.videos, batch.views, strict=True):
      seen.setdefault(int(video), []).append(views)
  twice = [views for views in seen.values() if len(views) > 1]
  assert twice and not any(
      np.array_equal(views[0], views[1]) for views in twice
  )


def test_a_batch_larger_than_the_set_is_refused():
  with pytest.raises(errors.InputError, match=r"`train.batch_size`.* try 16"):
    pipeline.TrainingPlan(_NUM_VIDEOS, batch_size=32, seed=0)


def test_hosts_that_do_not_divide_the_batch_are_refused(source):
  with pytest.raises(errors.InputError, match="multiple of the 3 hosts"):
    _batches(source, range(1), num_hosts=3)


@pytest.mark.parametrize("batch_size", [4, 22, 32])
def test_export_visits_every_video_once_in_order(source, batch_size):
  with pipeline.make_export_batches(
      source, batch_size=batch_size, num_frames=8
  ) as iterator:
    batches = list(iterator)
  videos = np.concatenate([batch.videos for batch in batches])
  expected = np.arange(_NUM_VIDEOS, dtype=np.int32)
  np.testing.assert_array_equal(videos[:_NUM_VIDEOS], expected, strict=True)
  assert {batch.views.shape for batch in batches} == {(batch_size, 1, 8, 4)}
  np.testing.assert_array_equal(
      batches[0].views[2, 0], source.read_frames(2), strict=True
  )


class _Damaged:
  """A source whose video 3 cannot be read."""

  ids = np.array([f"video-{i}" for i in range(_NUM_VIDEOS)])
  labels = None
  feature_dim = 4

  def __len__(self):
    return _NUM_VIDEOS

  def read_frames(self, video):
    if video == 3:
      raise errors.InputError("set.h5: row 3 must be finite, got nan.")
    return np.ones((8, 4), np.float32)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_row_ends_the_stream_with_its_own_error(num_workers):
  with pytest.raises(errors.InputError, match="row 3 must be finite"):
    _batches(_Damaged(), range(20), num_workers=num_workers)


_KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from absl import flags
import numpy as np
from array_source import EQUAL, ArraySource, random_videos
from chain_jax.data import pipeline
flags.FLAGS.mark_as_parsed()
if __name__ == "__main__":
  source = ArraySource(random_videos(EQUAL))
  batches = pipeline.make_export_batches(
      source, batch_size=1, num_frames=2, num_workers=1)
  with batches as iterator:
    next(iterator)
    import multiprocessing
    print(*(child.pid for child in multiprocessing.active_children()))
    sys.stdout.flush()
    time.sleep(60)
"""


def test_workers_of_a_killed_run_end_too(tmp_path):
  program = tmp_path / "program.py"
  program.write_text(_KILLED)
  run = subprocess.Popen(
      [sys.executable, str(program), str(pathlib.Path(__file__).parent)],
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
  )
  workers = [int(word) for word in run.stdout.readline().split()]
  assert workers
  run.kill()
  run.communicate()
  deadline = time.monotonic() + 20
  while any(pathlib.Path(f"/proc/{worker}").exists() for worker in workers):
    assert time.monotonic() < deadline, "a worker lives on"
    time.sleep(0.1)
