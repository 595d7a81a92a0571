"""Says which machine a benchmark ran on."""

import importlib.metadata
import os
import pathlib
import platform


def machine_line(*packages: str) -> str:
  """Returns CPU model, usable cores, Python and package versions in a line.

  Args:
    *packages: Distribution names beside NumPy, such as "jax" or "faiss-cpu".
  """
  parts = [
      _cpu_model(),
      f"{len(os.sched_getaffinity(0))} cores",
      f"load {os.getloadavg()[0]:.1f}",
      f"Python {platform.python_version()}",
  ]
  for name in ("numpy", *packages):
    parts.append(f"{name} {importlib.metadata.version(name)}")
  return "machine: " + ", ".join(parts)


def _cpu_model() -> str:
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    return platform.processor() or platform.machine()
  models = [line.split(":", 1)[1] for line in lines if "model name" in line]
  return models[0].strip() if models else platform.machine()
