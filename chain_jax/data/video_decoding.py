"""Decodes many videos in processes: a bad file costs one video, not the run.

A decoder is C code that reads what strangers made: it may hang, fill the
memory or crash. So it works in processes of its own, with a time limit.
"""

import collections
import concurrent.futures.process
import itertools
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from chain_jax import errors
from chain_jax.data.video_completeness import VideoError
from chain_jax.parent_process import end_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items handed out at a time, a worker. More would fill the memory with results
# that wait for a slow video before them, fewer would let workers wait.
_LOOKAHEAD = 3
# A pool can break for reasons of its own, such as a worker that the system
# kills while it has nothing to do. Its items then get this many new pools.
_MAX_NEW_POOLS = 3


class DecodeFailure(NamedTuple):
  """Stands in for the result of an item that could not be loaded."""

  reason: str


def decode_videos(
    load: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    num_workers: int,
    timeout_seconds: float,
) -> Iterator[tuple[Item, Result | DecodeFailure]]:
  """Loads items in worker processes.

  Workers import the module of `load`, and, as every spawned process, the main
  module of the program: keep jax out of both.

  Args:
    load: Picklable. Whatever it raises, or that its process crashes, is the
      item's failure, but for the errors of `chain_jax.errors`: those are
      raised here.
    items: Picklable; read a few ahead of the results.
    num_workers: Processes; 0 loads in this one, without a time limit.
    timeout_seconds: A worker that takes longer for one item is killed, and
      another takes its place.

  Yields:
    Each item and what became of it, in the order of `items`. The workers end
    with the iteration, when the iterator is closed, or with this process.

  Raises:
    errors.InputError: If pebble, or what `load` needs, is not installed.
    errors.RunError: If workers end again and again without an item to blame.
  """
  if num_workers == 0:
    for item in items:
      yield item, _outcome(load, item, timeout_seconds=timeout_seconds)
    return
  pool = _Pool(load, num_workers=num_workers, timeout_seconds=timeout_seconds)
  items = iter(items)
  try:
    while True:
      room = num_workers * _LOOKAHEAD - len(pool.waiting)
      for item in itertools.islice(items, room):
        pool.add(item)
      if not pool.waiting:
        return
      yield pool.next_result()
  finally:
    pool.close()


def _outcome(
    call: Callable[..., Result], *args: Any, timeout_seconds: float
) -> Result | DecodeFailure:
  try:
    return call(*args)
  except TimeoutError:
    return DecodeFailure(f"took longer than {timeout_seconds:g} s")
  except MemoryError:
    return DecodeFailure("needs more memory than there is")
  except VideoError as error:
    return DecodeFailure(str(error))
  except (
      errors.InputError,
      errors.RunError,
      concurrent.futures.process.BrokenProcessPool,
  ):
    raise
  except Exception as error:
    # pebble's `ProcessExpired` has one.
    exit_code = getattr(error, "exitcode", None)
    if exit_code is not None:
      return DecodeFailure(f"its decoder crashed: {_exit_reason(exit_code)}")
    kind = type(error).__name__
    return DecodeFailure(f"cannot be read: {kind}: {errors.one_line(error)}")


def _exit_reason(exit_code: int) -> str:
  try:
    return signal.Signals(-exit_code).name
  except ValueError:  # It ended by itself.
    return f"exit code {exit_code}"


class _Pool:
  """Worker processes and the items that wait for their turn."""

  def __init__(
      self,
      load: Callable[[Item], Result],
      *,
      num_workers: int,
      timeout_seconds: float,
  ) -> None:
    self.waiting: collections.deque[tuple[Item, Any]] = collections.deque()
    self._load = load
    self._num_workers = num_workers
    self._timeout_seconds = timeout_seconds
    self._pool = self._make_pool()

  def add(self, item: Item) -> None:
    self.waiting.append((item, self._schedule(item)))

  def next_result(self) -> tuple[Item, Result | DecodeFailure]:
    """Waits for the first of the items, and forgets it."""
    for _ in range(_MAX_NEW_POOLS):
      item, future = self.waiting[0]
      try:
        result = _outcome(future.result, timeout_seconds=self._timeout_seconds)
      except concurrent.futures.process.BrokenProcessPool:
        self.close()
        self._pool = self._make_pool()
        again = [
            (item, self._schedule(item) if _is_broken(future) else future)
            for item, future in self.waiting
        ]
        self.waiting = collections.deque(again)
        continue
      self.waiting.popleft()
      return item, result
    raise errors.RunError(
        f"worker processes ended {_MAX_NEW_POOLS} times before they loaded"
        f" {item}; look for their messages above, and at the free memory."
    )

  def close(self) -> None:
    self._pool.stop()
    self._pool.join()

  def _schedule(self, item: Item) -> Any:
    # A pool that broke since takes nothing more; the item waits for a new one.
    try:
      return self._pool.schedule(
          self._load, args=(item,), timeout=self._timeout_seconds
      )
    except RuntimeError as error:
      future = concurrent.futures.Future()
      future.set_exception(
          concurrent.futures.process.BrokenProcessPool(str(error))
      )
      return future

  def _make_pool(self) -> Any:
    try:
      import pebble
    except ImportError as error:
      raise errors.InputError(
          "decoding videos in worker processes needs pebble, which is not"
          " installed; run pip install 'chain_jax[video]'."
      ) from error
    return pebble.ProcessPool(
        self._num_workers,
        initializer=end_with_parent,
        context=multiprocessing.get_context("spawn"),
    )


def _is_broken(future: Any) -> bool:
  """Tells whether an item must be loaded again; waits for none."""
  if not future.done() or future.cancelled():
    return True
  broken = concurrent.futures.process.BrokenProcessPool
  return isinstance(future.exception(), broken)
