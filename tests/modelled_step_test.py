"""Modelled times by hand, and what the tables say."""

from chain_jax import chips, modelled_step
from chain_jax.compiled_program import Collective, Movement
from chain_jax.compiled_step import CompiledStep

_V5E = chips.find("TPU v5 lite")
_GATHER = Collective("all-gather", 4 * 10**8, 4, times=1)


def _step(**changes):
  # 10 ms of operations, 20 ms of HBM, 1.5 ms of links at v5e's peaks.
  values = {
      "num_devices": 4,
      "device_kind": "TPU v5 lite",
      "seconds": 7.0,
      "argument_bytes": 2**30,
      "temp_bytes": 2**30,
      "code_bytes": 2**20,
      "flops": 197e10,
      "xla_flops": 99e10,
      "movement": Movement(0.02 * 819e9, (_GATHER,)),
  }
  return CompiledStep(**(values | changes))


def _row(**changes):
  return modelled_step.Row("v5e:2x2", 256, 4 * 197e10, _step(**changes))


def test_a_modelled_step_by_hand():
  modelled = modelled_step.model_step(_step(), _V5E)
  assert [round(1e3 * part, 9) for part in modelled] == [10.0, 20.0, 1.5]
  assert round(1e3 * modelled.fastest, 9) == 20.0
  assert round(1e3 * modelled.slowest, 9) == 21.5
  assert modelled.limit == "memory"


def test_a_step_that_waits_for_its_links_is_limited_by_them():
  slow = Movement(0.0, (_GATHER._replace(times=10),))
  modelled = modelled_step.model_step(_step(movement=slow), _V5E)
  assert modelled.limit == "network"
  assert round(1e3 * modelled.slowest, 9) == 10 + 15


def test_a_step_fits_up_to_the_memory_of_its_chip():
  room = 16 * 2**30 - 2**30 - 2**20
  assert modelled_step.fits(_step(temp_bytes=room))
  assert not modelled_step.fits(_step(temp_bytes=room + 1))
  assert not modelled_step.fits(_step(too_large="needs 17G of 16G"))


def test_the_tables_say_what_was_compiled_and_what_is_modelled():
  compiled = modelled_step.compiled_table([_row()]).splitlines()[-1]
  assert compiled == (
      "| v5e:2x2 | 4 | 256 | 7 | yes | 1024 + 1024 + 1 = 2049 of 16 GiB |"
      " 1970 (1970) | 990 | 16.4 | 1 all-gather (400 MB) |"
  )
  table = modelled_step.modelled_table([_row()])
  assert table.startswith("| MODELLED for |")
  # 256 videos in 21.5 or 20 ms.
  assert table.splitlines()[-1] == (
      "| v5e:2x2 | 4 | 256 | 10 | 20 | 1.5 | 20 to 21.5 | 0.0119 to 0.0128 |"
      " memory |"
  )


def test_what_does_not_fit_is_said_and_not_modelled():
  row = _row(too_large="needs 17G of 15.75G")
  compiled = modelled_step.compiled_table([row])
  assert "does not fit: needs 17G of 15.75G" in compiled
  assert modelled_step.modelled_table([row]).startswith("Nothing fits")


def test_every_line_of_a_table_has_its_columns():
  rows = [_row(), _row(too_large="no"), _row(movement=None)]
  for table in (
      modelled_step.compiled_table(rows),
      modelled_step.modelled_table(rows),
  ):
    assert len({line.count("|") for line in table.splitlines()}) == 1
