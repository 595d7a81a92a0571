"""Process 0 listens to all processes of a run and tells them what to do.

A star: each process, 0 included, keeps one connection to this hub. The hub
calls the roll, passes stop requests and failures on, holds barriers, and ends
all processes when one has died, hangs, or none gets any further.

The roll comes before there is a secret. Once JAX runs, each process shows that
it has the one that JAX's service hands to its own processes only: a stranger in
a process's place ends the run there, and after the roll nobody is taken in.
"""

import asyncio
import contextlib
import hmac
import threading
import time
from typing import Any

from chain_jax import peer_messages, roll_call
from chain_jax.peer_messages import encode

_WAY_OUT = "run the same command again on all hosts to go on"
_HELLO_SECONDS = 10.0
# Connections that have not said who they are, beside one a process; the oldest
# goes first, for a process speaks at once.
_MOST_STRANGERS = 256
# Beside the time that JAX's own start may take.
_PROOF_SECONDS = 5.0


class Hub:
  """The hub of one run; its thread ends with the process."""

  def __init__(
      self,
      host: str,
      port: int,
      *,
      secret: str,
      num_processes: int,
      start_timeout: float,
      hang_seconds: float,
  ) -> None:
    """Opens the port.

    Args:
      host: By which the others know this one.
      port: To listen at.
      secret: That JAX's service hands over to the processes.
      num_processes: That the run is to have.
      start_timeout: Seconds in which all must report.
      hang_seconds: Ends a run in which no count changes for so long; 0 = never.

    Raises:
      OSError: If the port is in use.
    """
    self._sockets = peer_messages.listen(host, port)
    self.listens_at = self._sockets[0].getsockname()[0]
    self.is_everywhere = self.listens_at in ("::", "0.0.0.0")
    self.own_host = "localhost" if self.is_everywhere else self.listens_at
    # For JAX's own coordinator, which binds it too.
    self._reserved = peer_messages.reserve_port(self._sockets[0])
    self._address = f"{host}:{port}"
    self.secret = secret
    self._num_processes = num_processes
    self._deadline = time.monotonic() + start_timeout
    self._start_timeout = start_timeout
    self._hang_seconds = hang_seconds
    self._members: dict[int, roll_call.Member] = {}
    self._strangers: dict[asyncio.StreamWriter, None] = {}  # Oldest first.
    self._shared: dict[str, Any] = {}
    self._verdict: bytes | None = None
    self._started = self._stopping = self._finished = False
    self._progressed = time.monotonic()

  def start(self) -> None:
    """Serves in a thread."""
    threading.Thread(
        target=lambda: asyncio.run(self._serve()), name="peer hub", daemon=True
    ).start()

  async def _serve(self) -> None:
    for one in self._sockets:
      await asyncio.start_server(
          self._attend, sock=one, limit=peer_messages.LONGEST
      )
    ticked = time.monotonic()
    while True:
      await asyncio.sleep(min(1.0, peer_messages.ALIVE_SECONDS))
      now = time.monotonic()
      if now - ticked > peer_messages.STALL_SECONDS:
        self._forgive(now)
      ticked = now
      self._tell_all(encode("alive"))
      self._judge(now)

  async def _attend(
      self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
  ) -> None:
    """Keeps up one connection."""
    member = None
    # Whatever is said, and in whatever way, it ends at most its own connection.
    with contextlib.suppress(Exception):
      hello = await self._hear_stranger(reader, writer)
      member = self._admit(hello, writer)
      while member and (line := await reader.readline()):
        member.heard = time.monotonic()
        self._handle(member, peer_messages.decode(line))
    if member:
      self._left(member)
    writer.close()

  async def _hear_stranger(
      self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
  ) -> dict[str, Any]:
    self._strangers[writer] = None
    if len(self._strangers) > self._num_processes + _MOST_STRANGERS:
      oldest = next(iter(self._strangers))
      del self._strangers[oldest]
      oldest.transport.abort()
    try:
      hello = await asyncio.wait_for(reader.readline(), _HELLO_SECONDS)
    finally:
      self._strangers.pop(writer, None)
    return peer_messages.decode(hello)

  def _admit(
      self, hello: dict[str, Any], writer: asyncio.StreamWriter
  ) -> roll_call.Member | None:
    """Takes a process in, unless it is a stranger or does not fit."""
    member = roll_call.read(hello, writer)
    if member is None:
      return None
    if self._verdict:
      writer.write(self._verdict)
      return None
    if problem := self._misfit(member):
      verdict = _verdict("refused", problem)
      writer.write(verdict)
      if not self._started:
        self._end(verdict)
      return None
    self._members[member.process_id] = member
    if len(self._members) == self._num_processes:
      self._start()
    return member

  def _misfit(self, new: roll_call.Member) -> str:
    if self._started and new.num_processes == self._num_processes:
      return (
          f"the run at {self._address} has all its processes and needs no second"
          f" process {new.process_id}; choose another port for another run."
      )
    return roll_call.misfit(new, self._members, self._num_processes)

  def _start(self) -> None:
    self._started = True
    now = time.monotonic()
    self._forgive(now)
    self._deadline = now + self._start_timeout + _PROOF_SECONDS
    port = self._reserved.getsockname()[1]
    for member in self._members.values():
      member.writer.write(encode("start", port=port, nonce=member.nonce))

  def _handle(self, member: roll_call.Member, message: dict[str, Any]) -> None:
    kind = message["kind"] if self._started else ""
    if kind == "alive" and message.get("count") != member.count:
      member.count = int(message["count"])
      self._progressed = time.monotonic()
    elif kind == "proof":
      self._check(member, str(message.get("proof")))
    elif kind == "stop":
      self._stopping = True
      reason = f"{message.get('reason')} at {member.name}"
      self._tell_all(encode("stop", reason=reason), but=member)
      member.writer.write(encode("heard"))
    elif kind == "failed":
      reason = f"{member.name} failed: {message.get('reason')}"
      member.writer.write(encode("heard"))  # This process may end by the next.
      self._end(_verdict("failed", reason), but=member)
    elif kind == "barrier" and member.has_proven:
      self._reach(member, str(message.get("name")), message.get("value"))

  def _check(self, member: roll_call.Member, proof: str) -> None:
    expected = peer_messages.proof(self.secret, member.nonce, member.process_id)
    member.has_proven = hmac.compare_digest(proof.encode(), expected.encode())
    if not member.has_proven:
      self._end(_verdict("lost", f"{member.unproven}; {_WAY_OUT}."))

  def _reach(self, member: roll_call.Member, name: str, value: Any) -> None:
    member.barrier = name
    if member.process_id == 0:
      self._shared[name] = value
    if all(other.barrier == name for other in self._members.values()):
      for other in self._members.values():
        other.barrier = None
      self._finished = name == "end"
      self._progressed = time.monotonic()
      value = self._shared.pop(name, None)
      self._tell_all(encode("pass", name=name, value=value))

  def _left(self, member: roll_call.Member) -> None:
    if not self._started:
      # It may come back while the roll is called.
      if self._members.get(member.process_id) is member:
        del self._members[member.process_id]
    elif not self._finished and not self._stopping:
      self._end(_verdict("lost", f"{member.name} has died; {_WAY_OUT}."))

  def _forgive(self, now: float) -> None:
    """Forgets silences that this process may have slept through."""
    self._progressed = now
    for member in self._members.values():
      member.heard = now

  def _judge(self, now: float) -> None:
    if self._finished or self._stopping or self._verdict:
      return
    if not self._started:
      if now > self._deadline:
        self._end(_verdict("missing", self._missing()))
      return
    members = self._members.values()
    for member in members:
      if now - member.heard > peer_messages.SILENCE_SECONDS:
        reason = (
            f"{member.name} has died or hangs: silent for"
            f" {now - member.heard:.0f} s; {_WAY_OUT}."
        )
        self._end(_verdict("lost", reason))
        return
      if now > self._deadline and not member.has_proven:
        self._end(_verdict("lost", f"{member.unproven}; {_WAY_OUT}."))
        return
    silent = now - self._progressed
    waits = any(member.barrier for member in members)
    if 0 < self._hang_seconds < silent and not waits:
      slowest = min(members, key=lambda member: member.count)
      reason = (
          f"no process got any further for {silent:.0f} s, {slowest.name} is the"
          f" farthest behind at {slowest.count} steps and batches; {_WAY_OUT},"
          " with a higher `train.hang_seconds` if they were only slow."
      )
      self._end(_verdict("lost", reason))

  def _missing(self) -> str:
    missing = roll_call.missing(self._members, self._num_processes)
    return (
        f"{missing} of {self._num_processes} did not report to {self._address} (process 0 listens at {self.listens_at}) within"
        f" {self._start_timeout:.0f} s; check that the same command runs on"
        " every host, and that its port is open."
    )

  def _end(
      self, verdict: bytes, *, but: roll_call.Member | None = None
  ) -> None:
    if not self._verdict:
      self._verdict = verdict
      self._tell_all(verdict, but=but)

  def _tell_all(
      self, message: bytes, *, but: roll_call.Member | None = None
  ) -> None:
    """Tells all; process 0 last, for the hub ends with it."""
    for process_id in sorted(self._members, reverse=True):
      member = self._members[process_id]
      if member is not but and not member.writer.is_closing():
        member.writer.write(message)


def _verdict(kind: str, reason: str) -> bytes:
  return encode(kind, reason=peer_messages.plain(reason))
