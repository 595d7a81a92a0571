"""One video file -> the frames that a backbone looks at."""

import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from chain_jax.data.spatial_views import spatial_views
from chain_jax.data.videos import decode_video

# Networks of ImageNet are tested on 224 of 256 pixels; the border is also what
# crops of the other variants are taken from.
_BORDER = 256 / 224


class VideoFile(NamedTuple):
  """A file and the name under which its video goes."""

  path: str
  id: str


class ViewLoader(NamedTuple):
  """Decodes a video; picklable, and free of jax, for worker processes.

  Attributes:
    num_frames: At most so many frames of a video, evenly over its time.
    num_variants: Spatial variants of each; number 0 is the plain centre.
    image_size: Height and width of a frame, in pixels.
    seed: Of the variants' draws, together with the video's id.
  """

  num_frames: int
  num_variants: int
  image_size: int
  seed: int

  def __call__(
      self, file: VideoFile
  ) -> UInt8[np.ndarray, "num_frames num_variants size size 3"]:
    """Decodes the frames and draws their variants.

    Raises:
      VideoError: If the file is missing, no video, or damaged.
    """
    frames = decode_video(
        pathlib.Path(file.path),
        num_frames=self.num_frames,
        short_side=round(self.image_size * _BORDER),
    )
    return spatial_views(
        frames,
        num_variants=self.num_variants,
        size=self.image_size,
        seed=self.seed,
        video_id=file.id,
    )
