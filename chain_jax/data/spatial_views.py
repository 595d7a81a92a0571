"""One video's frames -> several crops and colours of the same video.

Variant 0 is the video as one would look at it. Each other variant is one draw
of crop, flip, colours, grey and blur for all of its frames: a draw per frame
would change what the variant tells about time (CVRL, arXiv:2008.03800).
"""

import hashlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image, ImageFilter, ImageStat

from chain_jax import errors

_CROP_ATTEMPTS = 10
# BT.601, as in Pillow and SimCLR.
_LUMA = np.array([0.299, 0.587, 0.114])
# RGB -> brightness and two axes of colour, in which a hue is an angle (NTSC).
_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_BLUR_SIZE = 224  # The picture size that `blur_sigma` is given for.


class SpatialSettings(NamedTuple):
  """What is drawn for a variant; 0, or (1, 1), switches a part off.

  The defaults are those of SimCLR (arXiv:2002.05709, strength 1), with the
  crops of CVRL.

  Attributes:
    crop_area: Smallest and largest share of the frame, in (0, 1].
    crop_aspect: Smallest and largest width / height, log-uniform.
    flip_probability: Of a mirror image.
    jitter_probability: Of the next four, together.
    brightness: b: the factor is uniform in [1 - b, 1 + b], b <= 1.
    contrast: As `brightness`, around the variant's mean.
    saturation: As `brightness`, around each pixel's grey.
    hue: Largest turn of the hue either way, in turns, <= 0.5.
    grey_probability: Of no colours at all.
    blur_probability: Of a Gaussian blur.
    blur_sigma: Smallest and largest standard deviation, in pixels of a picture
      224 pixels wide.
  """

  crop_area: tuple[float, float] = (0.3, 1.0)
  crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
  flip_probability: float = 0.5
  jitter_probability: float = 0.8
  brightness: float = 0.8
  contrast: float = 0.8
  saturation: float = 0.8
  hue: float = 0.2
  grey_probability: float = 0.2
  blur_probability: float = 0.5
  blur_sigma: tuple[float, float] = (0.1, 2.0)


DEFAULT_SETTINGS = SpatialSettings()


class ViewDraw(NamedTuple):
  """What happens to all frames of one variant.

  Attributes:
    box: Left, top, right, bottom of the crop, in pixels of the frame.
    is_flipped: Mirror image.
    brightness: Factor.
    contrast: Factor.
    saturation: Factor; 0 = grey.
    hue: In turns.
    blur_sigma: See `SpatialSettings`; 0 = none.
  """

  box: tuple[float, float, float, float]
  is_flipped: bool = False
  brightness: float = 1.0
  contrast: float = 1.0
  saturation: float = 1.0
  hue: float = 0.0
  blur_sigma: float = 0.0


def spatial_views(
    frames: UInt8[np.ndarray, "t height width 3"],
    *,
    num_variants: int,
    size: int,
    seed: int,
    video_id: str,
    settings: SpatialSettings = DEFAULT_SETTINGS,
) -> UInt8[np.ndarray, "t variants size size 3"]:
  """Makes the spatial variants of a video.

  Args:
    frames: RGB; the short side at least `size`, else they get blurred.
    num_variants: >= 1.
    size: Width and height of a variant, in pixels.
    seed: Of the draws, together with `video_id` and the variant's number: more
      variants, other videos and other machines change none of them.
    video_id: Of this video.
    settings: Of variants 1 and up.

  Returns:
    RGB. Variant 0 is the largest square at the centre, scaled.

  Raises:
    errors.InputError: If a setting breaks its rule.
  """
  check_settings(settings)
  num_frames, height, width = frames.shape[:3]
  views = np.empty((num_frames, num_variants, size, size, 3), np.uint8)
  images = [Image.fromarray(frame) for frame in frames]
  for variant in range(num_variants):
    if variant == 0:
      draw = ViewDraw(_centre_box(height, width, aspect=1.0))
    else:
      rng = view_rng(seed, video_id=video_id, variant=variant)
      draw = draw_view(rng, height=height, width=width, settings=settings)
    for frame, image in enumerate(_apply(images, draw, size=size)):
      views[frame, variant] = image
  return views


def check_settings(settings: SpatialSettings) -> None:
  """Raises `errors.InputError` if a setting breaks its rule."""
  for name, value in settings._asdict().items():
    if isinstance(value, tuple):
      highest = 1.0 if name == "crop_area" else np.inf
      rule = f"(low, high) with 0 < low <= high <= {highest:g}"
      is_right = 0 < value[0] <= value[1] <= highest and value[1] < np.inf
    else:
      highest = 0.5 if name == "hue" else 1.0
      rule = f"in [0, {highest:g}]"
      is_right = 0 <= value <= highest
    if not is_right:
      default = SpatialSettings._field_defaults[name]
      raise errors.InputError(
          f"`{name}` must be {rule}, got {value}; {default} is the default."
      )


def view_rng(seed: int, *, video_id: str, variant: int) -> np.random.Generator:
  """Makes the generator of one variant, a function of these three alone."""
  text = f"{seed}\n{variant}\n{video_id}".encode()
  key = np.frombuffer(hashlib.sha256(text).digest()[:16], "<u8")
  return np.random.Generator(np.random.Philox(key=key.astype(np.uint64)))


def draw_view(
    rng: np.random.Generator,
    *,
    height: int,
    width: int,
    settings: SpatialSettings,
) -> ViewDraw:
  """Draws what happens to the frames of one variant.

  Switching a part off leaves the draws of the others as they are.

  Args:
    rng: Gives all draws.
    height: Of the frames, in pixels.
    width: Of the frames.
    settings: What may happen.
  """
  chances = rng.random(4)
  factors = rng.uniform(-1, 1, 4)
  sigma = rng.uniform(*settings.blur_sigma)
  box = _draw_crop(rng, height, width, settings)
  if chances[0] >= settings.jitter_probability:
    factors[:] = 0
  is_grey = chances[1] < settings.grey_probability
  return ViewDraw(
      box,
      is_flipped=bool(chances[2] < settings.flip_probability),
      brightness=float(1 + factors[0] * settings.brightness),
      contrast=float(1 + factors[1] * settings.contrast),
      saturation=0.0
      if is_grey
      else 1 + float(factors[2]) * settings.saturation,
      hue=float(factors[3] * settings.hue),
      blur_sigma=sigma if chances[3] < settings.blur_probability else 0.0,
  )


def _draw_crop(
    rng: np.random.Generator,
    height: int,
    width: int,
    settings: SpatialSettings,
) -> tuple[float, float, float, float]:
  """Draws a box of evenly distributed area and log-aspect.

  Boxes that do not fit into the frame are drawn again. After ten, it is the
  largest box at the centre whose aspect is allowed.
  """
  low, high = settings.crop_aspect
  for _ in range(_CROP_ATTEMPTS):
    area = rng.uniform(*settings.crop_area) * height * width
    aspect = np.exp(rng.uniform(np.log(low), np.log(high)))
    across, down = np.sqrt(area * aspect), np.sqrt(area / aspect)
    if across <= width and down <= height:
      left, top = rng.uniform(0, width - across), rng.uniform(0, height - down)
      right, bottom = min(left + across, width), min(top + down, height)
      return float(left), float(top), float(right), float(bottom)
  return _centre_box(height, width, aspect=min(max(width / height, low), high))


def _centre_box(
    height: int, width: int, *, aspect: float
) -> tuple[float, float, float, float]:
  """Returns the largest box of an aspect at the centre of the frame."""
  across = min(width, height * aspect)
  down = min(height, across / aspect)
  left, top = (width - across) / 2, (height - down) / 2
  return left, top, left + across, top + down


def _apply(
    images: list[Image.Image], draw: ViewDraw, *, size: int
) -> list[Image.Image]:
  """Does to all frames of a variant what was drawn."""
  images = [
      image.resize((size, size), Image.Resampling.BICUBIC, box=draw.box)
      for image in images
  ]
  if draw.is_flipped:
    flip = Image.Transpose.FLIP_LEFT_RIGHT
    images = [image.transpose(flip) for image in images]
  colours = (draw.brightness, draw.contrast, draw.saturation, draw.hue)
  if colours != (1, 1, 1, 0):
    mean = np.mean([ImageStat.Stat(image).mean for image in images], axis=0)
    matrix = tuple(colour_matrix(draw, mean_luma=float(mean @ _LUMA)).ravel())
    images = [image.convert("RGB", matrix) for image in images]
  if draw.blur_sigma:
    blur = ImageFilter.GaussianBlur(draw.blur_sigma * size / _BLUR_SIZE)
    images = [image.filter(blur) for image in images]
  return images


def colour_matrix(
    draw: ViewDraw, *, mean_luma: float
) -> Float64[np.ndarray, "3 4"]:
  """Joins brightness, contrast, saturation and hue, in this order.

  Each is linear, so that together they are one pass over the pixels, and
  nothing is cut off to [0, 255] in between.

  Args:
    draw: Of the variant.
    mean_luma: Of all frames of the variant, in [0, 255].

  Returns:
    What turns (red, green, blue, 1) into red, green and blue.
  """
  turn = 2 * np.pi * draw.hue
  sine, cosine = np.sin(turn), np.cos(turn)
  rotation = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
  hue = np.linalg.inv(_YIQ) @ rotation @ _YIQ
  grey = np.tile(_LUMA, (3, 1))
  saturation = draw.saturation * np.eye(3) + (1 - draw.saturation) * grey
  # The two can be swapped. In this order grey has equal rows to the last bit,
  # so equal channels.
  colours = saturation @ hue
  offset = (1 - draw.contrast) * draw.brightness * mean_luma
  matrix = draw.contrast * draw.brightness * colours
  return np.column_stack([matrix, np.full(3, offset)])
