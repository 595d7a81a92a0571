"""Published peaks of accelerator chips, found by what jax calls a device."""

from typing import NamedTuple


class Chip(NamedTuple):
  """What a data sheet promises of one chip; no program reaches all of it.

  Attributes:
    name: As people say it.
    bf16_flops: Dense bfloat16 floating point operations a second, no sparsity.
    hbm_bytes: Memory beside the chip.
    hbm_bytes_per_second: Between chip and that memory.
    ici_bytes_per_second: What the chip can send to its neighbours over all its
      links at once: half of what is sold as "bidirectional". Of a GPU: NVLink.
    ici_links: How many links share that; 1 where a switch gives all of it to
      any one neighbour.
    device_kinds: What `jax.Device.device_kind` says where it is this chip.
  """

  name: str
  bf16_flops: float
  hbm_bytes: float
  hbm_bytes_per_second: float
  ici_bytes_per_second: float
  ici_links: int
  device_kinds: tuple[str, ...]


_GIB, _GB = 2.0**30, 1e9

# TPUs: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}, "System architecture";
# v4's links (six of 50 GB/s each way): arXiv:2304.01433, Table 4.
# The capacities sold as GB are GiB: what the compiler allows says so.
# GPUs: NVIDIA's data sheets of A100, H100 and H200 Tensor Core GPU, dense.
CHIPS = (
    Chip("v4", 275e12, 32 * _GIB, 1200 * _GB, 300 * _GB, 6, ("TPU v4",)),
    Chip(
        "v5e",
        197e12,
        16 * _GIB,
        819 * _GB,
        200 * _GB,
        4,
        ("TPU v5 lite", "TPU v5e"),
    ),
    Chip(
        "v5p",
        459e12,
        95 * _GIB,
        2765 * _GB,
        600 * _GB,
        6,
        ("TPU v5", "TPU v5p"),
    ),
    Chip(
        "v6e",
        918e12,
        32 * _GIB,
        1638 * _GB,
        400 * _GB,
        4,
        ("TPU v6 lite", "TPU v6e"),
    ),
    Chip(
        "A100 40 GB",
        312e12,
        40 * _GB,
        1555 * _GB,
        300 * _GB,
        1,
        ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"),
    ),
    Chip(
        "A100 80 GB",
        312e12,
        80 * _GB,
        2039 * _GB,
        300 * _GB,
        1,
        ("NVIDIA A100-SXM4-80GB",),
    ),
    # SXM; what "H100 PCIe" and "H100 NVL" reach is less and not listed.
    Chip(
        "H100",
        989e12,
        80 * _GB,
        3350 * _GB,
        450 * _GB,
        1,
        ("NVIDIA H100 80GB HBM3",),
    ),
    # "H200 NVL" is another, slower card.
    Chip("H200", 989e12, 141 * _GB, 4800 * _GB, 450 * _GB, 1, ("NVIDIA H200",)),
)


def find(device_kind: str) -> Chip | None:
  """Finds the chip of a device.

  Args:
    device_kind: `jax.Device.device_kind`.

  Returns:
    The chip; None where its peaks are not listed here, such as of a CPU.

  >>> find("TPU v5 lite").name, find("TPU v5p").name, find("cpu")
  ('v5e', 'v5p', None)
  """
  for chip in CHIPS:
    if device_kind in chip.device_kinds:
      return chip
  return None
