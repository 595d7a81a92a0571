"""Workers load in order, and one bad item costs that item only."""

import functools
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from chain_jax import errors
from chain_jax.data import video_decoding
from chain_jax.data.video_completeness import VideoError
from chain_jax.data.video_decoding import DecodeFailure

pytest.importorskip("pebble", reason="workers need pebble, the extra [video]")


_HERE = pathlib.Path(__file__).parent
_ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{_HERE.parent}:{_HERE}"}


def _load(item, *, folder=None):
  """Does what the item says."""
  kind, value = item
  if folder is not None:
    (folder / f"{kind}-{value}").touch()
  if kind == "sleep":
    time.sleep(value)
  elif kind == "exit":
    os._exit(value)
  elif kind == "signal":
    os.kill(os.getpid(), value)
  elif kind == "video error":
    raise VideoError(value)
  elif kind == "input error":
    raise errors.InputError(value)
  elif kind == "os error":
    raise PermissionError(13, "Permission denied", value)
  elif kind == "memory":
    raise MemoryError
  elif kind == "bug":
    raise ZeroDivisionError(value)
  elif kind == "modules":
    return sorted(m for m in sys.modules if m.partition(".")[0] in value)
  return kind, value, os.getpid()


def _run(items, *, num_workers, timeout_seconds=30.0, load=_load):
  return list(
      video_decoding.decode_videos(
          load, items, num_workers=num_workers, timeout_seconds=timeout_seconds
      )
  )


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_results_come_in_order_with_their_items(num_workers):
  # The first takes longest.
  items = [("sleep", 0.3)] + [("sleep", 0.001 * i) for i in range(20)]
  results = _run(items, num_workers=num_workers)
  assert [item for item, _ in results] == items
  assert [result[:2] for _, result in results] == items
  workers = {result[2] for _, result in results}
  assert len(workers) == max(1, num_workers)
  assert (os.getpid() in workers) == (num_workers == 0)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_no_items_give_no_results(num_workers):
  assert _run([], num_workers=num_workers) == []


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_a_file_is_to_blame_for_is_its_own_failure(num_workers):
  items = [
      ("video error", "cut off"),
      ("fine", 1),
      ("os error", "a.mp4"),
      ("memory", 0),
      ("fine", 2),
      # PyAV raises all kinds of errors on files that it knows badly.
      ("bug", "not\n  known"),
  ]
  results = [result for _, result in _run(items, num_workers=num_workers)]
  assert results[0] == DecodeFailure("cut off")
  assert results[1][:2] == ("fine", 1) and results[4][:2] == ("fine", 2)
  denied = "cannot be read: PermissionError: Permission denied"
  assert results[2] == DecodeFailure(denied)
  assert results[3] == DecodeFailure("needs more memory than there is")
  odd = "cannot be read: ZeroDivisionError: not known"
  assert results[5] == DecodeFailure(odd)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_is_no_fault_of_a_file_ends_the_run(num_workers):
  with pytest.raises(errors.InputError, match="not here"):
    items = [("fine", 1), ("input error", "not here")]
    _run(items, num_workers=num_workers)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_crash_costs_the_crashing_item_only(num_workers):
  items = [("fine", i) for i in range(12)]
  items[2] = ("exit", 7)
  items[5] = ("signal", int(signal.SIGSEGV))
  items[11] = ("signal", int(signal.SIGKILL))
  results = _run(items, num_workers=num_workers)
  failures = {
      items.index(item): result.reason
      for item, result in results
      if isinstance(result, DecodeFailure)
  }
  assert failures == {
      2: "its decoder crashed: exit code 7",
      5: "its decoder crashed: SIGSEGV",
      11: "its decoder crashed: SIGKILL",
  }
  assert [item for item, _ in results] == items


def test_a_hanging_item_is_given_up_and_the_others_go_on():
  items = [("fine", 1), ("sleep", 60), ("fine", 2), ("fine", 3)]
  start = time.monotonic()
  results = _run(items, num_workers=1, timeout_seconds=0.5)
  assert time.monotonic() - start < 20
  assert results[1][1] == DecodeFailure("took longer than 0.5 s")
  assert [result[:2] for _, result in results[2:]] == items[2:]


def test_only_a_few_items_are_handed_out_ahead(tmp_path):
  taken = []
  items = (taken.append(i) or ("fine", i) for i in range(100))
  results = video_decoding.decode_videos(
      functools.partial(_load, folder=tmp_path),
      items,
      num_workers=2,
      timeout_seconds=30.0,
  )
  next(results)
  assert len(taken) <= 8
  results.close()
  assert len(list(tmp_path.iterdir())) <= 8


def test_leaving_early_ends_the_workers():
  results = video_decoding.decode_videos(
      _load,
      [("fine", 1)] + [("sleep", 60)] * 3,
      num_workers=1,
      timeout_seconds=90.0,
  )
  _, (_, _, worker) = next(results)
  results.close()
  assert not _is_alive(worker)


def test_workers_import_neither_jax_nor_tensorflow():
  heavy = (
      "jax",
      "jaxlib",
      "flax",
      "tensorflow",
      "tensorflow_datasets",
      "grain",
  )
  program = (
      "import functools, sys\n"
      "from chain_jax.data import video_decoding, videos\n"
      "def main():\n"
      "  load = functools.partial(videos.decode_video, num_frames=1,"
      " short_side=8)\n"
      "  import video_decoding_test as t\n"
      f"  for load, item in ((load, 'x.mp4'), (t._load, ('modules', {heavy}))):\n"
      "    print(list(video_decoding.decode_videos(load, [item],"
      " num_workers=1, timeout_seconds=60.0)))\n"
      "if __name__ == '__main__': main()\n"
  )
  done = subprocess.run(
      [sys.executable, "-c", program],
      capture_output=True,
      text=True,
      env=_ENVIRONMENT,
  )
  assert done.returncode == 0, done.stderr
  first, second = done.stdout.splitlines()
  assert "no such file" in first
  assert second.endswith(", [])]"), second


def test_a_pool_that_breaks_by_itself_is_replaced(monkeypatch):
  from pebble.pool import process as pebble_process

  real = pebble_process.PoolManager.find_expired_task
  broken = []

  def find(self, worker_id):
    if not broken:
      broken.append(worker_id)
      raise pebble_process.BrokenProcessPool("All workers expired")
    return real(self, worker_id)

  monkeypatch.setattr(pebble_process.PoolManager, "find_expired_task", find)
  items = [("fine", 0), ("fine", 1), ("exit", 3), ("fine", 2), ("fine", 3)]
  results = _run(items, num_workers=1)
  assert broken and [item for item, _ in results] == items
  assert results[2][1] == DecodeFailure("its decoder crashed: exit code 3")
  assert [r[:2] for _, r in results if r[0] == "fine"] == [
      item for item in items if item[0] == "fine"
  ]


def test_workers_that_cannot_start_end_the_run(monkeypatch):
  monkeypatch.setattr(
      video_decoding, "end_with_parent", functools.partial(os._exit, 1)
  )
  with pytest.raises(errors.RunError, match="worker processes ended 3 times"):
    _run([("fine", 1)], num_workers=1)


def test_without_pebble_the_error_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, "pebble", None)
  with pytest.raises(
      errors.InputError, match=r"pip install 'chain_jax\[video\]'"
  ):
    _run([("fine", 1)], num_workers=1)
  assert len(_run([("fine", 1)], num_workers=0)) == 1


_KILLED = """
import sys
from chain_jax.data import video_decoding
from video_decoding_test import _load
if __name__ == "__main__":
  items = [("fine", 1), ("fine", 2)] + [("sleep", 50)] * 4
  for _, result in video_decoding.decode_videos(
      _load, items, num_workers=1, timeout_seconds=90.0):
    print(result[2], flush=True)
"""


def _is_alive(process):
  if not pathlib.Path("/proc/self/stat").exists():
    pytest.skip("looks for processes in /proc")
  try:
    state = pathlib.Path(f"/proc/{process}/stat").read_text()
  except FileNotFoundError:
    return False
  return state.rpartition(")")[2].split()[0] != "Z"


def test_workers_of_a_killed_run_end_too(tmp_path):
  program = tmp_path / "program.py"
  program.write_text(_KILLED)
  run = subprocess.Popen(
      [sys.executable, str(program)],
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      env=_ENVIRONMENT,
      text=True,
  )
  worker = int(run.stdout.readline())
  assert int(run.stdout.readline()) == worker
  time.sleep(0.5)  # Now it sleeps in an item, deaf to the pool's pipes.
  run.kill()
  run.wait()
  run.stdout.close()  # Reading on would wait for the worker, which has it too.
  deadline = time.monotonic() + 10
  while _is_alive(worker):
    if time.monotonic() > deadline:
      os.kill(worker, signal.SIGKILL)
      pytest.fail("a worker lives on")
    time.sleep(0.1)
