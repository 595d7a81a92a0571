"""The other processes of this run: a dead or hung one ends all with a line.

Without it they would wait in a collective for ever. A thread keeps up one
connection to the hub in process 0 (`peer_hub.py`): it says that this process
is alive and how far it is, and does what the hub says. In a run of one process
everything here does nothing.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from chain_jax import errors, peer_messages, stop_notice

# What breaks in this process may come of another's end, of which the hub hears
# soon; if that one fell silent, it takes until its silence is noticed.
_DOUBT_SECONDS = 3.0
_LONG_DOUBT_SECONDS = peer_messages.SILENCE_SECONDS + 5


class _Membership:
  """This process's connection to the hub."""

  def __init__(
      self, connection: socket.socket, address: str, process_id: int
  ) -> None:
    self.connection = connection
    self.address = address
    self.process_id = process_id
    self.nonce = ""  # The hub's question, which the secret answers.
    self.count = 0
    self.finished = False  # The others may leave now.
    self.stopping = False
    self.fails = False  # This process ends by a fault of its own.
    self.leaves = False  # And has said so.
    self.hub_heard = threading.Event()
    self.passed = threading.Condition()
    self.values: dict[str, Any] = {}
    self._sending = threading.Lock()
    self._unread = b""

  def send(self, kind: str, **content: Any) -> None:
    with self._sending, contextlib.suppress(OSError):
      self.connection.sendall(peer_messages.encode(kind, **content))

  def send_and_wait(self, kind: str, **content: Any) -> None:
    self.hub_heard.clear()
    self.send(kind, **content)
    self.hub_heard.wait(2.0)

  def receive(self, timeout: float) -> list[dict[str, Any]] | None:
    """Returns the messages that came; None when the hub is gone."""
    self.connection.settimeout(timeout)
    try:
      read = self.connection.recv(peer_messages.LONGEST)
    except TimeoutError:
      return []
    except OSError:
      return None
    if not read:
      return None
    *lines, self._unread = (self._unread + read).split(b"\n")
    if len(self._unread) > peer_messages.LONGEST:
      return None  # No hub of ours.
    return [peer_messages.decode(line) for line in lines]

  def start(self, messages: list[dict[str, Any]]) -> None:
    """Starts the watch, with what came in one piece with the start."""
    stop_notice.relay_to(_tell_of_stop)
    threading.Thread(
        target=self._watch, args=(messages,), name="peers", daemon=True
    ).start()

  def _watch(self, messages: list[dict[str, Any]]) -> None:
    """Runs until the run ends."""
    for message in messages:
      self._act(message)
    heard = said = ticked = time.monotonic()
    while not self.finished:
      messages = self.receive(min(1.0, peer_messages.ALIVE_SECONDS))
      now = time.monotonic()
      if messages or now - ticked > peer_messages.STALL_SECONDS:
        heard = now
      ticked = now
      if messages is None:
        self._without_hub("has died")
        return
      if now - heard > peer_messages.SILENCE_SECONDS:
        self._without_hub(f"has died or hangs: silent for {now - heard:.0f} s")
      if now - said >= peer_messages.ALIVE_SECONDS:
        said = now
        self.send("alive", count=self.count)
      for message in messages:
        self._act(message)

  def _act(self, message: dict[str, Any]) -> None:
    kind, reason = message["kind"], peer_messages.plain(message.get("reason"))
    if kind == "heard":
      self.hub_heard.set()
    elif kind == "stop":
      self.stopping = True
      stop_notice.request(reason)
    elif kind == "pass":
      name = str(message.get("name"))
      with self.passed:
        self.finished = name == "end"
        self.values[name] = message.get("value")
        self.passed.notify_all()
    elif kind == "failed" and self.fails:
      pass  # Both fail, perhaps of one cause: each says its own.
    elif kind in ("failed", "lost", "refused", "missing"):
      _end(reason)

  def _without_hub(self, what: str) -> None:
    if not (self.finished or self.stopping or self.leaves):
      _end(
          f"process 0 (at {self.address}) {what}; run the same command again on"
          " all hosts to go on."
      )


_membership: _Membership | None = None


def _end(line: str) -> NoReturn:
  stop_notice.end_process(f"error: {line}", errors.EXIT_PEER_LOST)


def join(
    host: str,
    port: int,
    *,
    process_id: int,
    num_processes: int,
    settings: dict[str, str],
    start_timeout: float,
) -> int:
  """Reports to the hub, waits until all processes have, starts the watch.

  Args:
    host: Of process 0.
    port: Of its hub.
    process_id: This process's number.
    num_processes: Of the run.
    settings: What must be the same in all processes, by name.
    start_timeout: Seconds in which all must report.

  Returns:
    The port at `host` that process 0 keeps for JAX's own coordinator.

  Raises:
    InputError: If the processes do not fit together.
    RunError: If the hub cannot be reached, or one has not reported in time.
  """
  deadline = time.monotonic() + start_timeout
  address = f"{host}:{port}"
  try:
    connection = peer_messages.connect(host, port, timeout=start_timeout)
  except OSError as error:
    raise errors.RunError(
        f"process 0 must answer at {address}, but did not within"
        f" {start_timeout:.0f} s ({error.strerror or error}), {num_processes}"
        " processes expected; check that the same command runs on every host"
        " and that its port is open."
    ) from error
  member = _Membership(connection, address, process_id)
  member.send(
      "hello",
      process_id=process_id,
      num_processes=num_processes,
      host=socket.gethostname(),
      settings=settings,
  )
  try:
    port = _await_start(member, deadline + 5)
    if port is None:
      raise errors.RunError(
          f"{num_processes} processes expected, but process 0 at {address} did"
          f" not see all of them within {start_timeout:.0f} s; check that the"
          " same command runs on every host and that its port is open."
      )
  except (errors.InputError, errors.RunError):
    connection.close()
    raise
  return port


def _await_start(member: _Membership, deadline: float) -> int | None:
  """Starts the watch once all have reported; returns the port for JAX."""
  global _membership
  # The hub speaks first; it may have come up after this process.
  while time.monotonic() < deadline:
    messages = member.receive(timeout=1.0)
    if messages is None:
      return None
    for place, message in enumerate(messages):
      kind, reason = message["kind"], message.get("reason")
      if kind == "refused":
        raise errors.InputError(peer_messages.plain(reason))
      if kind in ("missing", "lost", "failed"):
        raise errors.RunError(peer_messages.plain(reason))
      port = message.get("port")
      if kind == "start" and type(port) is int and 0 < port < 2**16:
        _membership = member
        member.nonce = peer_messages.plain(message.get("nonce"))
        member.start(messages[place + 1 :])
        return port
  return None


def prove(secret: str) -> None:
  """Shows the hub that this process has the secret of the run."""
  if _membership:
    proof = peer_messages.proof(
        secret, _membership.nonce, _membership.process_id
    )
    _membership.send("proof", proof=proof)


def _tell_of_stop(reason: str) -> None:
  if _membership and not _membership.stopping:
    _membership.stopping = True
    _membership.send_and_wait("stop", reason=reason)


def progress() -> None:
  """Counts a step or a batch: this process gets further."""
  if _membership:
    _membership.count += 1


def barrier(name: str, value: Any = None) -> Any:
  """Waits until all processes are here, however long the slowest takes.

  Unlike one of JAX's, it needs no device and knows no timeout: who waits is
  freed, or ended, when another process is gone.

  Args:
    name: Of the place; each is passed once.
    value: What process 0 tells the others, of JSON's types.

  Returns:
    The value that process 0 gave.
  """
  member = _membership
  if member is None:
    return value
  member.send("barrier", name=name, value=value)
  with member.passed:
    # Short waits: a signal's handler runs between them.
    while name not in member.values:
      member.passed.wait(1.0)
    return member.values.pop(name)


@contextlib.contextmanager
def told() -> Iterator[None]:
  """Tells the others why this process fails, where an error leaves the block.

  If they are the cause, this process ends here, with the line that says so.
  """
  try:
    yield
  except errors.Stopped:
    raise
  except Exception as error:
    if _membership:
      _tell_of_failure(_membership, error)
    raise


def _tell_of_failure(member: _Membership, error: Exception) -> None:
  """Leaves time for the watch to end this process, then speaks."""
  if isinstance(error, errors.InputError):
    member.fails = True
  elif isinstance(error, (errors.RunError, OSError)):
    time.sleep(_DOUBT_SECONDS)
  else:
    time.sleep(_LONG_DOUBT_SECONDS)
  member.fails = member.leaves = True
  reason = " ".join(str(error).split()) or type(error).__name__
  member.send_and_wait("failed", reason=reason[:1000])


def leave() -> None:
  """Waits for all at the end of a run; then the others may go."""
  barrier("end")
