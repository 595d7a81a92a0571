"""What the processes of a run tell each other: one JSON object a line."""

import errno
import hmac
import ipaddress
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
_LONGEST_REASON = 2000
_BACKLOG = 4096
# Of a name's address: this machine has none such, and others may.
_ELSEWHERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


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
  except (ValueError, RecursionError):
    message = None
  if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
    return {"kind": ""}
  return message


def plain(text: Any) -> str:
  r"""Makes one line of bounded length of what another process said.

  >>> plain("no room\n\x1b[2J")
  'no room  [2J'
  """
  text = str(text)[:_LONGEST_REASON]
  return "".join(one if one.isprintable() else " " for one in text)


def proof(secret: str, nonce: str, process_id: int) -> str:
  """Returns what shows that a process knows the secret, and not the secret."""
  message = f"{nonce} {process_id}".encode()
  return hmac.new(secret.encode(), message, "sha256").hexdigest()


def listen(host: str, port: int) -> list[socket.socket]:
  """Opens a port at those addresses of a name that are this machine's.

  Args:
    host: By which other hosts know this machine.
    port: At each address.

  Returns:
    A socket for each; one for all addresses of IPv6 and IPv4 where the name
    has none here, as behind a translator of addresses.

  Raises:
    OSError: If the port is in use.
  """
  sockets: list[socket.socket] = []
  for family, address in _addresses(host, port):
    try:
      server = socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
      if error.errno in _ELSEWHERE:
        continue
      for server in sockets:
        server.close()
      raise
    sockets.append(server)
  if sockets:
    return sockets
  is_dual = socket.has_dualstack_ipv6()
  family = socket.AF_INET6 if is_dual else socket.AF_INET
  return [
      socket.create_server(
          ("", port), family=family, dualstack_ipv6=is_dual, backlog=_BACKLOG
      )
  ]


def _addresses(host: str, port: int) -> list[tuple[int, Any]]:
  """Returns families and addresses of a name, where others surely see them."""
  try:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
  except (OSError, ValueError):
    return []
  pairs = dict.fromkeys((family, address) for family, *_, address in found)
  ips = [ipaddress.ip_address(address[0]) for _, address in pairs]
  # Many machines give their own name a loopback address, for themselves only;
  # and JAX's server takes no address that needs an interface beside it.
  is_odd = any(ip.is_loopback for ip in ips) and not _is_loopback(host)
  return [] if is_odd or any(ip.is_link_local for ip in ips) else list(pairs)


def _is_loopback(host: str) -> bool:
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return host.rstrip(".").lower().rpartition(".")[2] == "localhost"


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


def reserve_port(beside: socket.socket) -> socket.socket:
  """Takes a free port for a server that shares it, as gRPC's do.

  While the socket stays open no one else gets the port.

  Args:
    beside: Listens at the same address.
  """
  reserved = socket.socket(beside.family)
  reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
  if beside.family == socket.AF_INET6:
    option = socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
    reserved.setsockopt(*option, beside.getsockopt(*option))
  host, _, *rest = beside.getsockname()
  reserved.bind((host, 0, *rest))
  return reserved
