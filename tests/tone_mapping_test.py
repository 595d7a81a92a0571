"""High dynamic range comes out as ordinary pictures."""

import numpy as np
import pytest

from chain_jax.data import tone_mapping, videos

pytest.importorskip("av", reason="video files need PyAV, the extra [video]")
import video_files

# cd/m2 and the value of PQ, as tables of SMPTE ST 2084 give them.
_PQ_VALUES = {0: 0.0, 10: 0.3017, 100: 0.5081, 203: 0.5807, 1000: 0.7518}


def _expected(nits):
  """What BT.1886 shows at that light, below three quarters of white."""
  return 255 * (nits / 203) ** (1 / 2.4)


@pytest.mark.parametrize(
    ("nits", "low", "high"),
    [
        (0, 0, 0),
        (10, _expected(10) - 1, _expected(10) + 1),
        (100, _expected(100) - 1, _expected(100) + 1),
        # White keeps a little room for what is brighter.
        (203, 240, 250),
        (1000, 254, 255),
    ],
)
def test_pq_shows_its_light(tmp_path, nits, low, high):
  path = video_files.write_high_range(
      tmp_path / "a.mp4", _PQ_VALUES[nits], transfer="smpte2084"
  )
  frames = videos.decode_video(path, num_frames=2, short_side=48)
  # A level of 10 bits in the limited range is 0.3 of the 255.
  assert low - 1 <= frames.min() and frames.max() <= high + 1


def test_hlg_shows_white_as_pq_does(tmp_path):
  # BT.2408: white paper is 75 % of HLG and 203 cd/m2; a face of 18 % light
  # is 38 % and 26 cd/m2.
  for value, nits in ((0.75, 203), (0.38, 26)):
    path = video_files.write_high_range(
        tmp_path / "a.mp4", value, transfer="arib-std-b67"
    )
    frames = videos.decode_video(path, num_frames=1, short_side=48)
    expected = 245 if nits == 203 else _expected(nits)
    np.testing.assert_allclose(frames, expected, atol=4)


def test_an_ordinary_video_is_left_as_it_is(tmp_path):
  path = video_files.write_high_range(tmp_path / "a.mp4", 0.5, transfer="bt709")
  frames = videos.decode_video(path, num_frames=1, short_side=48)
  np.testing.assert_allclose(frames, 127.5, atol=2)


def test_red_of_bt709_in_the_primaries_of_bt2020_is_red():
  # BT.2087, Table 1: that red is (.6274, .0691, .0164) of light.
  light = np.array([0.6274, 0.0691, 0.0164]) * 203 / 2 / 10_000
  m1, m2 = 0.1593017578125, 78.84375
  c1, c2, c3 = 0.8359375, 18.8515625, 18.6875
  value = ((c1 + c2 * light**m1) / (1 + c3 * light**m1)) ** m2
  pixel = np.rint(value * 65535).astype(np.uint16)[None, None]
  actual = tone_mapping.to_standard_range(pixel, transfer=16, primaries=9)
  expected = [255 * 0.5 ** (1 / 2.4), 0, 0]
  # Dark values of a power of 1 / 2.4 show the last digit of the matrix.
  np.testing.assert_allclose(actual[0, 0], expected, atol=8)


def test_brighter_light_is_never_darker():
  ramp = np.arange(0, 65536, 16, dtype=np.uint16)[:, None, None].repeat(3, 2)
  for transfer in (tone_mapping.PQ, tone_mapping.HLG):
    shown = tone_mapping.to_standard_range(
        ramp, transfer=transfer, primaries=9
    )[:, 0, 0]
    assert (np.diff(shown.astype(int)) >= 0).all() and shown[-1] == 255
