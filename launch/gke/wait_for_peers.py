"""python wait_for_peers.py PATTERN NUM_HOSTS

Waits, as an init container, until every host of a job is there: its node, its
image and its name. PATTERN is a host's name with {} for its number. Needs the
standard library only.
"""

import contextlib
import socket
import sys
import threading
import time

_PORT = 8477
_POLL_SECONDS = 2.0
# A host that has seen all stays this long, so that all see it too.
_LINGER_SECONDS = 15.0
# Then something else is wrong: let the whole job start again.
_DEADLINE_SECONDS = 1800.0


def listen(port: int) -> socket.socket:
  """Opens a port that answers every connection by closing it.

  Args:
    port: On all addresses; 0 for a free one.

  Returns:
    The listening socket; a thread serves it until it is closed.
  """
  server = socket.create_server(("", port), backlog=1024)

  def answer() -> None:
    with contextlib.suppress(OSError):  # Closed at the end.
      while True:
        server.accept()[0].close()

  threading.Thread(target=answer, daemon=True).start()
  return server


def is_there(host: str, port: int) -> bool:
  """Says whether a host has a name and answers."""
  try:
    socket.create_connection((host, port), timeout=_POLL_SECONDS).close()
  except OSError:
    return False
  return True


def wait(
    peers: list[tuple[str, int]], *, deadline_seconds: float
) -> list[tuple[str, int]]:
  """Waits until each peer has answered once.

  Args:
    peers: Host and port of each.
    deadline_seconds: After which it gives up.

  Returns:
    The peers that never answered.
  """
  end = time.monotonic() + deadline_seconds
  missing = peers
  while True:
    missing = [peer for peer in missing if not is_there(*peer)]
    if not missing or time.monotonic() > end:
      return missing
    print(
        f"waiting for {missing[0][0]} and {len(missing) - 1} more", flush=True
    )
    time.sleep(_POLL_SECONDS)


def main() -> None:
  """Waits for the hosts of the command line; exits 1 where some are missing."""
  pattern, num_hosts = sys.argv[1], int(sys.argv[2])
  with listen(_PORT):
    peers = [(pattern.format(i), _PORT) for i in range(num_hosts)]
    missing = wait(peers, deadline_seconds=_DEADLINE_SECONDS)
    if missing:
      names = ", ".join(host for host, _ in missing)
      raise SystemExit(f"error: hosts that never came up: {names}")
    time.sleep(_LINGER_SECONDS if num_hosts > 1 else 0)


if __name__ == "__main__":
  main()
