"""How programs are compiled in tests: quickly, for forced CPU devices.

Most of what a test would wait for is the optimising of programs that then run
for milliseconds. `quick_compile_test.py` compares such a run with a user's.
"""

import importlib.metadata

# Variables of the environment: child processes inherit them.
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def xla_flags(num_devices=None):
  """Returns `XLA_FLAGS`; without a number of devices jax decides on it."""
  flags = []
  # The older code generator of two: it compiles in a third of the time. jaxlib
  # 0.11 has the newer one only, and ends a process that names the other.
  if _version_of("jaxlib") < (0, 11):
    flags.append("--xla_cpu_use_fusion_emitters=false")
  if num_devices:
    flags.append(f"--xla_force_host_platform_device_count={num_devices}")
  return " ".join(flags)


def _version_of(package):
  major, minor = importlib.metadata.version(package).split(".")[:2]
  return int(major), int(minor)
