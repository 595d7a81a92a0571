"""The command line: overrides work, and every slip is one line that helps."""

import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from chain_jax import errors, main_flags
from chain_jax import main as main_lib

# ml_collections loads config files with it; Python keeps it until 3.15.
pytestmark = pytest.mark.filterwarnings(
    "ignore:the load_module:DeprecationWarning"
)

REPOSITORY = pathlib.Path(__file__).parents[1]
CONFIG = "--config=configs/quickstart.py"


@pytest.fixture(autouse=True)
def _fresh_flags():
  yield
  flags.FLAGS.unparse_flags()
  for name in ("config", "workdir", "mode"):
    flags.FLAGS[name].unparse()
  for name in list(flags.FLAGS):
    if name.startswith("config."):
      delattr(flags.FLAGS, name)
  # grain reads absl's flags; see conftest.
  flags.FLAGS.mark_as_parsed()


@pytest.fixture
def run(monkeypatch, capsys):
  """Returns the exit code, the error line, and what the run was started with."""

  def run(*arguments):
    started = {}

    def start(config, *, path, mode):
      started.update(config=config, path=path, mode=mode)

    monkeypatch.setattr("chain_jax.run.run", start)
    # ml_collections looks for overrides there.
    monkeypatch.setattr(sys, "argv", ["main", *arguments])
    code = errors.run_command(lambda: main_lib.main(sys.argv))
    return code, capsys.readouterr().err, started

  return run


def _assert_refused(outcome, *parts):
  code, line, started = outcome
  assert code == 2 and not started
  assert line.startswith("error: ") and line.count("\n") == 1
  for part in parts:
    assert part in line, line


def test_overrides_of_every_type_reach_the_config(run):
  code, _, started = run(
      CONFIG,
      "--workdir=somewhere",
      "--mode=export",
      "--config.name=mine",
      "--config.model.num_bits=32",
      "--config.optimizer.learning_rate=3e-4",
      "--config.model.remat=true",
      "--config.augment.crop_fraction=(0.25,0.75)",
      "--config.data.synthetic.num_train=77",
  )
  config = started["config"]
  assert (code, started["path"], started["mode"]) == (0, "somewhere", "export")
  assert (config.name, config.model.num_bits) == ("mine", 32)
  assert config.optimizer.learning_rate == 3e-4
  assert config.model.remat is True
  assert tuple(config.augment.crop_fraction) == (0.25, 0.75)
  assert config.data.synthetic.num_train == 77
  untouched = main_flags.load_config(str(REPOSITORY / "configs/quickstart.py"))
  assert config.model.width == untouched.model.width


def test_values_may_stand_apart_from_their_flags(run):
  _, _, started = run(
      "--config",
      "configs/quickstart.py",
      "--config.model.num_bits",
      "16",
      "--workdir",
      "w",
  )
  assert started["config"].model.num_bits == 16
  assert started["path"] == "w"


def test_a_switch_alone_is_on_and_with_no_before_it_off(run):
  _, _, started = run(
      CONFIG, "--config.model.remat", "--noconfig.model.normalise_bits"
  )
  assert started["config"].model.remat is True
  assert started["config"].model.normalise_bits is False


def test_the_workdir_is_called_after_the_config(run):
  _, _, started = run(CONFIG)
  assert started["path"] == os.path.join("runs", "quickstart")
  assert started["mode"] == "train"


def test_a_config_is_looked_up_here_first_then_beside_the_package(
    run, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  assert run(CONFIG)[2]["config"].name == "quickstart"
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs" / "quickstart.py").write_text(
      "from chain_jax import config\n"
      "def get_config(): return config.ExperimentConfig(name='here')\n"
  )
  flags.FLAGS["config"].unparse()
  assert run(CONFIG)[2]["config"].name == "here"


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("--config.model.nun_bits=8", ["`model.nun_bits`", "`model.num_bits`"]),
        ("--config.num_bits=8", ["no field `num_bits`", "`model.num_bits`"]),
        ("--config.train.lerning_rate=1", ["`optimizer.learning_rate`"]),
        ("--noconfig.model.remta", ["no field `model.remta`", "`model.remat`"]),
        ("--config.zzz=1", ["no field `zzz`", "see chain_jax/config.py"]),
        ("--config.model=1", ["no field `model`"]),
        ("--config.model.num_bits=abc", ["config.model.num_bits", "'abc'"]),
        ("--config.model.num_bits=8.5", ["config.model.num_bits", "'8.5'"]),
        ("--config.model.remat=maybe", ["config.model.remat", "maybe"]),
        ("--config.train.seed=", ["config.train.seed"]),
        ("--config.model.num_bits", ["config.model.num_bits"]),
        ("--config.augment.crop_fraction=0.5", ["`augment.crop_fraction`"]),
        ("--config.augment.crop_fraction=(a,b)", ["augment.crop_fraction"]),
        ("--config.model.num_bits=12", ["multiple of 8, got 12; try 16."]),
        ("--workdri=w", ["workdri", "Did you mean: workdir"]),
        ("--mode=test", ["mode", "train", "export", "evaluate"]),
        ("train", ["must be --flags, got 'train'"]),
    ],
)
def test_a_slip_is_one_line_that_names_it(run, argument, parts):
  _assert_refused(run(CONFIG, argument), *parts)


def test_a_run_needs_a_config(run):
  _assert_refused(run("--workdir=w"), "--config", "configs/quickstart.py")


@pytest.mark.parametrize("words", [["--config=no.py"], ["--config", "no.py"]])
def test_a_missing_config_is_answered_with_those_that_there_are(run, words):
  _assert_refused(run(*words), "'no.py'", "configs/quickstart.py")


@pytest.mark.parametrize("words", [["--config="], ["--config"]])
def test_an_empty_config_is_refused(run, words):
  _assert_refused(run(*words), "--config")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("def get_config(:\n", "invalid syntax"),
        ("x = 1\n", "get_config"),
        ("import no_such_module\n", "no_such_module"),
        ("def get_config():\n  return undefined_name\n", "undefined_name"),
        ("def get_config():\n  return {'name': 'a'}\n", "ExperimentConfig"),
        (
            "from chain_jax import config\n"
            "def get_config():\n"
            "  result = config.ExperimentConfig()\n"
            "  result.model.nun_bits = 3\n"
            "  return result\n",
            "nun_bits",
        ),
    ],
)
def test_a_config_file_with_a_mistake_is_named(run, tmp_path, text, part):
  path = tmp_path / "mine.py"
  path.write_text(text)
  _assert_refused(run(f"--config={path}"), str(path), part)


def _subprocess(*arguments, cwd):
  # Fails on any import of jax, so that the answer is known to be quick.
  code = (
      "import sys; sys.modules['jax'] = None; sys.argv[0] = 'main';"
      "import runpy; runpy.run_module('chain_jax.main', run_name='__main__',"
      "alter_sys=True)"
  )
  return subprocess.run(
      [sys.executable, "-c", code, *arguments],
      cwd=cwd,
      env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
      capture_output=True,
      text=True,
      timeout=60,
  )


def test_help_shows_an_example_and_needs_no_jax(tmp_path):
  done = _subprocess("--help", cwd=tmp_path)
  assert (done.returncode, done.stderr) == (0, "")
  assert "python -m chain_jax.main --config=configs/" in done.stdout
  for flag in ("--config", "--workdir", "--mode"):
    assert flag in done.stdout


@pytest.mark.parametrize(
    "argument",
    ["--config.model.num_bits=abc", "--config.augment.crop_fraction=0.5"],
)
def test_a_wrong_type_is_found_before_jax_is_imported(tmp_path, argument):
  done = _subprocess(CONFIG, argument, cwd=tmp_path)
  assert done.returncode == 2
  assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
  assert not list(tmp_path.iterdir())


def test_a_tilde_is_the_home_folder_in_every_path(run, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  (tmp_path / "mine.py").write_text(
      "from chain_jax import config as lib\n"
      "def get_config():\n"
      "  config = lib.ExperimentConfig()\n"
      "  config.data.prepared.segments_root = '~/segments'\n"
      "  return config\n"
  )
  code, line, started = run(
      "--config=~/mine.py",
      "--workdir=~/run",
      "--config.data.root=~/data",
      "--config.train.checkpoint_folder=~/checkpoints",
      "--config.name=a~b",
  )
  config = started["config"]
  assert (code, line) == (0, "")
  assert started["path"] == f"{tmp_path}/run"
  assert config.data.root == f"{tmp_path}/data"
  assert config.data.prepared.segments_root == f"{tmp_path}/segments"
  assert config.train.checkpoint_folder == f"{tmp_path}/checkpoints"
  assert config.name == "a~b"
