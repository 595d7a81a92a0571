"""How fast training is, and what share of the devices' peak that uses."""

from typing import NamedTuple


class StepWork(NamedTuple):
  """What every step does, and on what.

  Attributes:
    batch_size: Videos a step, over all devices.
    num_devices: Of all processes.
    flops: Useful floating point operations a step, over all devices.
    peak_flops: What one device could do a second; None where nobody says.
  """

  batch_size: int
  num_devices: int
  flops: float
  peak_flops: float | None


def step_rates(
    work: StepWork, *, num_steps: int, seconds: float
) -> dict[str, float]:
  """Says how fast steps were made.

  Args:
    work: Of each step.
    num_steps: Made in that time; at least 1.
    seconds: Of wall clock, with all that came between the steps.

  Returns:
    `step_seconds`, `videos_per_second`, `videos_per_second_per_device` and,
    where the peak is known, `model_flop_utilisation`: the useful operations
    done over those that the devices could have done, in [0, 1].

  Source: model FLOP utilisation, arXiv:2204.02311, App. B.

  >>> work = StepWork(8, num_devices=2, flops=6e12, peak_flops=1e12)
  >>> step_rates(work, num_steps=3, seconds=12.0)["model_flop_utilisation"]
  0.75
  """
  videos_per_second = work.batch_size * num_steps / seconds
  rates = {
      "step_seconds": seconds / num_steps,
      "videos_per_second": videos_per_second,
      "videos_per_second_per_device": videos_per_second / work.num_devices,
  }
  if work.peak_flops:
    could = work.peak_flops * work.num_devices * seconds
    rates["model_flop_utilisation"] = work.flops * num_steps / could
  return rates
