"""Long work says how far it is; short work says nothing."""

import contextlib
import errno
import io
import sys

import pytest

from chain_jax import progress


def test_a_bar_counts_units_and_ends_at_the_total(monkeypatch, capsys):
  monkeypatch.setattr(progress, "_DELAY_SECONDS", 0.0)
  monkeypatch.setattr(progress, "_LOG_SECONDS", 0.0)
  passed = progress.track(
      ["a", "b", "c"], total=10, what="export", unit="videos", size=4
  )
  assert list(passed) == ["a", "b", "c"]
  shown = capsys.readouterr().err
  # Pieces of 4, 4 and 2, and the time left behind "<".
  for part in ("export", "4/10", "8/10", "10/10", "<", "videos/s"):
    assert part in shown


def test_work_of_a_moment_and_other_processes_show_nothing(monkeypatch, capsys):
  assert list(progress.track([1, 2], total=2, what="short")) == [1, 2]
  monkeypatch.setattr(progress, "_DELAY_SECONDS", 0.0)
  list(progress.track([1, 2], total=2, what="other", shown=False))
  assert capsys.readouterr().err == ""


class _FullDisk(io.StringIO):

  def write(self, text):
    raise OSError(errno.ENOSPC, "No space left on device")


def _closed():
  stream = io.StringIO()
  stream.close()
  return stream


@pytest.mark.parametrize("stream", [None, _closed(), _FullDisk()])
def test_a_bar_that_nobody_can_see_ends_no_work(monkeypatch, stream):
  monkeypatch.setattr(progress, "_DELAY_SECONDS", 1e-9)
  monkeypatch.setattr(progress, "_LOG_SECONDS", 0.0)
  with contextlib.ExitStack() as changed:
    monkeypatch.setattr(sys, "stderr", stream)
    changed.callback(monkeypatch.undo)
    assert list(progress.track("abc", total=3, what="export")) == list("abc")


@pytest.mark.parametrize(
    "seconds, expected", [(0.4, "0:00"), (59.6, "1:00"), (3599.0, "59:59")]
)
def test_durations_round_to_whole_seconds(seconds, expected):
  assert progress.format_seconds(seconds) == expected


@pytest.mark.parametrize(
    ("utilisation", "shown"), [(None, ""), (0.406, "  MFU 41%")]
)
def test_progress_tells_the_time_left_from_the_speed_so_far(
    monkeypatch, utilisation, shown
):
  clock = iter([100.0, 110.0])
  monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
  counter = progress.Progress(start_step=20, num_steps=100)
  line = counter.line(
      40,
      loss=1.5,
      videos_per_second=64.0,
      input_wait_share=0.034,
      utilisation=utilisation,
  )
  # 20 steps took 10 s, so the other 60 take 30 s.
  assert (
      line
      == f"step 40/100  loss 1.5000  64 videos/s{shown}  input 3%  ETA 0:30"
  )
