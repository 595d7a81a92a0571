"""Speed and utilisation, by hand."""

from chain_jax import chips, step_rates


def _work(**changes):
  values = {"batch_size": 64, "num_devices": 4, "flops": 1e12}
  return step_rates.StepWork(**(values | {"peak_flops": None} | changes))


def test_rates_are_over_the_wall_clock_and_per_device():
  # 10 steps of 64 videos in 8 s: 80 videos a second, 20 on each of 4 devices.
  assert step_rates.step_rates(_work(), num_steps=10, seconds=8.0) == {
      "step_seconds": 0.8,
      "videos_per_second": 80.0,
      "videos_per_second_per_device": 20.0,
  }


def test_utilisation_is_what_was_done_of_what_all_devices_could_do():
  work = _work(peak_flops=2.5e12)
  rates = step_rates.step_rates(work, num_steps=10, seconds=8.0)
  # 1e13 operations in 8 s, where 4 devices could have done 8e13.
  assert rates["model_flop_utilisation"] == 0.125


def test_a_step_that_takes_as_long_as_the_peak_allows_uses_all_of_it():
  peak = chips.find("TPU v4").bf16_flops
  work = _work(flops=4 * peak, peak_flops=peak)
  rates = step_rates.step_rates(work, num_steps=3, seconds=3.0)
  assert rates["model_flop_utilisation"] == 1.0
