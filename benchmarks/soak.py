"""Kills runs of several processes at random moments, and checks what is learnt.

  python -m benchmarks.soak --kills=20 --seed=0

Each start has another number of processes, of one or two devices each. A run
is killed and started again until it is finished, then compared with one that
nobody disturbed; then the next run begins, until all kills are done. Fails at
the first difference.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np

from benchmarks.machine import machine_line
from chain_jax import config as config_lib
from chain_jax import errors

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_PROCESSES, _DEVICES_EACH = (1, 2, 4), (1, 2)
_END_SECONDS = 60.0  # In which all must end after one was killed.
_LOST = {errors.EXIT_PEER_LOST, 128 + signal.SIGKILL}
_STOPPED = {errors.EXIT_STOPPED}
# One that did not live to report is missed by the others, and is no peer yet.
_MISSED = {1, 128 + signal.SIGTERM}


@dataclasses.dataclass
class Kill:
  """One kill and what came of it."""

  processes: int
  devices: int
  signal: str
  victim: int
  step: int
  during: str
  code: int
  seconds: float


def soak_config(num_steps: int) -> config_lib.ExperimentConfig:
  """Returns a tiny run of that many steps, saved every five."""
  config = config_lib.ExperimentConfig(name="soak")
  synthetic = config.data.synthetic
  synthetic.num_train, synthetic.num_gallery, synthetic.num_query = 48, 30, 12
  synthetic.num_appearances, synthetic.num_patterns = 2, 2
  synthetic.num_frames = 8
  config.data.feature_dim, config.data.num_frames = 24, 6
  model = config.model
  model.num_bits, model.width, model.depth, model.num_heads = 16, 16, 1, 2
  model.mlp_dim = 16
  config.train.batch_size, config.train.num_epochs = 16, num_steps
  config.train.max_steps = num_steps
  config.train.log_every_steps, config.train.checkpoint_every_steps = 1, 5
  config.evaluation.batch_size = 16
  config.evaluation.baseline_videos = 0
  return config


def soak(
    config: config_lib.ExperimentConfig,
    folder: pathlib.Path,
    *,
    num_kills: int,
    seed: int,
) -> list[Kill]:
  """Kills and compares until enough kills are done.

  Args:
    config: From `soak_config`.
    folder: Of the runs; empty.
    num_kills: SIGKILL and SIGTERM in turn.
    seed: Of the moments, the victims and the numbers of processes.

  Returns:
    The kills.

  Raises:
    AssertionError: If a process outlives a kill for too long, an exit code is
      another than documented, or a run learns anything else.
  """
  rng = random.Random(seed)
  undisturbed = folder / "undisturbed"
  with _started(config, undisturbed, 1, 1) as launcher:
    output, error = launcher.communicate()
    assert launcher.returncode == 0, output + error
  kills, number, processes = [], 0, 0
  while len(kills) < num_kills:
    path, number = folder / f"run_{number}", number + 1
    finished = False
    while not finished:
      processes = rng.choice([n for n in _PROCESSES if n != processes])
      # What is left after the last step is short: spend few kills on it.
      is_trained = _last_step(path) == config.train.max_steps
      may_kill = len(kills) < num_kills and not (
          is_trained and rng.random() < 0.5
      )
      number_of = (signal.SIGKILL, signal.SIGTERM)[len(kills) % 2]
      kill = _start_and_kill(
          config, path, processes, number_of if may_kill else None, rng
      )
      finished = kill is None
      if kill:
        kills.append(kill)
        print(_row(len(kills), kill), flush=True)
    _compare(config, path, undisturbed)
    print(f"run {number}: equal to the undisturbed one", flush=True)
  return kills


@contextlib.contextmanager
def _started(
    config: config_lib.ExperimentConfig,
    path: pathlib.Path,
    processes: int,
    devices: int,
) -> Iterator[subprocess.Popen[str]]:
  command = [
      *(sys.executable, "launch/local_processes.py"),
      f"--num_processes={processes}",
      f"--devices_per_process={devices}",
      *("--", sys.executable, "-m", "chain_jax.main", f"--workdir={path}"),
      *("--config=configs/quickstart.py", "--start_timeout=40"),
      *(
          f"--config.{name}={config_lib.field_value(config, name)}"
          for name in config_lib.field_names(config)
      ),
  ]
  launcher = subprocess.Popen(
      command,
      cwd=_ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
  )
  try:
    yield launcher
  finally:
    launcher.kill()
    launcher.communicate()


def _start_and_kill(
    config: config_lib.ExperimentConfig,
    path: pathlib.Path,
    processes: int,
    number: signal.Signals | None,
    rng: random.Random,
) -> Kill | None:
  """Starts a run and kills one of its processes; None where it ended first."""
  devices = rng.choice(_DEVICES_EACH)
  with _started(config, path, processes, devices) as launcher:
    began = time.time()
    _wait_for_a_moment(launcher, path, config.train.max_steps, began, rng)
    victim, during, step = rng.randrange(processes), "", 0
    children = _children(launcher)
    start = time.monotonic()
    sends = number is not None and len(children) == processes
    if sends:
      during, step = _phase(path, began), _last_step(path)
      with contextlib.suppress(ProcessLookupError):
        os.kill(children[victim], number)
      timeout = _END_SECONDS + 5
    else:
      timeout = 600
    output, error = launcher.communicate(timeout=timeout)
    seconds, code = time.monotonic() - start, launcher.returncode
  if code == 0:
    return None
  assert sends, output + error
  assert seconds < _END_SECONDS, f"{seconds} s to end"
  allowed = _LOST if number == signal.SIGKILL else _STOPPED
  if during == "start":
    allowed = allowed | _MISSED
  assert code in allowed, f"exit code {code} at {during}: {output}{error}"
  assert "Traceback" not in error, error
  return Kill(
      processes, devices, number.name, victim, step, during, code, seconds
  )


def _wait_for_a_moment(
    launcher: subprocess.Popen[str],
    path: pathlib.Path,
    last_step: int,
    began: float,
    rng: random.Random,
) -> None:
  """Waits for some seconds, for some steps, or until after the last step."""
  kind = rng.choices(["time", "steps", "end"], [0.25, 0.65, 0.1])[0]
  steps_before = _last_step(path)
  wanted = {
      "time": -1,
      "steps": min(last_step, steps_before + rng.randint(1, 30)),
      "end": last_step,
  }[kind]
  while wanted >= 0 and launcher.poll() is None:
    if _phase(path, began) != "start" and _last_step(path) >= wanted:
      break
    time.sleep(0.01)
  deadline = time.monotonic() + rng.uniform(0, 10 if kind == "time" else 0.5)
  while time.monotonic() < deadline and launcher.poll() is None:
    time.sleep(0.01)


def _rows(path: pathlib.Path) -> list[dict]:
  file = path / "metrics.jsonl"
  lines = file.read_text().splitlines(True) if file.exists() else []
  rows = [json.loads(line) for line in lines if line.endswith("\n")]
  return [row for row in rows if "batch_checksums" in row]


def _last_step(path: pathlib.Path) -> int:
  rows = _rows(path)
  return rows[-1]["step"] if rows else 0


def _phase(path: pathlib.Path, began: float) -> str:
  """Names what a start does, by what is newer than it in the folder."""
  for name, phase in (
      ("codes", "export, evaluation"),
      # Rewritten when the newest checkpoint is restored.
      ("metrics.jsonl", "training"),
  ):
    if (path / name).exists() and (path / name).stat().st_mtime > began:
      return phase
  return "start"


def _children(launcher: subprocess.Popen[str]) -> list[int]:
  file = pathlib.Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
  try:
    return [int(number) for number in file.read_text().split()]
  except OSError:  # It has ended.
    return []


def _compare(
    config: config_lib.ExperimentConfig,
    path: pathlib.Path,
    undisturbed: pathlib.Path,
) -> None:
  """Checks that no batch was repeated or skipped, and what was learnt."""
  steps, checksums = [], []
  for one in (path, undisturbed):
    rows = _rows(one)
    steps.append([row["step"] for row in rows])
    checksums.append([sum_ for row in rows for sum_ in row["batch_checksums"]])
  assert len(set(steps[0])) == len(steps[0]) and steps[0] == steps[1], steps
  assert checksums[0] == checksums[1]
  ours, theirs = (_parameters(config, one) for one in (path, undisturbed))
  for name, expected in theirs.items():
    # Parameters near 0 are as exact as the others of their array.
    np.testing.assert_allclose(
        ours[name],
        expected,
        rtol=1e-4,
        atol=1e-4 * np.abs(expected).max(),
        err_msg=name,
        strict=True,
    )


def _parameters(
    config: config_lib.ExperimentConfig, path: pathlib.Path
) -> dict[str, np.ndarray]:
  import jax

  from chain_jax import run, sharding
  from chain_jax.workdir import Workdir

  state = run.restore(config, Workdir(str(path)), sharding.make_mesh())
  leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state.params))
  named = {jax.tree_util.keystr(place): leaf for place, leaf in leaves}
  for name, leaf in named.items():
    if name.endswith("['qkv']['bias']"):
      # Attention is the same with any bias of the keys: its gradient is 0, and
      # Adam blows up what rounding leaves of it.
      head_dim = config.model.width // config.model.num_heads
      parts = leaf.reshape(-1, config.model.num_heads, 3, head_dim)
      named[name] = parts[:, :, ::2]
  return named


_HEADER = (
    "kill processes devices  signal victim  step  during              code "
    " seconds"
)


def _row(number: int, kill: Kill) -> str:
  return (
      f"{number:4d} {kill.processes:9d} {kill.devices:7d} {kill.signal:>7}"
      f" {kill.victim:6d} {kill.step:5d}  {kill.during:18} {kill.code:5d} {kill.seconds:8.1f}"
  )


def main() -> None:
  """Runs the soak with the flags."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--kills", type=int, default=20)
  parser.add_argument("--steps", type=int, default=150, help="of a run")
  parser.add_argument("--seed", type=int, default=0)
  flags = parser.parse_args()
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  print(machine_line("jax"))
  print(_HEADER)
  with tempfile.TemporaryDirectory() as folder:
    kills = soak(
        soak_config(flags.steps),
        pathlib.Path(folder),
        num_kills=flags.kills,
        seed=flags.seed,
    )
  slowest = max(kill.seconds for kill in kills)
  print(f"{len(kills)} kills passed; the slowest end took {slowest:.1f} s")


if __name__ == "__main__":
  main()
