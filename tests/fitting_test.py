"""The search for the largest batch that fits, with a compiler made up."""

import pytest
from tiny import tiny_config

from chain_jax import compiled_step, fitting


@pytest.fixture
def compiled(monkeypatch):
  """Batches that were compiled for a chip with room for 100 videos each."""
  sizes = []

  def compile_step(config, devices):
    sizes.append(config.train.batch_size)
    is_too_large = config.train.batch_size > 100 * len(devices)
    reason = "needs more" if is_too_large else ""
    return compiled_step.CompiledStep(len(devices), "TPU v4", 1.0, reason)

  monkeypatch.setattr(compiled_step, "compile_step", compile_step)
  monkeypatch.setattr(
      compiled_step, "describe_devices", lambda name: [None] * int(name)
  )
  return sizes


def _compile(batch_sizes, *, topologies=("4",), looks_for_largest=True):
  return fitting.compile_all(
      tiny_config(),
      topologies=topologies,
      batch_sizes=batch_sizes,
      looks_for_largest=looks_for_largest,
  )


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        # Room for 400: 256 is the largest power of two.
        (64, [64, 128, 256, 512]),
        (96, [96, 128, 256, 512]),
        (256, [256, 512]),
        (512, [512, 256]),
        (1536, [1536, 1024, 512, 256]),
        (400, [400, 512]),
    ],
)
def test_the_search_ends_where_the_answer_turns(compiled, first, expected):
  rows = _compile([first])
  assert compiled == [row.batch_size for row in rows] == expected


def test_each_batch_is_compiled_for_each_slice(compiled):
  rows = _compile([8, 16], topologies=("2", "4"), looks_for_largest=False)
  assert [(row.topology, row.batch_size) for row in rows] == [
      ("2", 8),
      ("2", 16),
      ("4", 8),
      ("4", 16),
  ]


def test_the_search_ends_where_no_batch_fits(monkeypatch, compiled):
  monkeypatch.setattr(
      compiled_step,
      "compile_step",
      lambda config, devices: compiled_step.CompiledStep(4, "cpu", 1.0, "no"),
  )
  assert [row.batch_size for row in _compile([16])] == [16, 8, 4]
