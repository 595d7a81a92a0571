"""Checks every annotated shape, on eight forced CPU devices."""

import os
import subprocess

import xla_settings

# Before jax is imported: tests of sharding need more than one device.
_FLAGS = xla_settings.xla_flags(num_devices=8)
if _FLAGS not in os.environ.get("XLA_FLAGS", ""):
  os.environ["XLA_FLAGS"] = f"{_FLAGS} {os.environ.get('XLA_FLAGS', '')}"
for _name, _value in {"JAX_PLATFORMS": "cpu", **xla_settings.QUICK}.items():
  os.environ.setdefault(_name, _value)

import jaxtyping  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402

jaxtyping.install_import_hook("chain_jax", "beartype.beartype")

# grain reads absl's flags when it starts worker processes.
flags.FLAGS.mark_as_parsed()


@pytest.fixture
def small_disk(tmp_path):
  """A disk of 512 KiB: room for one tiny checkpoint and little more."""
  folder = tmp_path / "disk"
  folder.mkdir()
  mounted = subprocess.run(
      ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)],
      capture_output=True,
  )
  if mounted.returncode:
    pytest.skip("a small disk needs the right to mount one")
  yield folder
  subprocess.run(["umount", "-l", str(folder)], check=True)


def pytest_addoption(parser):
  parser.addoption(
      "--fuzz_seconds",
      type=float,
      default=2.0,
      help="how long each kind of file is damaged and read",
  )


@pytest.fixture
def fuzz_seconds(request):
  return request.config.getoption("--fuzz_seconds")
