"""Video files -> codes of a trained run, to search with."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float16, UInt8

from chain_jax import codes as codes_lib
from chain_jax import export, frame_features, run, sharding, train_state
from chain_jax.data import augment, video_decoding
from chain_jax.data.video_views import VideoFile, ViewLoader
from chain_jax.errors import InputError
from chain_jax.models.backbones.loading import Backbone
from chain_jax.workdir import Workdir, read_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoEncoder:
  """A run's model behind the backbone that its videos were prepared with.

  Attributes:
    backbone: Extracts the features of frames.
    load: Decodes a file, without spatial variants.
    num_frames: Frames a view of the model has.
    encode: From `export.make_encode`.
    variables: Of the model.
    mesh: The devices.
    step: Of the checkpoint.
  """

  backbone: Backbone
  load: ViewLoader
  num_frames: int
  encode: Any
  variables: Any
  mesh: jax.sharding.Mesh
  step: int

  def features(
      self,
      paths: Sequence[str],
      *,
      num_workers: int = 2,
      timeout_seconds: float = 60.0,
  ) -> Iterator[Float16[np.ndarray, "num_frames dim"]]:
    """Extracts the frame features of video files, in order.

    Raises:
      InputError: If a file cannot be decoded.
    """
    decoded = video_decoding.decode_videos(
        self.load,
        [VideoFile(str(path), str(path)) for path in paths],
        num_workers=num_workers,
        timeout_seconds=timeout_seconds,
    )
    for file, views in decoded:
      if isinstance(views, video_decoding.DecodeFailure):
        raise InputError(
            f"--video={file.path} must be a video that can be decoded:"
            f" {views.reason}; check the file."
        )
      yield frame_features.extract_features(self.backbone, views)[:, 0]

  def codes(
      self, features: Sequence[Float16[np.ndarray, "_ dim"]]
  ) -> UInt8[np.ndarray, "n num_bytes"]:
    """Encodes videos by their features; returns packed codes."""
    packed = []
    for frames in features:
      view, mask = augment.plain_view(frames, num_frames=self.num_frames)
      # One video for each device: the batch is split over them.
      shape = (self.mesh.size, *view.shape)
      batch = sharding.to_global(
          (np.broadcast_to(view, shape), np.tile(mask, (self.mesh.size, 1))),
          self.mesh,
      )
      logits = np.asarray(self.encode(self.variables, *batch))[:1]
      packed.append(codes_lib.pack_bits(codes_lib.binarise(logits)))
    return np.concatenate(packed)


def load_video_encoder(
    workdir: str, *, features: dict[str, Any] | None, weights: str | None
) -> VideoEncoder:
  """Loads the newest checkpoint of a run and its backbone.

  Args:
    workdir: Folder of the run.
    features: How the run's videos were prepared, as a code directory's manifest
      tells in "features".
    weights: File of the backbone's weights; None for "random".

  Raises:
    InputError: If the run was not on video files, its checkpoint is missing,
      or the weights are others than those its videos were prepared with.
  """
  if not features or "backbone" not in features:
    raise InputError(
        "--video needs a gallery of video files, got one of other features;"
        " prepare it by `python -m chain_jax.prepare videos`, or search with"
        " --query."
    )
  backbone = frame_features.cached_backbone(features["backbone"], weights)
  if backbone.weights_checksum != features["weights_checksum"]:
    raise InputError(
        f"--weights must be the file that the gallery was prepared with"
        f" (SHA-256 {features['weights_checksum'][:12]}...), got {weights}"
        f" ({backbone.weights_checksum[:12]}...); find that file."
    )
  config = read_config(workdir)
  mesh = sharding.make_mesh()
  state = run.restore(config, Workdir(workdir), mesh)
  return VideoEncoder(
      backbone=backbone,
      load=ViewLoader(
          num_frames=features["num_frames"],
          num_variants=1,
          image_size=features["image_size"],
          seed=0,
      ),
      num_frames=config.data.num_frames,
      encode=export.make_encode(train_state.make_model(config.model), mesh),
      variables={"params": state.params, "statistics": state.statistics},
      mesh=mesh,
      step=int(state.step),
  )
