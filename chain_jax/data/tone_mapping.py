"""High dynamic range -> the RGB that networks learnt from.

A file with the transfer function PQ or HLG says how much light to show, up to
10,000 cd/m2. Looked at as if it were ordinary video it is grey and flat.

Source: ITU-R BT.2100 (both transfer functions), BT.2408 (white paper is shown
at 203 cd/m2), BT.2087 (primaries). The shoulder is our choice: it keeps what is
darker than three quarters of white as it is, and fits what is brighter in.
"""

import functools

import numpy as np
from jaxtyping import Float32, UInt8, UInt16

# Transfer functions and primaries by their numbers in ITU-T H.273.
PQ, HLG = 16, 18
_BT2020 = 9

_WHITE_NITS = 203.0
_HLG_PEAK_NITS = 1000.0
_KNEE = 0.75
_DISPLAY_GAMMA = 2.4  # Of ordinary video: ITU-R BT.1886.
_BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)
_BT2020_TO_BT709 = np.array(
    [
        [1.6605, -0.5876, -0.0728],
        [-0.1246, 1.1329, -0.0083],
        [-0.0182, -0.1006, 1.1187],
    ],
    np.float32,
)


def to_standard_range(
    rgb: UInt16[np.ndarray, "height width 3"], *, transfer: int, primaries: int
) -> UInt8[np.ndarray, "height width 3"]:
  """Maps a picture of high dynamic range to ordinary RGB.

  Args:
    rgb: Values of the transfer function, 65535 is its 1.
    transfer: `PQ` or `HLG`.
    primaries: Of the colours, as H.273 numbers them; all but those of BT.2020
      are taken for BT.709.

  >>> white = np.full((1, 1, 3), round(0.5807 * 65535), np.uint16)  # 203 cd/m2
  >>> to_standard_range(white, transfer=PQ, primaries=9).tolist()
  [[[245, 245, 245]]]
  """
  light = _light_table(transfer)[rgb]
  if transfer == HLG:
    # The display's own curve, BT.2100 Table 5: gamma 1.2 of the luminance.
    luminance = np.maximum(light @ _BT2020_LUMA, 1e-6)[..., None]
    light = light * luminance**0.2 * (_HLG_PEAK_NITS / _WHITE_NITS)
  if primaries == _BT2020:
    light = np.maximum(light @ _BT2020_TO_BT709.T, 0)
  # The largest of the three decides for all, so hues stay.
  largest = np.maximum(light.max(axis=-1, keepdims=True), 1e-6)
  shown = np.clip(light * (_shoulder(largest) / largest), 0, 1)
  return np.rint(shown ** (1 / _DISPLAY_GAMMA) * 255).astype(np.uint8)


def _shoulder(light: np.ndarray) -> np.ndarray:
  """Leaves light below the knee as it is; the rest tends to 1."""
  above = np.maximum(light - _KNEE, 0) / (1 - _KNEE)
  return np.where(light < _KNEE, light, 1 - (1 - _KNEE) * np.exp(-above))


@functools.cache
def _light_table(transfer: int) -> Float32[np.ndarray, "65536"]:
  """Tells the light of each value: of the display for PQ, of the scene for HLG.

  PQ: in units of white. HLG: in [0, 1].
  """
  value = np.arange(65536) / 65535
  if transfer == PQ:
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = value ** (1 / m2)
    light = (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    light = light * 10_000 / _WHITE_NITS
  else:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    light = np.where(
        value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12
    )
  return light.astype(np.float32)
