"""Worker processes do not outlive the run that started them."""

import functools
import multiprocessing
import multiprocessing.connection
import os
import threading


@functools.cache
def end_with_parent() -> None:
  """Lets a worker process end when its run was killed, not live on alone.

  Call it in the worker, as often as is handy; in the run itself it does
  nothing. What the worker was doing, in C code too, is left as it stands.
  """
  parent = multiprocessing.parent_process()
  if parent is None:  # No worker: a thread of the run itself.
    return

  def wait() -> None:
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()
