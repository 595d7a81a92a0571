"""Worker processes that end with the run that started them."""

import functools
import multiprocessing
import multiprocessing.connection
import os
import threading


@functools.cache
def end_with_parent() -> None:
  """Lets a worker process end when its run was killed, not live on alone.

  To be called in the worker, as often as one likes. Outside of a worker it
  does nothing.
  """
  parent = multiprocessing.parent_process()
  if parent is None:  # No worker: a thread of the run itself.
    return

  def wait() -> None:
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()
