"""Two random kills change nothing that is learnt."""

import pathlib
import sys

import pytest

_ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_two_kills_at_random_moments_change_nothing(tmp_path, monkeypatch):
  # The benchmarks are not installed.
  monkeypatch.setattr(sys, "path", [str(_ROOT), *sys.path])
  from benchmarks import soak

  kills = soak.soak(soak.soak_config(30), tmp_path, num_kills=2, seed=2)
  assert [kill.signal for kill in kills] == ["SIGKILL", "SIGTERM"]
