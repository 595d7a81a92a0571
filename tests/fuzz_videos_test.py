"""Damaged video files end in frames or in a reason, in time and in memory."""

import fuzzing
import pytest

from chain_jax import errors
from chain_jax.data import videos

pytest.importorskip("av", reason="video files need PyAV, the extra [video]")
import video_files


def _read(path):
  try:
    frames = videos.decode_video(path, num_frames=25, short_side=64)
  except videos.VideoError as error:
    assert str(error) and "\n" not in str(error)
    raise errors.InputError(str(error)) from error
  assert len(frames) and min(frames.shape[1:3]) == 64


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", "libx264"), (".mkv", "libvpx-vp9"), (".ts", "mpeg2video")],
)
def test_damage_is_never_a_traceback_a_hang_or_a_full_memory(
    tmp_path, fuzz_seconds, suffix, codec
):
  source = video_files.write_streams(
      tmp_path / f"source{suffix}",
      video_files.moving_frames(12),
      codec=codec,
      sound_seconds=0.5 if suffix == ".mp4" else 0.0,
  )
  num_read = fuzzing.check(_read, [source], tmp_path, seconds=fuzz_seconds)
  assert num_read > fuzz_seconds
