"""Frame sampling one view at a time, in plain Python: what the batch must do."""

import math


def sample_view(
    num_frames_in_video,
    draws,
    *,
    num_frames,
    sampling,
    crop_fraction,
    playback_rate,
):
  """Returns the frames one view shows, without padding."""
  crop, place, run, speed, slow, *by_slot = map(float, draws)
  fewest = min(2, num_frames_in_video, num_frames)

  def narrow(start, length, wanted, draw):
    shorter = min(max(wanted, fewest), length)
    return start + math.floor(draw * (length - shorter + 1)), shorter

  low, high = crop_fraction
  wanted = round((low + (high - low) * crop) * num_frames_in_video)
  start, length = narrow(0, num_frames_in_video, wanted, place)
  if sampling == "consecutive":
    start, length = narrow(start, length, num_frames, run)
  low, high = map(math.log, playback_rate)
  rate = math.exp(low + (high - low) * speed)
  start, length = narrow(start, length, round(length * min(1, rate)), slow)
  num_filled = max(round(min(num_frames, length) / max(1, rate)), fewest)
  shown = []
  for slot in range(num_filled):
    first = slot * length // num_filled
    end = (slot + 1) * length // num_filled
    frame = {
        "segments": first + math.floor(by_slot[slot] * (end - first)),
        "uniform": (first + end - 1) // 2,
        "consecutive": first,
    }[sampling]
    shown.append(start + frame)
  return shown
