"""Who belongs to a run of several processes: what each says of itself at first.

All of it is said before there is a secret, so nothing is taken for granted.
"""

import asyncio
import dataclasses
import itertools
import secrets
import time
from collections.abc import Collection, Mapping
from typing import Any

_LONGEST_NAME = 200


@dataclasses.dataclass(kw_only=True)
class Member:
  """One process and its connection to the hub."""

  process_id: int
  num_processes: int  # That it expects.
  host: str
  settings: dict[str, str]
  writer: asyncio.StreamWriter
  heard: float
  nonce: str = dataclasses.field(default_factory=secrets.token_hex)
  has_proven: bool = False
  count: int = 0
  barrier: str | None = None

  @property
  def name(self) -> str:
    """Number and host, for messages."""
    return f"process {self.process_id} (host {self.host})"

  @property
  def unproven(self) -> str:
    """What is wrong where the proof is; says where it came from."""
    address = self.writer.get_extra_info("peername")[0]
    return f"{self.name} at {address} did not show the secret of this run"


def read(hello: dict[str, Any], writer: asyncio.StreamWriter) -> Member | None:
  """Reads the first message of a connection.

  Args:
    hello: The message.
    writer: Of the connection.

  Returns:
    The process; None for what no process of ours would say.
  """
  process_id, expected = hello.get("process_id"), hello.get("num_processes")
  settings = hello.get("settings")
  # A bool is an int to Python.
  if hello["kind"] != "hello" or type(process_id) is not int:
    return None
  if type(expected) is not int or not isinstance(settings, dict):
    return None
  if not 0 <= process_id < expected:
    return None
  return Member(
      process_id=process_id,
      num_processes=expected,
      host=str(hello.get("host"))[:_LONGEST_NAME],
      settings={name: str(value) for name, value in settings.items()},
      writer=writer,
      heard=time.monotonic(),
  )


def misfit(
    new: Member, members: Mapping[int, Member], num_processes: int
) -> str:
  """Says why a process does not fit to those that are there; "" if it does."""
  if new.num_processes != num_processes:
    return (
        "--num_processes must be the same in all processes, got"
        f" {new.num_processes} in {new.name} and {num_processes} in process 0;"
        " start the same command everywhere."
    )
  if other := members.get(new.process_id):
    return (
        f"--process_id must differ in all processes, got {new.process_id} at"
        f" host {other.host} and again at host {new.host}; count them from 0."
    )
  for other in members.values():
    for name in sorted(new.settings.keys() | other.settings.keys()):
      ours, theirs = new.settings.get(name), other.settings.get(name)
      if ours != theirs:
        return (
            f"`{name}` must be the same in all processes, got {ours} in"
            f" {new.name} and {theirs} in {other.name}; start the same command"
            " everywhere."
        )
  return ""


def missing(there: Collection[int], num_processes: int) -> str:
  """Names the processes that are not there, the first ten of many.

  >>> missing({0, 2}, 4)
  'processes 1, 3'
  """
  absent = (number for number in range(num_processes) if number not in there)
  shown = ", ".join(map(str, itertools.islice(absent, 10)))
  count = num_processes - len(there)
  return f"process{'es' * (count > 1)} {shown}" + ", ..." * (count > 10)
