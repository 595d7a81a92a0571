"""Peaks of chips: found by what jax says, and never by a part of it."""

import pytest

from chain_jax import chips


# What `jax.devices()[0].device_kind` is on each, with the peaks in TFLOP/s
# and GB/s that the makers' pages state.
@pytest.mark.parametrize(
    ("device_kind", "tera_flops", "gigabytes_per_second"),
    [
        ("TPU v4", 275, 1200),
        ("TPU v5 lite", 197, 819),
        ("TPU v5", 459, 2765),
        ("TPU v5p", 459, 2765),
        ("TPU v6 lite", 918, 1638),
        ("NVIDIA A100-SXM4-80GB", 312, 2039),
        ("NVIDIA H100 80GB HBM3", 989, 3350),
        ("NVIDIA H200", 989, 4800),
    ],
)
def test_a_chip_is_found_by_its_device_kind(
    device_kind, tera_flops, gigabytes_per_second
):
  chip = chips.find(device_kind)
  assert chip.bf16_flops == tera_flops * 1e12
  assert chip.hbm_bytes_per_second == gigabytes_per_second * 1e9


@pytest.mark.parametrize(
    "device_kind", ["cpu", "", "TPU v3", "NVIDIA H200 NVL", "NVIDIA H100 PCIe"]
)
def test_an_unlisted_device_has_no_peaks(device_kind):
  assert chips.find(device_kind) is None


def test_no_two_chips_share_a_device_kind():
  kinds = [kind for chip in chips.CHIPS for kind in chip.device_kinds]
  assert len(set(kinds)) == len(kinds)
