"""The command that compiles for a slice: what it prints and refuses."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_CONFIG = """
from chain_jax import config as config_lib

def get_config():
  config = config_lib.ExperimentConfig(name="small")
  config.data.feature_dim, config.data.num_frames = 24, 6
  config.model.width, config.model.mlp_dim = 16, 16
  config.model.num_heads, config.model.depth = 2, 1
  return config
"""


def _run(tmp_path, *words):
  config = tmp_path / "small.py"
  config.write_text(_CONFIG)
  return subprocess.run(
      [
          sys.executable,
          str(_ROOT / "launch" / "compile_for_topology.py"),
          *(word.replace("CONFIG", str(config)) for word in words),
      ],
      env=os.environ | {"PYTHONPATH": os.pathsep.join([str(_ROOT), *sys.path])},
      capture_output=True,
      text=True,
  )


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "--config must name a file"),
        (["--config=absent.py"], "'absent.py' is neither"),
        (["--config=CONFIG", "--config.train.batchsize=8"], "train.batch_size"),
        (["--config=CONFIG", "--topolgy=v5e:2x2"], "topolgy"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, words, part):
  done = _run(tmp_path, *words)
  assert done.returncode == 2
  assert done.stdout == ""
  assert part in done.stderr
  assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_help_shows_an_example(tmp_path):
  done = _run(tmp_path, "--help")
  assert done.returncode == 0
  assert "--config=configs/yt8m.py" in done.stdout
  assert "--largest" in done.stdout


@pytest.mark.tpu_compile
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="needs the libtpu wheel: pip install libtpu",
)
class TestWithLibtpu:

  def test_it_prints_what_was_compiled_and_what_is_modelled(self, tmp_path):
    done = _run(tmp_path, "--config=CONFIG", "--topology=v5e:2x2", "--batch=32")
    assert done.returncode == 0, done.stderr
    compiled, modelled = done.stdout.split("\n\n")
    assert "| v5e:2x2 | 4 | 32 |" in compiled and "| yes |" in compiled
    assert modelled.startswith("| MODELLED for |")
    assert "| v5e:2x2 | 4 | 32 |" in modelled
    assert done.stderr == "compiling 32 videos for v5e:2x2\n"

  def test_what_does_not_fit_is_an_answer_and_no_failure(self, tmp_path):
    done = _run(
        tmp_path,
        "--config=CONFIG",
        "--topology=v5e:2x2",
        "--batch=1024",
        "--config.data.feature_dim=65536",
        "--config.data.num_frames=64",
    )
    assert done.returncode == 0, done.stderr
    assert "does not fit: needs" in done.stdout
    assert "Nothing fits" in done.stdout

  def test_an_unknown_slice_is_one_line_with_those_known(self, tmp_path):
    done = _run(tmp_path, "--config=CONFIG", "--topology=v5e:3x5")
    assert done.returncode == 2
    assert "'v5e:3x5'" in done.stderr and "v5e:16x16" in done.stderr
    assert done.stderr.count("\n") == 1
