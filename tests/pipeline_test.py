"""The stream of batches: the step is its whole state."""

import functools
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from array_source import ArraySource, random_videos

from chain_jax import errors
from chain_jax.data import frame_sampling, pipeline, records, synthetic
from chain_jax.data.neighbour_plan import NeighbourPlan
from chain_jax.data.training_plan import TrainingPlan

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


_VIEWS = frame_sampling.ViewSettings(
    num_frames=6,
    sampling="segments",
    crop_fraction=(0.5, 1.0),
    playback_rate=(0.5, 2.0),
)


def _neighbour_plan():
  """Of each batch half is drawn; any two videos may be neighbours."""
  rng = np.random.default_rng(0)
  return NeighbourPlan(
      TrainingPlan(_NUM_VIDEOS, batch_size=_BATCH // 2, seed=0),
      batch_size=_BATCH,
      seed=0,
      neighbours=rng.integers(_NUM_VIDEOS, size=(_NUM_VIDEOS, 5), dtype="i4"),
      weights=rng.random((_NUM_VIDEOS, 5), np.float32),
  )


def _batches(source, steps, *, seed=0, plan=None, **settings):
  plan = plan or TrainingPlan(len(source), batch_size=_BATCH, seed=seed)
  with pipeline.make_training_batches(
      source, plan, seed=seed, steps=steps, views=_VIEWS, **settings
  ) as iterator:
    return list(iterator)


def _assert_same(actual, expected):
  same = functools.partial(np.testing.assert_array_equal, strict=True)
  assert len(actual) == len(expected)
  for one, other in zip(actual, expected, strict=True):
    jax.tree.map(same, one, other)


def _from_hosts(source, steps, *, num_hosts, **settings):
  """Puts each global batch together from all hosts' rows."""
  by_host = [
      _batches(source, steps, host=host, num_hosts=num_hosts, **settings)
      for host in range(num_hosts)
  ]
  return [
      jax.tree.map(lambda *parts: np.concatenate(parts), *rows)
      for rows in zip(*by_host, strict=True)
  ]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("num_hosts", [1, 2, 4])
def test_global_batches_do_not_depend_on_hosts_and_workers(
    source, num_hosts, num_workers
):
  joined = _from_hosts(
      source, range(5), num_hosts=num_hosts, num_workers=num_workers
  )
  _assert_same(joined, _batches(source, range(5)))


@pytest.mark.parametrize("num_hosts, num_workers", [(1, 2), (4, 0)])
def test_neighbours_in_a_batch_do_not_depend_on_hosts_and_workers(
    source, num_hosts, num_workers
):
  expected = _batches(source, range(5), plan=_neighbour_plan())
  for step, batch in enumerate(expected):
    jax.tree.map(
        np.testing.assert_array_equal,
        batch.neighbours,
        _neighbour_plan().neighbours(step),
    )
  joined = _from_hosts(
      source,
      range(5),
      num_hosts=num_hosts,
      num_workers=num_workers,
      plan=_neighbour_plan(),
  )
  _assert_same(joined, expected)


@pytest.mark.parametrize("step", range(6))
def test_a_restart_at_any_step_continues_the_stream(source, step):
  expected = _batches(source, range(6))
  _assert_same(_batches(source, range(step, 6)), expected[step:])


@pytest.mark.parametrize("rows", [slice(0, 3), slice(3, 8)])
def test_draws_of_some_rows_are_those_of_the_whole_batch(rows):
  settings = {"seed": 5, "step": 7, "num_frames": 6}
  whole = pipeline.draw_views(first_row=0, num_rows=8, **settings)
  part = pipeline.draw_views(
      first_row=rows.start, num_rows=rows.stop - rows.start, **settings
  )
  np.testing.assert_array_equal(part, whole[rows], strict=True)


def test_draws_are_uniform_and_never_the_same_twice():
  draws = np.concatenate(
      [
          pipeline.draw_views(
              seed=seed, step=step, first_row=0, num_rows=64, num_frames=6
          )
          for seed, step in [(0, 0), (0, 1), (1, 0), (2**63, 0), (-1, 0)]
      ]
  )
  assert draws.shape == (320, 2, 12) and draws.dtype == np.float32
  # 7,680 draws of 2^24 values: 1.8 pairs are expected to agree by chance.
  assert draws.size - len(np.unique(draws)) < 12
  counts = np.bincount((draws.ravel() * 16).astype(int), minlength=16)
  # 480 a bin: chi-square with 15 degrees of freedom exceeds 45 once in 10^4.
  assert np.sum((counts - 480) ** 2 / 480) < 45
  correlation = np.corrcoef(draws.reshape(320, 24).T) - np.eye(24)
  # 1 / sqrt(320) = .056 is one standard deviation; 276 pairs stay within 5.
  assert np.abs(correlation).max() < 0.28


def test_every_epoch_is_another_permutation_and_no_batch_repeats_a_video():
  plan = TrainingPlan(_NUM_VIDEOS, batch_size=_BATCH, seed=0)
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
    for video, views in zip(batch.videos, batch.frames, strict=True):
      seen.setdefault(int(video), []).append(views)
  twice = [views for views in seen.values() if len(views) > 1]
  assert twice and not any(
      np.array_equal(views[0], views[1]) for views in twice
  )


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float64])
def test_batches_hold_frames_as_stored_and_0_in_padding(dtype):
  videos = [np.full((3, 4), row + 1).astype(dtype) for row in range(8)]
  (batch,) = _batches(ArraySource(videos), range(1))
  wanted = np.float32 if dtype == np.float64 else dtype
  assert batch.frames.dtype == wanted and batch.frames.shape == (8, 2, 6, 4)
  shown = np.repeat(batch.videos + 1, 12).reshape(8, 2, 6)
  shown = np.where(batch.frame_mask, shown, 0)
  np.testing.assert_array_equal(batch.frames[..., 0], shown)
  assert not batch.frame_mask.all()


def test_a_view_shows_one_stored_variant_and_any_of_them():
  # Variant v of frame t holds 100 v + t + 1.
  frames = np.arange(6)[:, None] + 100 * np.arange(3) + 1
  videos = [np.repeat(frames[:, :, None], 4, axis=2).astype(np.float32)] * 8
  pairs = np.zeros((3, 3))
  for batch in _batches(ArraySource(videos), range(120)):
    variants = batch.frames[..., 0] // 100
    variants = np.where(batch.frame_mask, variants, variants[:, :, :1])
    assert np.all(variants == variants[:, :, :1])
    np.add.at(pairs, tuple(variants[:, :, 0].T.astype(int)), 1)
  # 960 videos, 9 cells: chi-square with 8 degrees of freedom exceeds 32 once
  # in 10^4; the views are drawn independently, so all pairs are as likely.
  assert np.sum((pairs - 960 / 9) ** 2 / (960 / 9)) < 32


def test_a_batch_larger_than_the_set_is_refused():
  with pytest.raises(errors.InputError, match=r"`train.batch_size`.* try 16"):
    TrainingPlan(_NUM_VIDEOS, batch_size=32, seed=0)


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
  assert {batch.frames.shape for batch in batches} == {(batch_size, 1, 8, 4)}
  np.testing.assert_array_equal(
      batches[0].frames[2, 0], source.read_frames(2), strict=True
  )


class _Damaged:
  """A source whose video 3 cannot be read."""

  ids = np.array([f"video-{i}" for i in range(_NUM_VIDEOS)])
  labels = None
  feature_dim = 4
  num_frames = np.full(_NUM_VIDEOS, 8, np.int32)
  num_variants = 1
  dtype = np.dtype(np.float32)
  scaling = records.IDENTITY
  shard_starts = np.array([0, _NUM_VIDEOS])

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


class _Slow(ArraySource):

  def read_frames(self, video):
    time.sleep(0.02)
    return super().read_frames(video)


@pytest.mark.parametrize("worker", [0, 1])
def test_a_killed_worker_is_one_line(worker):
  batches = pipeline.make_export_batches(
      _Slow(random_videos([(3, 4)] * 400)),
      batch_size=1,
      num_frames=2,
      num_workers=2,
  )
  with batches as iterator:
    next(iterator)
    children = multiprocessing.active_children()
    os.kill(children[worker].pid, signal.SIGKILL)
    with pytest.raises(errors.RunError, match="killed or crashed") as caught:
      list(iterator)
  line = str(caught.value)
  assert "exit code -9" in line and "`data.num_workers`" in line


_KILLED = """
import multiprocessing, sys, time
sys.path.insert(0, sys.argv[1])
from absl import flags
import numpy as np
from array_source import EQUAL, ArraySource, random_videos
from chain_jax.data import pipeline
flags.FLAGS.mark_as_parsed()

class Stuck(ArraySource):
  def read_frames(self, video):
    if video:  # A worker at work does not notice by itself that it is alone.
      time.sleep(60)
    return super().read_frames(video)

if __name__ == "__main__":
  batches = pipeline.make_export_batches(
      Stuck(random_videos(EQUAL)), batch_size=1, num_frames=2, num_workers=1)
  with batches as iterator:
    next(iterator)
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
  run.wait()
  run.stdout.close()  # Not read to its end: a worker alive keeps it open.
  deadline = time.monotonic() + 15
  try:
    while any(map(_runs, workers)):
      assert time.monotonic() < deadline, "a worker lives on"
      time.sleep(0.1)
  finally:
    for worker in filter(_runs, workers):
      os.kill(worker, signal.SIGKILL)


def _runs(process):
  return pathlib.Path(f"/proc/{process}").exists()
