"""Several processes find each other, learn the same, and end together."""

import json
import os
import re
import shutil
import signal
import socket
import time

import h5py
import local_runs
import numpy as np
import pytest
import scipy.io
import tiny
from jax._src.clusters import cloud_tpu_cluster, cluster

from chain_jax import errors, multihost, run

_SLURM = {
    "SLURM_JOB_ID": "4097",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
  for name in list(os.environ):
    if name.startswith(("SLURM_", "OMPI_", "TPU_", "JAX_COORD", "KUBERNETES")):
      monkeypatch.delenv(name)
  # GKE sets it; without it JAX asks a metadata server.
  monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")


def _find(distributed="auto", coordinator=None, number=None, process_id=None):
  return multihost.find_place(
      distributed, coordinator, number, process_id, start_timeout=1.0
  )


def test_a_machine_of_its_own_is_one_process_at_once():
  start = time.monotonic()
  assert _find() is None
  assert _find("off") is None
  assert time.monotonic() - start < 0.5  # To wait would be a second.


def test_the_place_is_what_the_flags_say():
  assert _find("auto", "host-0:8476", 4, 3) == ("host-0", 8476, 4, 3, None)
  assert _find("on", "[::1]:8476", 4, 3).host == "::1"
  assert _find("auto", "localhost:8476", 1, 0) is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("auto", "a:1", None, 0), "must be given all three"),
        (("auto", None, 2, 0), "must be given all three"),
        (("off", "a:1", 2, 0), "without --distributed=off"),
        (("auto", "a:1", 2, 2), "--process_id must be in 0 to"),
        (("auto", "a:1", 2, -1), "--process_id must be in 0 to"),
        (("auto", "a", 2, 0), "--coordinator must be HOST:PORT"),
        (("auto", "a:b", 2, 0), "--coordinator must be HOST:PORT"),
        (("auto", "a:99999", 2, 0), "--coordinator must be HOST:PORT"),
        (("auto", "a:" + "9" * 5000, 2, 0), "--coordinator must be HOST:PORT"),
        (("auto", "a..b:1", 2, 0), "--coordinator must be HOST:PORT"),
        (("auto", "a" * 64 + ":1", 2, 0), "--coordinator must be HOST:PORT"),
        (("auto", "[]:1", 2, 0), "--coordinator must be HOST:PORT"),
        (("on", None, None, None), "--distributed=on must find"),
    ],
)
def test_flags_that_do_not_fit_together_are_refused(flags, words):
  with pytest.raises(errors.InputError, match=re.escape(words)):
    _find(*flags)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_to_start_that_is_none_is_refused(seconds):
  with pytest.raises(errors.InputError, match="--start_timeout must be in 1"):
    multihost.find_place("on", None, None, None, start_timeout=seconds)


def _set(monkeypatch, variables):
  for name, value in variables.items():
    monkeypatch.setenv(name, value)


def test_a_step_of_slurm_knows_its_place(monkeypatch):
  nodes = {"SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_STEP_NUM_TASKS": "4"}
  _set(monkeypatch, _SLURM | nodes)
  # JAX's rule for the port: job id modulo 4096, from 61440.
  assert _find() == ("gpu07", 61441, 4, 3, [1])


def test_an_allocation_of_slurm_without_srun_is_one_process(monkeypatch):
  _set(monkeypatch, _SLURM)
  assert _find() is None
  # A shell inside an allocation is a step of one task.
  nodes = {"SLURM_STEP_NODELIST": "gpu07", "SLURM_STEP_NUM_TASKS": "1"}
  _set(monkeypatch, nodes)
  assert _find() is None


@pytest.fixture
def tpu_chips(monkeypatch):
  from jax._src import cloud_tpu_init

  for module in (cloud_tpu_init, cloud_tpu_cluster, cluster):
    monkeypatch.setattr(module, "running_in_cloud_tpu_vm", True)


def test_a_pod_of_tpus_on_gke_knows_its_place(monkeypatch, tpu_chips):
  _set(
      monkeypatch,
      {
          "TPU_WORKER_HOSTNAMES": "localhost,b",
          "TPU_WORKER_ID": "1",
          "MEGASCALE_COORDINATOR_ADDRESS": "localhost",
          "MEGASCALE_NUM_SLICES": "2",
          "MEGASCALE_SLICE_ID": "1",
      },
  )
  assert _find() == ("localhost", 8482, 4, 3, None)


def test_one_host_with_tpus_is_one_process(monkeypatch, tpu_chips):
  slices = {"MEGASCALE_NUM_SLICES": "1", "MEGASCALE_SLICE_ID": "0"}
  hosts = {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}
  first = {"MEGASCALE_COORDINATOR_ADDRESS": "localhost"}
  _set(monkeypatch, slices | hosts | first)
  assert _find() is None


def test_an_environment_that_names_no_host_is_one_line(monkeypatch, tpu_chips):
  hosts = {"TPU_WORKER_HOSTNAMES": "no.such.host.invalid", "TPU_WORKER_ID": "0"}
  _set(monkeypatch, hosts | {"MEGASCALE_NUM_SLICES": "1"})
  monkeypatch.setenv("MEGASCALE_COORDINATOR_ADDRESS", "no.such.host.invalid")
  with pytest.raises(errors.RunError, match="--coordinator"):
    _find()


def test_a_port_in_use_is_said_in_a_line(tmp_path):
  with socket.create_server(("", 0)) as taken:
    port = taken.getsockname()[1]
    place = ["--num_processes=2", "--process_id=0"]
    command = local_runs.run_command(tmp_path / "run")
    command += [f"--coordinator=localhost:{port}", *place]
    with local_runs.started(command) as process:
      _, error = process.communicate(timeout=60)
  assert process.returncode == 1
  assert error.startswith(f"error: port {port} of this host must be free")
  assert error.count("\n") == 1


def _free_port():
  with socket.socket() as free:
    free.bind(("localhost", 0))
    return free.getsockname()[1]


def test_a_field_that_differs_between_processes_is_named(tmp_path):
  port, started = _free_port(), []
  for process_id in range(2):
    command = local_runs.run_command(tmp_path / "run", train__seed=process_id)
    place = [f"--process_id={process_id}", "--num_processes=2"]
    command += [f"--coordinator=localhost:{port}", *place]
    started.append(local_runs.started(command, JAX_PLATFORMS="cpu"))
  with started[0] as first, started[1] as second:
    for process in (first, second):
      _, error = process.communicate(timeout=60)
      assert process.returncode == 2
      assert "`--config.train.seed` must be the same in all processes" in error


_CHANGES = {
    "train__validate_every_steps": 2,
    "data__validation_fraction": 0.3,
}


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
  """A run of this process on its eight devices."""
  path = tmp_path_factory.mktemp("one") / "run"
  config = tiny.tiny_config(
      train__num_epochs=1,
      evaluation__baseline_videos=0,
      **_CHANGES,
  )
  run.run(config, path=str(path), mode="train")
  return path


@pytest.mark.parametrize(
    "num_processes", [2, pytest.param(4, marks=pytest.mark.slow)]
)
def test_several_processes_learn_what_one_learns(
    num_processes, one_process, tmp_path, monkeypatch
):
  monkeypatch.setenv("http_proxy", "http://localhost:1")  # Asks no proxy.
  path = tmp_path / "run"
  with local_runs.launch(path, num_processes, **_CHANGES) as process:
    output, error = process.communicate(timeout=300)
  assert process.returncode == 0, error
  assert not re.search(r"^\[[1-9]\]", output, re.M)  # Process 0 alone prints.
  ours, theirs = map(local_runs.training_rows, (path, one_process))
  assert [row["step"] for row in ours] == [row["step"] for row in theirs]
  for row, expected in zip(ours, theirs, strict=True):
    assert row["batch_checksums"] == expected["batch_checksums"]
    # float32 sums over 4 shards instead of 8: a wrong batch moves it 1e-2.
    np.testing.assert_allclose(row["total"], expected["total"], rtol=1e-5)
  scores, expected = (
      [row for row in local_runs.rows(one) if "validation_map_at_5" in row]
      for one in (path, one_process)
  )
  assert scores == expected and scores
  codes = [
      one / "codes" / "gallery" / "codes.npy" for one in (path, one_process)
  ]
  bits, expected = (np.unpackbits(np.load(file)) for file in codes)
  # After three updates a logit near 0 may round to the other side.
  assert (bits != expected).mean() < 0.01


@pytest.mark.slow
def test_several_processes_export_and_score_what_one_has_learnt(
    one_process, tmp_path
):
  path = tmp_path / "run"
  shutil.copytree(one_process, path)
  before = np.load(path / "codes" / "gallery" / "codes.npy")
  shutil.rmtree(path / "codes")
  for mode in ("export", "evaluate"):
    command = local_runs.run_command(path, **_CHANGES) + [f"--mode={mode}"]
    with local_runs.launch_command(command, 2) as process:
      output, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
  after = np.load(path / "codes" / "gallery" / "codes.npy")
  np.testing.assert_array_equal(after, before, strict=True)
  assert re.search(r"^\[0\] chain ", output, re.M)
  ours, theirs = (
      json.loads((one / "report.json").read_text())
      for one in (path, one_process)
  )
  assert ours["results"] == theirs["results"]


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_process_ends_the_run_with_one_line(victim, tmp_path):
  path = tmp_path / "run"
  with local_runs.launch(path, 2, devices=1, train__num_epochs=2000) as process:
    local_runs.wait_until(lambda: local_runs.training_rows(path), process)
    start = time.monotonic()
    os.kill(local_runs.children(process)[victim], signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert time.monotonic() - start < 60
  assert process.returncode == 76
  assert f"[{1 - victim}] error: process {victim} (" in error
  assert "Check failure stack trace" not in error


def _write_videos(folder, *, seed):
  """Writes a tiny set in UCF101's layout."""
  folder.mkdir()
  rng = np.random.default_rng(seed)
  for split, num_videos in (("train", 20), ("test", 6)):
    with h5py.File(folder / f"ucf_{split}_feats.h5", "w") as file:
      file["feats"] = rng.random((num_videos, 8, 24)).astype(np.float16)
    labels = np.eye(3, dtype=np.uint8)[np.arange(num_videos) % 3]
    scipy.io.savemat(folder / f"ucf_{split}_labels.mat", {"labels": labels})


def test_a_host_with_other_videos_ends_all_with_its_reason(tmp_path):
  port, started = _free_port(), []
  for process_id in range(2):
    folder = tmp_path / f"host_{process_id}"
    _write_videos(folder, seed=process_id)
    command = local_runs.run_command(
        tmp_path / "run", data__dataset="ucf101", data__root=str(folder)
    )
    place = [f"--process_id={process_id}", "--num_processes=2"]
    command += [f"--coordinator=localhost:{port}", *place]
    started.append(local_runs.started(command, JAX_PLATFORMS="cpu"))
  with started[0] as first, started[1] as second:
    (_, told), (_, error) = (
        process.communicate(timeout=90) for process in (first, second)
    )
    assert (first.returncode, second.returncode) == (76, 2)
  reason = r"`data.root` must hold the same videos on all hosts, .*\n"
  assert re.fullmatch("error: process 1: " + reason, _errors(error))
  assert re.fullmatch(
      r"error: process 1 \(.*\) failed: " + reason, _errors(told)
  )


def _errors(text):
  """Leaves out what libraries say."""
  lines = text.splitlines(keepends=True)
  return "".join(line for line in lines if line.startswith("error: "))
