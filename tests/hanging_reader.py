"""What worker processes of a test read: it never ends."""

import pathlib
import time


class HangingReader:
  """Says in a folder that a task has begun, and hangs."""

  def __init__(self, folder):
    self.folder = pathlib.Path(folder)

  def __call__(self, task):
    """Reads a task."""
    (self.folder / f"begun-{task}").touch()
    time.sleep(600)
    yield
