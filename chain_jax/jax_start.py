"""Start of JAX in a run of several processes, once all of them have reported.

JAX's service takes one process of each number and answers nobody else. So what
process 0 leaves there, the secret of the run, only the run's processes know.
"""

import os

from chain_jax import errors, held_connection, peer_messages

# JAX's own watch is the second line behind `peers.py`, still within a minute.
_SILENCE_SECONDS = 50
# Who is missing here was in the roll and is none of ours: the hub says so, and
# JAX, which aborts, is more patient.
_PATIENCE_SECONDS = 15
_SECRET = "chain_jax/secret"


def start(
    host: str,
    port: int,
    *,
    num_processes: int,
    process_id: int,
    listens_at: str,
    local_device_ids: list[int] | None,
    timeout: float,
) -> None:
  """Makes this process one of JAX's.

  Args:
    host: Of process 0.
    port: That process 0 keeps for JAX's service.
    num_processes: Of the run.
    process_id: This process's number.
    listens_at: The address of JAX's service, in process 0.
    local_device_ids: None = all of this host.
    timeout: Seconds.

  Raises:
    RunError: If process 0 cannot be reached, or JAX does not start.
  """
  import jax

  # SIGTERM is `stop_notice`'s.
  jax.config.update("jax_enable_preemption_service", False)
  bind_address = None
  if process_id:
    _check_reachable(host, port, timeout)
    port = held_connection.relay_to(host, port, timeout=timeout)
    host = "127.0.0.1"
  else:
    bind_address = _address(listens_at, port)
  if any("_proxy" in name.lower() for name in os.environ):
    # gRPC would look for process 0 behind it; JAX would warn of that.
    os.environ["no_grpc_proxy"] = host
    jax.config.update("jax_check_proxy_envs", False)
  try:
    jax.distributed.initialize(
        _address(host, port),
        num_processes,
        process_id,
        local_device_ids=local_device_ids,
        cluster_detection_method="deactivate",
        initialization_timeout=int(timeout) + _PATIENCE_SECONDS,
        heartbeat_timeout_seconds=_SILENCE_SECONDS,
        coordinator_bind_address=bind_address,
    )
  # Of many libraries: JAX's own, gRPC's, a plugin's.
  except Exception as error:
    raise errors.RunError(
        f"JAX must start in process {process_id} of {num_processes}, but did"
        f" not ({errors.one_line(error)}); run the same command again on all"
        " hosts."
    ) from error


def hand_over(secret: str, *, timeout: float) -> str:
  """Leaves the secret with JAX's service, or takes it from there.

  Args:
    secret: In process 0; "" in the others.
    timeout: Seconds.

  Returns:
    The secret.

  Raises:
    RunError: If it is not there in time.
  """
  try:
    # JAX has no public name for its key-value store.
    from jax._src import distributed

    client = distributed.global_state.client
    if secret:
      client.key_value_set(_SECRET, secret)
      return secret
    return client.blocking_key_value_get(_SECRET, int(timeout * 1000))
  except Exception as error:
    raise errors.RunError(
        "JAX's service must hand over the secret of the run, but did not"
        f" ({errors.one_line(error)}); run the same command again on all hosts."
    ) from error


def _address(host: str, port: int) -> str:
  return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_reachable(host: str, port: int, timeout: float) -> None:
  """Finds a closed port before JAX does, which aborts."""
  try:
    peer_messages.connect(host, port, timeout=timeout).close()
  except OSError as error:
    raise errors.RunError(
        f"port {port} of {host} must be open to the other hosts, for JAX"
        f" ({error.strerror or error}); open all ports between the hosts of a"
        " run."
    ) from error
