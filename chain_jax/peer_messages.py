"""What the processes of a run tell each other: one JSON object a line."""

import json
import socket
import time
from typing import Any

# How often a process says that it is alive, and after how long a silence it is
# taken for dead. JAX's own watch is slower, and ends in a stack trace.
ALIVE_SECONDS = 2.0
SILENCE_SECONDS = 20.0
# A clock that jumps by so much says that this process was stopped itself.
STALL_SECONDS = 5.0
_RETRY_SECONDS = 0.1
# Of a line; a stranger's line is no longer.
LONGEST = 2**16


def encode(kind: str, **content: Any) -> bytes:
  r"""Writes a message.

  >>> encode("alive", count=3)
  b'{"kind": "alive", "count": 3}\n'
  """
  return json.dumps({"kind": kind, **content}).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
  """Reads a message; what is none becomes one of kind ""."""
  try:
    message = json.loads(line)
  except ValueError:
    message = None
  if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
    return {"kind": ""}
  return message


def listen(port: int) -> socket.socket:
  """Opens a port for IPv6 and IPv4; 0 takes any that is free.

  Raises:
    OSError: If the port is in use.
  """
  if socket.has_dualstack_ipv6():
    return socket.create_server(
        ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096
    )
  return socket.create_server(("", port), backlog=4096)


def connect(host: str, port: int, *, timeout: float) -> socket.socket:
  """Connects to a server that may not be up yet.

  Raises:
    OSError: If it does not answer in time; the last attempt's.
  """
  deadline = time.monotonic() + timeout
  while True:
    left = max(deadline - time.monotonic(), 0.01)
    try:
      connection = socket.create_connection((host, port), timeout=min(left, 5))
      connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
      return connection
    except OSError:
      if time.monotonic() + _RETRY_SECONDS > deadline:
        raise
    time.sleep(_RETRY_SECONDS)


def reserve_port() -> socket.socket:
  """Takes a free port for a server that shares it, as gRPC's do.

  While the socket stays open no one else gets the port.
  """
  is_dual = socket.has_dualstack_ipv6()
  reserved = socket.socket(socket.AF_INET6 if is_dual else socket.AF_INET)
  reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
  if is_dual:
    reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
  reserved.bind(("", 0))
  return reserved
