"""Memory: the fullest device, and what the host's kernel says."""

import pathlib
import resource
from unittest import mock

import jax
import pytest

from chain_jax import memory_use


def _device(stats):
  device = mock.Mock(spec=jax.Device)
  device.memory_stats.return_value = stats
  return device


def test_the_fullest_device_counts():
  row = memory_use.memory_use(
      [
          _device(
              {"bytes_in_use": 5, "peak_bytes_in_use": 9, "bytes_limit": 20}
          ),
          _device(
              {"bytes_in_use": 7, "peak_bytes_in_use": 8, "bytes_limit": 20}
          ),
      ]
  )
  assert row["device_memory_bytes"] == 7.0
  assert row["device_memory_peak_bytes"] == 9.0
  assert row["device_memory_limit_bytes"] == 20.0


@pytest.mark.parametrize("stats", [None, {}])
def test_a_device_that_tells_nothing_has_no_metric(stats):
  row = memory_use.memory_use([_device(stats)])
  assert row.keys() == {"host_memory_bytes"}


def test_a_cpu_tells_nothing_of_its_own():
  assert memory_use.memory_use(jax.local_devices()).keys() == {
      "host_memory_bytes"
  }


def test_host_memory_is_what_the_kernel_says():
  statm = pathlib.Path("/proc/self/statm")
  if not statm.exists():
    pytest.skip("needs the files of a Linux kernel")
  pages = int(statm.read_text().split()[1])
  found = memory_use.memory_use([])["host_memory_bytes"]
  # Threads of jax take and give back a little between the two looks.
  assert abs(found - pages * resource.getpagesize()) < 2**24
