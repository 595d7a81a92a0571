"""How much memory a run takes, on its devices and on this host."""

from collections.abc import Sequence

import jax
import psutil


def memory_use(devices: Sequence[jax.Device]) -> dict[str, float]:
  """Measures the memory in use now.

  Args:
    devices: Of this process. The fullest counts: it is the first to run out.

  Returns:
    `host_memory_bytes`, resident in this process without its workers, and
    `device_memory_bytes`, `device_memory_peak_bytes` (since the start of the
    process) and `device_memory_limit_bytes` as far as the devices tell. A CPU
    tells nothing: its memory is the host's.
  """
  row = {"host_memory_bytes": float(psutil.Process().memory_info().rss)}
  told = [device.memory_stats() or {} for device in devices]
  for name, key in (
      ("device_memory_bytes", "bytes_in_use"),
      ("device_memory_peak_bytes", "peak_bytes_in_use"),
      ("device_memory_limit_bytes", "bytes_limit"),
  ):
    known = [stats[key] for stats in told if key in stats]
    if known:
      row[name] = float(max(known))
  return row
