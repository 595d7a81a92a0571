"""Memory for batches that is used again.

Memory fresh from the system is cleared page by page when it is first written,
which takes about as long as gathering a batch into it. So what a batch leaves
behind, once nothing refers to it any more, waits here for the next one.
"""

import collections
import weakref

import numpy as np

# Smaller arrays come out of memory that the process has already.
_SMALLEST_BYTES = 2**20
# As many batches as wait between the loader and the devices.
_MOST_WAITING = 4

# By size in bytes. A deque's append and pop need no lock, which a finaliser,
# called in the middle of anything, could not wait for.
_waiting: dict[int, collections.deque] = {}


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
  """Returns an array like `numpy.empty`, perhaps in memory used before.

  Its memory is used again only when the array and all views of it are gone.
  """
  num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
  if num_bytes < _SMALLEST_BYTES:
    return np.empty(shape, dtype)
  waiting = _waiting.setdefault(
      num_bytes, collections.deque(maxlen=_MOST_WAITING)
  )
  try:
    memory = waiting.pop()
  except IndexError:
    memory = np.empty(num_bytes, np.uint8)
  # Views refer to this array, and not past it: a memoryview lies between it
  # and the memory.
  lent = np.frombuffer(memoryview(memory), dtype)
  weakref.finalize(lent, waiting.append, memory).atexit = False
  return lent.reshape(shape)
