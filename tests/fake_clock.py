"""A clock that stands still until a test moves it."""


class FakeClock:
  """Called, tells the time in seconds."""

  def __init__(self, start=1000.0):
    self._time = start

  def __call__(self):
    return self._time

  def advance(self, seconds):
    self._time += seconds
