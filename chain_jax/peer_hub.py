"""Process 0 listens to all processes of a run and tells them what to do.

A star: each process, 0 included, keeps one connection to this hub. The hub
calls the roll, passes stop requests and failures on, holds barriers, and ends
all processes when one has died, hangs, or none gets any further.
"""

import asyncio
import dataclasses
import threading
import time
from typing import Any

from chain_jax import peer_messages
from chain_jax.peer_messages import encode

_WAY_OUT = "run the same command again on all hosts to go on"


@dataclasses.dataclass(kw_only=True)
class _Member:
  process_id: int
  host: str
  settings: dict[str, str]
  writer: asyncio.StreamWriter
  heard: float
  count: int = 0
  barrier: str | None = None

  @property
  def name(self) -> str:
    return f"process {self.process_id} (host {self.host})"


class Hub:
  """The hub of one run; its thread ends with the process."""

  def __init__(
      self,
      *,
      port: int,
      address: str,
      num_processes: int,
      start_timeout: float,
      hang_seconds: float,
  ) -> None:
    """Opens the port.

    Args:
      port: To listen at; 0 takes a free one.
      address: "HOST:PORT" as the others were told, for messages.
      num_processes: That the run is to have.
      start_timeout: Seconds in which all must report.
      hang_seconds: Ends a run in which no count changes for so long; 0 = never.

    Raises:
      OSError: If the port is in use.
    """
    self._socket = peer_messages.listen(port)
    self.port = self._socket.getsockname()[1]
    # For JAX's own coordinator, which binds it too.
    self._reserved = peer_messages.reserve_port()
    self._address = address
    self._num_processes = num_processes
    self._deadline = time.monotonic() + start_timeout
    self._start_timeout = start_timeout
    self._hang_seconds = hang_seconds
    self._members: dict[int, _Member] = {}
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
    await asyncio.start_server(
        self._attend, sock=self._socket, limit=peer_messages.LONGEST
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
    try:
      hello = await asyncio.wait_for(reader.readline(), 10)
      member = self._admit(peer_messages.decode(hello), writer)
      while member and (line := await reader.readline()):
        member.heard = time.monotonic()
        self._handle(member, peer_messages.decode(line))
    except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
      pass
    finally:
      if member:
        self._left(member)
      writer.close()

  def _admit(
      self, hello: dict[str, Any], writer: asyncio.StreamWriter
  ) -> _Member | None:
    """Takes a process in, unless it is a stranger or does not fit."""
    try:
      member = _Member(
          process_id=int(hello["process_id"]),
          host=str(hello["host"]),
          settings=dict(hello["settings"]),
          writer=writer,
          heard=time.monotonic(),
      )
      expected = int(hello["num_processes"])
    except (KeyError, TypeError, ValueError):
      return None
    if self._verdict:
      writer.write(self._verdict)
      return None
    if problem := self._misfit(member, expected):
      verdict = encode("refused", reason=problem)
      writer.write(verdict)
      if not self._started:
        self._end(verdict)
      return None
    self._members[member.process_id] = member
    if len(self._members) == self._num_processes:
      self._started = True
      self._forgive(time.monotonic())
      port = self._reserved.getsockname()[1]
      self._tell_all(encode("start", port=port))
    return member

  def _misfit(self, new: _Member, expected: int) -> str:
    if expected != self._num_processes:
      return (
          f"--num_processes must be the same in all processes, got {expected} in"
          f" {new.name} and {self._num_processes} in process 0; start the same"
          " command everywhere."
      )
    if self._started:
      return (
          f"the run at {self._address} has all its processes and needs no second"
          f" process {new.process_id}; choose another port for another run."
      )
    if other := self._members.get(new.process_id):
      return (
          f"--process_id must differ in all processes, got {new.process_id} at"
          f" host {other.host} and again at host {new.host}; count them from 0."
      )
    for other in self._members.values():
      for name in sorted(new.settings.keys() | other.settings.keys()):
        ours, theirs = new.settings.get(name), other.settings.get(name)
        if ours != theirs:
          return (
              f"`{name}` must be the same in all processes, got {ours} in"
              f" {new.name} and {theirs} in {other.name}; start the same command"
              " everywhere."
          )
    return ""

  def _handle(self, member: _Member, message: dict[str, Any]) -> None:
    kind = message["kind"]
    if kind == "alive" and message.get("count") != member.count:
      member.count = int(message.get("count", 0))
      self._progressed = time.monotonic()
    elif kind == "stop":
      self._stopping = True
      reason = f"{message.get('reason')} at {member.name}"
      self._tell_all(encode("stop", reason=reason), but=member)
      member.writer.write(encode("heard"))
    elif kind == "failed":
      reason = f"{member.name} failed: {message.get('reason')}"
      member.writer.write(encode("heard"))  # This process may end by the next.
      self._end(encode("failed", reason=reason), but=member)
    elif kind == "barrier":
      self._reach(member, str(message.get("name")), message.get("value"))

  def _reach(self, member: _Member, name: str, value: Any) -> None:
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

  def _left(self, member: _Member) -> None:
    if not self._started:
      # It may come back while the roll is called.
      if self._members.get(member.process_id) is member:
        del self._members[member.process_id]
    elif not self._finished and not self._stopping:
      self._end(encode("lost", reason=f"{member.name} has died; {_WAY_OUT}."))

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
        self._end(encode("missing", reason=self._missing()))
      return
    members = self._members.values()
    for member in members:
      if now - member.heard > peer_messages.SILENCE_SECONDS:
        reason = (
            f"{member.name} has died or hangs: silent for"
            f" {now - member.heard:.0f} s; {_WAY_OUT}."
        )
        self._end(encode("lost", reason=reason))
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
      self._end(encode("lost", reason=reason))

  def _missing(self) -> str:
    missing = sorted(set(range(self._num_processes)) - self._members.keys())
    numbers = ", ".join(map(str, missing[:10])) + ", ..." * (len(missing) > 10)
    return (
        f"process{'es' * (len(missing) > 1)} {numbers} of {self._num_processes}"
        f" did not report to {self._address} within {self._start_timeout:.0f} s;"
        " check that the same command runs on every host, and that its port is"
        " open."
    )

  def _end(self, verdict: bytes, *, but: _Member | None = None) -> None:
    if not self._verdict:
      self._verdict = verdict
      self._tell_all(verdict, but=but)

  def _tell_all(self, message: bytes, *, but: _Member | None = None) -> None:
    """Tells all; process 0 last, for the hub ends with it."""
    for process_id in sorted(self._members, reverse=True):
      member = self._members[process_id]
      if member is not but and not member.writer.is_closing():
        member.writer.write(message)
