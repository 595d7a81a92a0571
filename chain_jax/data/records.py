"""The frames of one video as a source stores them, and what they mean."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Num, Shaped

from chain_jax.errors import InputError


class Scaling(NamedTuple):
  """What stored numbers mean: features are stored * scale + offset.

  Both are float32, one number or one a dimension.
  """

  scale: Shaped[np.ndarray | np.float32, "*dim"] = np.float32(1)
  offset: Shaped[np.ndarray | np.float32, "*dim"] = np.float32(0)


# Of sources that store the features themselves.
IDENTITY = Scaling()


def to_features(
    frames: Num[np.ndarray, "*frames dim"], scaling: Scaling
) -> Float32[np.ndarray, "*frames dim"]:
  """Returns what stored frames mean, for those who work on the host.

  >>> to_features(np.array([[0, 255]], np.uint8), Scaling(np.float32(2), np.float32(-1)))
  array([[ -1., 509.]], dtype=float32)
  """
  features = to_float32(frames)
  if is_identity(scaling):
    return features
  features *= scaling.scale
  features += scaling.offset
  return features


def is_identity(scaling: Scaling) -> bool:
  """Tells whether features are stored as they are."""
  return bool(np.all(scaling.scale == 1) and np.all(scaling.offset == 0))


def for_device(
    frames: Num[np.ndarray, "*frames dim"],
) -> Num[np.ndarray, "*frames dim"]:
  """Returns stored frames in a dtype that devices have; mostly as they are.

  float64 becomes float32, and the bytes are put in this machine's order.
  """
  dtype = frames.dtype.newbyteorder("=")
  dtype = np.dtype(np.float32) if dtype == np.float64 else dtype
  return frames.astype(dtype, copy=False)


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
  dtype = frames.dtype
  if dtype.kind != "f":
    return True
  if not dtype.isnative or not frames.flags.c_contiguous or not frames.size:
    return bool(np.isfinite(frames).all())
  # An exponent of all ones marks infinity and NaN. As a whole number such a
  # value is larger than all others of its sign, so two maxima over the bits
  # find it, faster than NumPy tests values and without a copy.
  infinity = int(np.array(np.inf, dtype).view(f"u{dtype.itemsize}"))
  sign = 1 << (8 * dtype.itemsize - 1)
  largest = frames.view(f"i{dtype.itemsize}").max()  # The positive ones.
  largest_negative = frames.view(f"u{dtype.itemsize}").max()
  return bool(largest < infinity and largest_negative < sign + infinity)


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
