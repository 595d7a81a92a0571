"""How long a compiled step would take at a chip's published peaks: a model.

    compute = FLOPs / peak, memory = HBM bytes / bandwidth,
    network = what the collectives send / links,
    between max(compute, memory, network), everything overlapped,
    and max(compute, memory) + network, the collectives waited for.

Nothing here is measured. Real steps are slower: no program reaches the peaks,
and neither latency nor the input from the host is in the model.
"""

from collections.abc import Sequence
from typing import NamedTuple

from chain_jax import chips, compiled_program
from chain_jax.compiled_step import CompiledStep

_MIB, _GIB = 2**20, 2**30


class ModelledStep(NamedTuple):
  """Seconds of one step, by the formula above."""

  compute: float
  memory: float
  network: float

  @property
  def fastest(self) -> float:
    """Everything overlaps."""
    return max(self)

  @property
  def slowest(self) -> float:
    """The collectives are waited for."""
    return max(self.compute, self.memory) + self.network

  @property
  def limit(self) -> str:
    """Names the largest part."""
    return max(zip(self, self._fields, strict=True))[1]


class Row(NamedTuple):
  """One compiled step, with what it was compiled for."""

  topology: str
  batch_size: int  # Videos, over all devices.
  useful_flops: float  # Of the whole step, over all devices.
  step: CompiledStep


def fits(step: CompiledStep) -> bool:
  """Tells whether a step was compiled and lies in its chip's memory.

  Batches that wait for their step are not counted.
  """
  chip = chips.find(step.device_kind)
  if step.too_large or chip is None:
    return not step.too_large
  return step.memory_bytes <= chip.hbm_bytes


def model_step(step: CompiledStep, chip: chips.Chip) -> ModelledStep:
  """Applies the formula; without the program's text nothing goes over links."""
  movement = step.movement
  if movement is None:
    return ModelledStep(
        step.flops / chip.bf16_flops,
        step.xla_bytes / chip.hbm_bytes_per_second,
        0.0,
    )
  return ModelledStep(
      compute=step.flops / chip.bf16_flops,
      memory=movement.hbm_bytes / chip.hbm_bytes_per_second,
      network=compiled_program.network_seconds(
          movement,
          bytes_per_second=chip.ici_bytes_per_second,
          num_links=chip.ici_links,
      ),
  )


def compiled_table(rows: Sequence[Row]) -> str:
  """Returns what the compiler said, as a table in Markdown."""
  lines = [
      "| Compiled for | Chips | Batch | Seconds | Fits | Memory, MiB a chip:"
      " arguments + temporary + code | GFLOP a chip (useful) | XLA's | HBM GB a"
      " chip | Collectives a step |",
      "|---|---|---|---|---|---|---|---|---|---|",
  ]
  return "\n".join(lines + [_compiled_line(row) for row in rows])


def _compiled_line(row: Row) -> str:
  step, chip = row.step, chips.find(row.step.device_kind)
  cells = [row.topology, f"{step.num_devices}", f"{row.batch_size}"]
  cells += [f"{step.seconds:.0f}"]
  if step.too_large:
    return _line([*cells, f"does not fit: {step.too_large}", *["-"] * 5])
  share = f" of {chip.hbm_bytes / _GIB:.3g} GiB" if chip else ""
  parts = (step.argument_bytes, step.temp_bytes, step.code_bytes)
  memory = " + ".join(f"{part / _MIB:.0f}" for part in parts)
  useful = row.useful_flops / step.num_devices
  cells += [
      "yes" if fits(step) else "does not fit",
      f"{memory} = {step.memory_bytes / _MIB:.0f}{share}",
      f"{step.flops / 1e9:.4g} ({useful / 1e9:.4g})",
      f"{step.xla_flops / 1e9:.4g}",
  ]
  if step.movement is None:
    return _line([*cells, "not known", "not known"])
  counts = compiled_program.count_collectives(step.movement)
  collectives = ", ".join(
      f"{times} {kind} ({size / 1e6:.3g} MB)"
      for kind, (times, size) in counts.items()
  )
  hbm = f"{step.movement.hbm_bytes / 1e9:.3g}"
  return _line([*cells, hbm, collectives or "none"])


def modelled_table(rows: Sequence[Row]) -> str:
  """Returns modelled step times and speeds, as a table in Markdown."""
  lines = [
      _modelled_line(row, chip)
      for row in rows
      if fits(row.step) and (chip := chips.find(row.step.device_kind))
  ]
  if not lines:
    return "Nothing fits, so nothing is modelled."
  header = [
      "| MODELLED for | Chips | Batch | Compute, ms | Memory, ms | Network, ms |"
      " Step, ms | Million videos/s | Largest part |",
      "|---|---|---|---|---|---|---|---|---|",
  ]
  return "\n".join(header + lines)


def _modelled_line(row: Row, chip: chips.Chip) -> str:
  modelled = model_step(row.step, chip)
  low, high = modelled.fastest, modelled.slowest
  return _line(
      [
          row.topology,
          f"{row.step.num_devices}",
          f"{row.batch_size}",
          *(f"{1e3 * part:.3g}" for part in modelled),
          f"{1e3 * low:.3g} to {1e3 * high:.3g}",
          f"{row.batch_size / high / 1e6:.3g} to"
          f" {row.batch_size / low / 1e6:.3g}",
          modelled.limit,
      ]
  )


def _line(cells: Sequence[str]) -> str:
  return f"| {' | '.join(cells)} |"
