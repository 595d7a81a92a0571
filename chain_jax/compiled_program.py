"""What a compiled program moves: read off XLA's text of it (HLO).

XLA's own cost analysis counts the body of a loop once, however often it runs,
and does not tell the chip's inner memory from HBM. Here a loop's body counts
as often as the loop turns, and only arrays that lie in HBM count as traffic: an
instruction's results and operands, whole even where it needs a part of one.
"""

import math
import re
from collections import Counter
from typing import NamedTuple

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)

# Bits of an element; "pred" takes a byte.
_BITS = {"pred": 8, "bf16": 16, "token": 0}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](\{[^{}]*\})?")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%([\w.\-]+) = (.*)$")
_HEADER = re.compile(r"^(ENTRY )?%([\w.\-]+) .*\{$")
_NAME = re.compile(r"%([\w.\-]+)")
# They name what is there already, or run what is counted by itself.
_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "call",
    "conditional",
    "after-all",
    "partition-id",
    "opt-barrier",
}


class Collective(NamedTuple):
  """One kind of communication of a step.

  Attributes:
    kind: One of `COLLECTIVES`.
    payload_bytes: The whole array of one device: before a reduce-scatter,
      after all others.
    group_size: Devices that take part together.
    times: How often it runs in a step.
  """

  kind: str
  payload_bytes: int
  group_size: int
  times: int


class Movement(NamedTuple):
  """What one device moves in a step."""

  hbm_bytes: float  # Read and written, a loop's body at every turn.
  collectives: tuple[Collective, ...]


class _Array(NamedTuple):
  num_bytes: int
  leading: int  # Length of its first axis; 1 of a scalar.
  is_in_hbm: bool


class _Instruction(NamedTuple):
  name: str
  arrays: tuple[_Array, ...]
  opcode: str
  arguments: str  # Names of other instructions; of a constant its value.
  rest: str  # Attributes.


def read_movement(text: str, *, num_devices: int) -> Movement:
  """Reads what a device moves off the text of an optimised HLO module.

  A loop turns as often as the one whole number in its condition says; a loop
  without such a number counts once. In a loop an array whose first axis is as
  long as the loop is taken as the stack of what its turns read or write: each
  moves one slice.

  Args:
    text: HLO after all optimisations.
    num_devices: Of the program; the group of a collective that names none.

  Returns:
    The movement of one device in one run of the program.
  """
  computations, entry = _parse(text)
  total, found = 0.0, {}
  # A loop's body can stand in the body of another loop.
  waiting = [(entry, 1, 0)]
  while waiting:
    name, times, turns = waiting.pop()
    arrays = {line.name: line.arrays for line in computations[name]}
    for line in computations[name]:
      if line.opcode == "while":
        inner = _turns(computations, line)
        waiting.append((_attribute(line, "body"), times * inner, inner))
      total += times * _traffic(line, arrays, turns)
      for inside in _with_called(computations, line):
        if inside.opcode.removesuffix("-start") in COLLECTIVES:
          key = _identity(inside, line, name)
          found.setdefault(key, _collective(inside, times, num_devices))
  return Movement(total, tuple(found.values()))


def count_collectives(movement: Movement) -> dict[str, tuple[int, int]]:
  """Sums the collectives by kind: (how many a step, bytes of their payloads).

  >>> ring = Collective("collective-permute", 8, 4, times=3)
  >>> count_collectives(Movement(0, (ring, ring)))
  {'collective-permute': (6, 48)}
  """
  counts, sizes = Counter(), Counter()
  for one in movement.collectives:
    counts[one.kind] += one.times
    sizes[one.kind] += one.times * one.payload_bytes
  return {kind: (counts[kind], sizes[kind]) for kind in sorted(counts)}


def network_seconds(
    movement: Movement, *, bytes_per_second: float, num_links: int
) -> float:
  """Says how long the collectives take at least, one after the other.

  Of an array S on n devices an all-reduce must send 2 S (n - 1) / n from each,
  a gather, a reduce-scatter and an all-to-all S (n - 1) / n, over all links at
  once; a permute sends S over one of them. Nothing is added for latency.

  Args:
    movement: Of one device.
    bytes_per_second: That a device can send over all its links.
    num_links: Of a device.
  """
  total = 0.0
  for one in movement.collectives:
    share = (one.group_size - 1) / one.group_size
    factor = {"all-reduce": 2 * share, "collective-permute": float(num_links)}
    total += one.times * one.payload_bytes * factor.get(one.kind, share)
  return total / bytes_per_second


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
  computations: dict[str, list[_Instruction]] = {}
  current, entry = [], ""
  for line in text.splitlines():
    header = _HEADER.match(line)
    if header:
      current = computations.setdefault(header.group(2), [])
      entry = header.group(2) if header.group(1) else entry
    elif match := _INSTRUCTION.match(line):
      current.append(_instruction(*match.groups()))
  return computations, entry


def _instruction(name: str, text: str) -> _Instruction:
  # The type, in brackets if there are several results; then "opcode(...)".
  end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
  start = text.index("(", end)
  stop = _closing(text, start)
  return _Instruction(
      name=name,
      arrays=tuple(_array(*match) for match in _ARRAY.findall(text[:end])),
      opcode=text[end:start].strip(),
      arguments=text[start + 1 : stop],
      rest=text[stop:],
  )


def _closing(text: str, start: int) -> int:
  depth = 0
  for place in range(start, len(text)):
    depth += (text[place] == "(") - (text[place] == ")")
    if not depth:
      return place
  return len(text)


def _array(dtype: str, shape: str, layout: str) -> _Array:
  bits = re.search(r"\d+", dtype)
  size = _BITS.get(dtype, int(bits.group()) if bits else 0)
  lengths = [int(length) for length in shape.split(",") if length]
  return _Array(
      num_bytes=math.prod(lengths) * size // 8,
      leading=lengths[0] if lengths else 1,
      # "S(1)" and up: memory on the chip, flags, the host.
      is_in_hbm=not re.search(r"S\([1-9]\d*\)", layout),
  )


def _attribute(line: _Instruction, name: str) -> str:
  return re.search(rf"{name}=%([\w.\-]+)", line.rest).group(1)


def _turns(
    computations: dict[str, list[_Instruction]], line: _Instruction
) -> int:
  condition = computations[_attribute(line, "condition")]
  bounds = [
      int(inside.arguments)
      for outer in condition
      for inside in _with_called(computations, outer)
      if inside.opcode == "constant" and inside.arguments.isdecimal()
  ]
  return bounds[0] if len(bounds) == 1 else 1


def _with_called(
    computations: dict[str, list[_Instruction]], line: _Instruction
) -> list[_Instruction]:
  """Returns the instruction and what it calls as one: a fusion, a thread."""
  lines = [line]
  called = re.search(r"calls=%([\w.\-]+)", line.rest)
  if called:
    for inside in computations.get(called.group(1), []):
      lines += _with_called(computations, inside)
  return lines


def _traffic(
    line: _Instruction, arrays: dict[str, tuple[_Array, ...]], turns: int
) -> float:
  """Counts what an instruction reads and writes in HBM."""
  if line.opcode in _FREE or line.opcode.endswith(("-done", "-update")):
    return 0.0
  if line.opcode.endswith("-start"):
    # Results: from and to, in either order, then flags. What is moved is as
    # large as the smaller, which can be a slice of the other.
    ends = line.arrays[:2]
    moved = min((end.num_bytes for end in ends), default=0)
    return float(sum(moved for end in ends if end.is_in_hbm))
  touched = list(line.arrays)
  for name in _NAME.findall(line.arguments):
    touched += arrays.get(name, ())
  return float(
      sum(
          array.num_bytes / (turns if turns and array.leading == turns else 1)
          for array in touched
          if array.is_in_hbm
      )
  )


def _identity(
    collective: _Instruction, caller: _Instruction, computation: str
) -> tuple[str, ...]:
  """Tells one collective from another.

  The compiler copies one that overlaps with other work into each of the fusions
  that carry it on, and its channel says that they are the same. Instructions on
  their own are all different: those of a ring share a channel.
  """
  channel = re.search(r"channel_id=(\d+)", collective.rest)
  if collective is caller or not channel:
    return (computation, caller.name, collective.name)
  return (collective.opcode, channel.group(1))


def _collective(line: _Instruction, times: int, num_devices: int) -> Collective:
  kind = line.opcode.removesuffix("-start")
  size = _group_size(line.rest, num_devices)
  payload = sum(array.num_bytes for array in line.arrays)
  if line.opcode.endswith("-start") and kind != "all-reduce":
    # Results: what goes in, what comes out, flags.
    payload = max(array.num_bytes for array in line.arrays)
  elif kind == "reduce-scatter":
    payload *= size
  return Collective(kind, payload, size, times)


def _group_size(attributes: str, num_devices: int) -> int:
  """Reads how many devices take part, in any of the ways that HLO says it."""
  if match := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
    return match.group(1).count(",") + 1
  if match := re.search(r"replica_groups=\[\d+,(\d+)\]<=", attributes):
    return int(match.group(1))
  mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes)
  if mesh:
    lengths = dict(re.findall(r"'(\w+)'=(\d+)", mesh.group(1)))
    axes = re.findall(r"'(\w+)'", mesh.group(2))
    return math.prod(int(lengths[axis]) for axis in axes)
  return num_devices
