"""A way to a server that seems to stay up when the server is gone.

JAX's client ends its process with a stack trace, in C++, at the moment it loses
the coordinator; nothing in Python comes before it. Through this relay it does
not notice, and `peers.py` has the time to say in one line what happened.
"""

import contextlib
import socket
import threading
import time

from chain_jax import peer_messages

_CHUNK = 2**16
_RETRY_SECONDS = 0.1


def relay_to(host: str, port: int, *, timeout: float) -> int:
  """Starts threads that pass a local port's connections on to a server.

  Args:
    host: Of the server.
    port: Of the server, which need not be up yet.
    timeout: Seconds to wait for each connection to it.

  Returns:
    The port, at 127.0.0.1 only.
  """
  listener = socket.create_server(("127.0.0.1", 0))

  def accept() -> None:
    while True:
      try:
        near, _ = listener.accept()
      except OSError:  # Too many open files: the client tries again.
        time.sleep(_RETRY_SECONDS)
        continue
      threading.Thread(
          target=_pass_on, args=(near, host, port, timeout), daemon=True
      ).start()

  threading.Thread(target=accept, name="relay", daemon=True).start()
  return listener.getsockname()[1]


def _pass_on(near: socket.socket, host: str, port: int, timeout: float) -> None:
  try:
    far = peer_messages.connect(host, port, timeout=timeout)
  except OSError:
    near.close()
    return
  with contextlib.suppress(OSError):  # It may have hung up already.
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
  far.settimeout(None)
  threading.Thread(target=_copy, args=(far, near), daemon=True).start()
  _copy(near, far)
  # The client hung up: so do we. The other way round `near` stays open.
  with contextlib.suppress(OSError):
    far.shutdown(socket.SHUT_RDWR)
  far.close()
  near.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
  """Passes bytes on until `source` ends; that `target` ended is kept quiet."""
  with contextlib.suppress(OSError):
    while chunk := source.recv(_CHUNK):
      target.sendall(chunk)
    return
  # Sending failed: go on reading, so that the client can go on writing.
  with contextlib.suppress(OSError):
    while source.recv(_CHUNK):
      pass
