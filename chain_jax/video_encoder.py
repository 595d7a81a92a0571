"""Video files -> codes of a trained run, to search with."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float16, UInt8

from chain_jax import codes as codes_lib
from chain_jax import export, frame_features, run, sharding, train_state
from chain_jax.data import sources, video_decoding
from chain_jax.data.video_views import VideoFile, ViewLoader
from chain_jax.errors import InputError
from chain_jax.models.backbones.loading import Backbone
from chain_jax.workdir import Workdir, read_config

_VIDEOS_PER_DEVICE = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoEncoder:
  """A run's model behind the backbone that its videos were prepared with.

  Attributes:
    backbone: Extracts the features of frames.
    load: Decodes a file, without spatial variants.
    num_frames: Frames a view of the model has.
    encode: From `export.make_encode`.
    state: Of the model.
    mesh: The devices.
  """

  backbone: Backbone
  load: ViewLoader
  num_frames: int
  encode: Any
  state: train_state.TrainState
  mesh: jax.sharding.Mesh

  @property
  def step(self) -> int:
    """Of the checkpoint."""
    return int(self.state.step)

  def features(
      self,
      paths: Sequence[str | pathlib.Path],
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
    return export.encode_split(
        self.encode,
        self.state,
        sources.FramesSource(features),
        self.mesh,
        # One video for each device, at least: the batch is split over them.
        batch_size=self.mesh.size * _VIDEOS_PER_DEVICE,
        num_frames=self.num_frames,
    )


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
  folder = Workdir(workdir, checkpoint_folder=config.train.checkpoint_folder)
  state = run.restore(config, folder, mesh)
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
      state=state,
      mesh=mesh,
  )


def encode_videos(
    paths: Sequence[str],
    *,
    gallery_path: str,
    gallery: codes_lib.CodeSet,
    workdir: str | None,
    weights: str | None,
) -> codes_lib.CodeSet:
  """Encodes video files to search a gallery with.

  Args:
    paths: The files; they are the ids too.
    gallery_path: The gallery's code directory, DIR/codes/gallery.
    gallery: Its codes.
    workdir: Of the run that made them; None for DIR.
    weights: As in `load_video_encoder`.

  Raises:
    InputError: As `load_video_encoder`, if a file cannot be decoded, or if the
      run's checkpoint is not the one that the gallery was encoded with.
  """
  if workdir is None:
    workdir = str(pathlib.Path(gallery_path).resolve().parent.parent)
  encoder = load_video_encoder(
      workdir, features=gallery.manifest.get("features"), weights=weights
  )
  if encoder.step != gallery.manifest.get("step"):
    raise InputError(
        f"{workdir}: its newest checkpoint is of step {encoder.step}, the codes"
        f" in {gallery_path} are of step {gallery.manifest.get('step')}; run"
        " --mode=export again."
    )
  packed = encoder.codes(list(encoder.features(paths)))
  return codes_lib.CodeSet(packed, np.array(paths), None, {})
