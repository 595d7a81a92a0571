"""The parts of an interval add up to the wall clock, whatever happens."""

import pytest
from fake_clock import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st

from chain_jax import step_clock


@pytest.fixture
def now():
  return FakeClock()


def _spend(clock, now, part, seconds):
  with clock.measure(part):
    now.advance(seconds)


def test_what_is_not_measured_is_compute(now):
  clock = step_clock.StepClock(now)
  now.advance(2.0)
  _spend(clock, now, "input_wait", 0.5)
  now.advance(4.0)
  _spend(clock, now, "checkpoint", 1.0)
  _spend(clock, now, "input_wait", 0.25)
  assert clock.split() == {
      "input_wait": 0.75,
      "checkpoint": 1.0,
      "validation": 0.0,
      "logging": 0.0,
      "compute": 6.0,
  }


_EVENTS = st.lists(
    st.tuples(
        st.sampled_from((*step_clock.MEASURED, "compute", "split")),
        st.integers(0, 1000),
    )
)


@settings(deadline=None)  # Another process may have the core.
@given(_EVENTS)
def test_parts_add_up_to_the_wall_of_every_interval_and_of_all(events):
  now = FakeClock()
  clock = step_clock.StepClock(now)
  first = start = now()
  for part, seconds in events:
    if part == "split":
      assert sum(clock.split().values()) == now() - start
      start = now()
    elif part == "compute":
      now.advance(seconds)
    else:
      _spend(clock, now, part, seconds)
  clock.split()
  assert sum(clock.totals().values()) == now() - first


def test_time_before_a_restart_counts_nowhere(now):
  clock = step_clock.StepClock(now)
  _spend(clock, now, "input_wait", 3.0)
  now.advance(5.0)
  clock.restart()
  now.advance(1.0)
  assert clock.split()["compute"] == 1.0
  assert clock.totals()["input_wait"] == 0.0


def test_a_block_that_raises_is_counted(now):
  clock = step_clock.StepClock(now)
  with pytest.raises(KeyError), clock.measure("checkpoint"):
    now.advance(2.0)
    raise KeyError
  assert clock.split()["checkpoint"] == 2.0
