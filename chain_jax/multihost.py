"""Start of a run of several processes, before any device is used.

Each process reports to process 0, which calls the roll (`peer_hub.py`); only
when all are there does JAX's own start-up begin, which would end a process
without a word of who is missing.
"""

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from typing import NamedTuple

from chain_jax import config as config_lib
from chain_jax import (
    errors,
    jax_start,
    peer_hub,
    peers,
    progress,
)

_LONGEST_START = 10**6
# What may differ between hosts: nothing learnt depends on it.
_HOST_FIELDS = ("data.root", "data.num_workers", "data.prepared.segments_root")


class Place(NamedTuple):
  """Which of the processes of a run this one is."""

  host: str  # Of process 0.
  port: int  # Where process 0 listens for the others.
  num_processes: int
  process_id: int
  local_device_ids: list[int] | None = None  # None = all of this host.


def find_place(
    distributed: str,
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    *,
    start_timeout: float,
) -> Place | None:
  """Finds out whether this is one process of several.

  Args:
    distributed: "auto" asks the environment, if no coordinator is given: a TPU
      pod, GKE with TPUs, a step of Slurm or Open MPI with several tasks. "on"
      asks Kubernetes' Jobs too and insists on an answer; "off" asks nobody.
    coordinator: "HOST:PORT" of process 0, with the next two, or None.
    num_processes: Of the run.
    process_id: This process's number.
    start_timeout: Seconds that the environment may take to answer.

  Returns:
    The place; None for a run of one process.

  Raises:
    InputError: If the flags do not fit together, or "on" finds nothing.
    RunError: If the environment names hosts that are not there.
  """
  if not 1 <= start_timeout <= _LONGEST_START:
    raise errors.InputError(
        f"--start_timeout must be in 1 to {_LONGEST_START} seconds, got"
        f" {start_timeout}; try 45."
    )
  given = (coordinator, num_processes, process_id)
  if any(one is not None for one in given):
    place = _given_place(distributed, *given)
  elif distributed == "off":
    return None
  else:
    place = _detect(distributed, start_timeout)
  return place if place and place.num_processes > 1 else None


def _given_place(
    distributed: str,
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
) -> Place:
  if None in (coordinator, num_processes, process_id) or distributed == "off":
    raise errors.InputError(
        "--coordinator, --num_processes and --process_id must be given all three"
        " (without --distributed=off) or not at all, got"
        f" {coordinator}, {num_processes} and {process_id}; see --help."
    )
  if num_processes < 1 or not 0 <= process_id < num_processes:
    raise errors.InputError(
        "--process_id must be in 0 to --num_processes - 1, got"
        f" {process_id} of {num_processes}; count the processes from 0."
    )
  host, port = _split(coordinator)
  return Place(host, port, num_processes, process_id)


def _split(coordinator: str) -> tuple[str, int]:
  host, _, port = coordinator.rpartition(":")
  try:
    host.encode("idna")  # As the resolver does, which would say less.
    is_host = host.strip("[]") != ""
  except UnicodeError:
    is_host = False
  if not is_host or not port.isdecimal() or len(port) > 5:
    port = "0"
  if not 0 < int(port) < 2**16:
    raise errors.InputError(
        "--coordinator must be HOST:PORT of process 0, got"
        f" {coordinator!r}; try {host or coordinator}:8476."
    )
  return host.strip("[]"), int(port)


def _detect(distributed: str, start_timeout: float) -> Place | None:
  """Asks JAX, whose detection has no public name."""
  if distributed == "auto" and not _several_are_likely():
    return None
  from jax._src import clusters

  detect = clusters.ClusterEnv.auto_detect_unset_distributed_params
  try:
    coordinator, num_processes, process_id, devices = detect(
        os.environ.get("JAX_COORDINATOR_ADDRESS"),
        *(None, None, None, None),
        int(start_timeout),
    )
  # The environment is asked over the network, through many libraries.
  except Exception as error:
    raise errors.RunError(
        f"the environment must name the processes of the run ({error}); give"
        " --coordinator, --num_processes and --process_id instead, or"
        " --distributed=off for one process."
    ) from error
  if None in (coordinator, num_processes, process_id):
    if distributed == "auto":
      return None
    raise errors.InputError(
        "--distributed=on must find a TPU pod, a step of Slurm or Open MPI or a"
        " Job of Kubernetes, got none; give --coordinator, --num_processes and"
        " --process_id."
    )
  host, port = _split(coordinator)
  return Place(host, port, num_processes, process_id, devices)


def _several_are_likely() -> bool:
  """Looks at the environment alone; no network, no waiting."""
  from jax._src import cloud_tpu_init  # Whether this host has TPU chips.

  def count(name: str) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else 0

  # Inside `srun`: an allocation alone has many tasks and runs one process.
  in_slurm = count("SLURM_STEP_NUM_TASKS") > 1
  in_open_mpi = count("OMPI_COMM_WORLD_SIZE") > 1
  return in_slurm or in_open_mpi or cloud_tpu_init.running_in_cloud_tpu_vm


@contextlib.contextmanager
def joined(
    place: Place | None,
    config: config_lib.ExperimentConfig,
    *,
    mode: str,
    start_timeout: float,
) -> Iterator[None]:
  """Makes this process one of several for the block, from start to end.

  Args:
    place: From `find_place`; None does nothing.
    config: The same in all processes, but for where a host's files lie.
    mode: The same in all processes.
    start_timeout: Seconds in which all processes must report.

  Raises:
    InputError: If the processes do not fit together.
    RunError: If one is missing.
  """
  if place is None:
    yield
    return
  if place.process_id:
    errors.speak_as(f"process {place.process_id}")
    progress.hide()
    # Libraries print too, and one table is enough.
    # A closed stream needs nothing.
    with contextlib.suppress(AttributeError, ValueError, OSError):
      os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
  hub = None
  if place.process_id == 0:
    hub = _open_hub(place, start_timeout, config.train.hang_seconds)
  host = hub.own_host if hub else place.host
  port = peers.join(
      host,
      place.port,
      process_id=place.process_id,
      num_processes=place.num_processes,
      settings=_settings(config, mode),
      start_timeout=start_timeout,
  )
  with peers.told():
    jax_start.start(
        host,
        port,
        num_processes=place.num_processes,
        process_id=place.process_id,
        listens_at=hub.listens_at if hub else "",
        local_device_ids=place.local_device_ids,
        timeout=start_timeout,
    )
    secret = hub.secret if hub else ""
    peers.prove(jax_start.hand_over(secret, timeout=start_timeout))
    yield
    peers.leave()
    import jax

    jax.distributed.shutdown()


def _settings(config: config_lib.ExperimentConfig, mode: str) -> dict[str, str]:
  import jax

  named = {
      f"--config.{name}": repr(config_lib.field_value(config, name))[:200]
      for name in config_lib.field_names(config)
      if name not in _HOST_FIELDS
  }
  return named | {"--mode": mode, "the version of jax": jax.__version__}


def _open_hub(
    place: Place, start_timeout: float, hang_seconds: float
) -> peer_hub.Hub:
  try:
    hub = peer_hub.Hub(
        place.host,
        place.port,
        secret=secrets.token_hex(),
        num_processes=place.num_processes,
        start_timeout=start_timeout,
        hang_seconds=hang_seconds,
    )
  except OSError as error:
    raise errors.RunError(
        f"port {place.port} of this host must be free for process 0"
        f" ({error.strerror}); end what uses it, or give another in"
        " --coordinator."
    ) from error
  if hub.is_everywhere:
    print(
        f"process 0 listens at all addresses of this host, for {place.host} is"
        " none that other hosts surely share",
        file=sys.stderr,
    )
  hub.start()
  return hub
