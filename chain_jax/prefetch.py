"""Batches on their way to the devices while these are busy."""

import collections
from collections.abc import Iterable, Iterator
from typing import Any

from jax.sharding import Mesh

from chain_jax import sharding


def to_devices(
    batches: Iterable[Any], mesh: Mesh, *, num_ahead: int = 2
) -> Iterator[Any]:
  """Yields batches as global arrays, with the next ones under way already.

  Args:
    batches: Trees of numpy arrays, this host's rows of each global batch.
    mesh: The devices.
    num_ahead: How many batches beyond the one in use the devices hold.
  """
  waiting: collections.deque[Any] = collections.deque()
  for batch in batches:
    # Starts the transfer and does not wait for it.
    waiting.append(sharding.to_global(batch, mesh))
    if len(waiting) > num_ahead:
      yield waiting.popleft()
  yield from waiting
