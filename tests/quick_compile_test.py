"""The quick programs of the tests compute what a user's programs compute."""

import local_runs
import numpy as np
import pytest
import xla_settings

_TERMS = (
    "total",
    "contrastive",
    "frame_order",
    "scene_change",
    "gradient_norm",
    "parameter_norm",
)


def _losses(path, **environment):
  """Trains for three steps as a command of its own."""
  command = [*local_runs.run_command(path), "--mode=train"]
  with local_runs.started(command, **environment) as run:
    _, error = run.communicate(timeout=240)
  assert run.returncode == 0, error
  rows = local_runs.training_rows(path)
  return [[row[term] for term in _TERMS] for row in rows]


@pytest.mark.slow
def test_a_run_learns_the_same_as_one_compiled_as_for_a_user(tmp_path):
  quick = _losses(tmp_path / "quick", XLA_FLAGS=xla_settings.xla_flags())
  usual = dict.fromkeys(xla_settings.QUICK, "0")
  found = _losses(tmp_path / "usual", XLA_FLAGS="", **usual)
  assert len(found) == 3
  # float32 rounding, through updates that divide by small gradients.
  np.testing.assert_allclose(quick, found, rtol=1e-3)
