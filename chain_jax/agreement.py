"""What several processes of one run must do alike: decide, wait, stop.

With one process each function is free. All processes call each of them, in
the same order.
"""

import collections
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from chain_jax import stop_notice

# Steps from a vote to its result: by then the devices are done with it, as
# they are with the metrics, which `StepRecorder` waits for.
_LAG_STEPS = 2


def wait_for_all(name: str) -> None:
  """Returns when every process is here.

  Args:
    name: Of the place, the same on all.
  """
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def true_on_all(here: bool) -> bool:
  """Returns whether all processes say yes."""
  if jax.process_count() == 1:
    return here
  return bool(np.all(multihost_utils.process_allgather(np.int32(here))))


def numbers_of_first(numbers: Sequence[int], *, most: int) -> list[int]:
  """Returns the numbers that the first process has.

  Args:
    numbers: Not negative, each below 2^31; what others give is not used.
    most: How many are passed on, from the front.

  >>> numbers_of_first([8, 4, 2], most=2)
  [8, 4]
  """
  numbers = list(numbers)[:most]
  if jax.process_count() == 1:
    return numbers
  padded = np.full(most, -1, np.int32)
  padded[: len(numbers)] = numbers
  shared = multihost_utils.broadcast_one_to_all(padded)
  return [int(number) for number in shared if number >= 0]


class StopVotes:
  """Lets all processes leave a loop after the same step.

  A notice arrives on one process, or on each at another moment. Each step all
  of them tell all whether they have one, in a sum that the devices do behind
  the step, and read what they told some steps ago.
  """

  def __init__(self, mesh: Mesh) -> None:
    split = NamedSharding(mesh, P(mesh.axis_names))
    self._flags_of = {
        flag: jax.make_array_from_callback(
            (mesh.size,), split, lambda _, flag=flag: np.array([flag], np.int32)
        )
        for flag in (False, True)
    }
    self._count = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, P()))
    self._waiting: collections.deque[jax.Array] = collections.deque()

  def stops_here(self) -> bool:
    """Votes after a step; returns whether the loop ends here, on all alike."""
    here = stop_notice.requested() is not None
    if jax.process_count() == 1:
      return here
    self._waiting.append(self._count(self._flags_of[here]))
    if len(self._waiting) <= _LAG_STEPS:
      return False
    stops = int(self._waiting.popleft()) > 0
    if stops:
      stop_notice.request("a notice to another process")
    return stops
