"""Video files -> codes of a trained run, to search with."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float16, UInt8

from chain_jax import codes as codes_lib
from chain_jax import (
    errors,
    export,
    frame_features,
    run,
    sharding,
    train_state,
)
from chain_jax.code_files import file_checksum
from chain_jax.data import given_videos, sources, video_decoding
from chain_jax.data.video_decoding import DecodeFailure
from chain_jax.data.video_names import shown
from chain_jax.data.video_views import VideoFile, ViewLoader
from chain_jax.data.video_walk import LeftOut
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
    for file, outcome in self.features_or_failures(
        [VideoFile(str(path), str(path)) for path in paths],
        num_workers=num_workers,
        timeout_seconds=timeout_seconds,
    ):
      if isinstance(outcome, DecodeFailure):
        raise _no_video([LeftOut(file.id, outcome.reason)])
      yield outcome

  def features_or_failures(
      self,
      files: Sequence[VideoFile],
      *,
      num_workers: int,
      timeout_seconds: float,
  ) -> Iterator[
      tuple[VideoFile, Float16[np.ndarray, "num_frames dim"] | DecodeFailure]
  ]:
    """Extracts features as `features` does; a bad file gives its failure."""
    decoded = video_decoding.decode_videos(
        self.load,
        files,
        num_workers=min(num_workers, len(files)),
        timeout_seconds=timeout_seconds,
    )
    for file, views in decoded:
      if isinstance(views, DecodeFailure):
        yield file, views
        continue
      try:
        features = frame_features.extract_features(self.backbone, views)
        yield file, features[:, 0]
      except InputError as error:
        yield file, DecodeFailure(str(error))

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
    workdir: str, *, features: Any, weights: str | None
) -> VideoEncoder:
  """Loads the newest checkpoint of a run and its backbone.

  Args:
    workdir: Folder of the run.
    features: How the run's videos were prepared: what a code directory's
      manifest holds as "features", whatever that is.
    weights: File of the backbone's weights; None for "random", and where the
      file that its videos were prepared with is still in its place.

  Raises:
    InputError: If the run was not on video files, its checkpoint is missing,
      or the weights are others than those its videos were prepared with.
  """
  if not isinstance(features, dict) or "backbone" not in features:
    raise InputError(
        "--video needs a gallery of video files, got one of other features;"
        " prepare it by `python -m chain_jax.prepare videos`, or search with"
        " --query."
    )
  checksum = _setting(features, "weights_checksum", str)
  if weights is None and features.get("weights") is not None:
    weights = _setting(features, "weights", str)
    _check_remembered(weights, checksum)
  name = _setting(features, "backbone", str)
  backbone = frame_features.cached_backbone(name, weights)
  if backbone.weights_checksum != checksum:
    raise InputError(
        f"--weights must be the file that the gallery was prepared with"
        f" (SHA-256 {checksum[:12]}...), got {weights}"
        f" ({backbone.weights_checksum[:12]}...); find that file."
    )
  config = read_config(workdir)
  mesh = sharding.make_mesh()
  folder = Workdir(workdir, checkpoint_folder=config.train.checkpoint_folder)
  state = run.restore(config, folder, mesh)
  return VideoEncoder(
      backbone=backbone,
      load=ViewLoader(
          num_frames=_setting(features, "num_frames", int),
          num_variants=1,
          image_size=backbone.image_size,
          seed=0,
      ),
      num_frames=config.data.num_frames,
      encode=export.make_encode(train_state.make_model(config.model), mesh),
      state=state,
      mesh=mesh,
  )


def _setting(features: dict[str, Any], name: str, kind: type) -> Any:
  value = features.get(name)
  if not isinstance(value, kind) or (kind is int and value < 1):
    raise InputError(
        f"the gallery's manifest must tell `features.{name}`, a"
        f" {'number >= 1' if kind is int else 'text'}, got {ascii(value)[:80]}; run --mode=export again."
    )
  return value


def _check_remembered(weights: str, checksum: str) -> None:
  """Refuses a remembered path that holds something else by now.

  Raises:
    InputError: If it is not the file of that checksum; nothing else of the
      file was looked at.
  """
  path = pathlib.Path(weights)
  if not os.path.isfile(path):
    found = "is not there any more"
  else:
    with errors.reading(
        path, must_be="a file of weights", way_out="give --weights=FILE"
    ):
      if file_checksum(path) == checksum:
        return
    found = "is another file by now"
  raise InputError(
      f"{shown(weights)}: the file of weights that the gallery was prepared with"
      f" {found}; give it by --weights=FILE (SHA-256 {checksum[:12]}...)."
  )


class Encoded(NamedTuple):
  """Codes to search with, and what has none; see `GivenVideos`."""

  codes: codes_lib.CodeSet
  left_out: list[LeftOut]
  remarks: list[str]


def encode_videos(
    paths: Sequence[str],
    *,
    gallery_path: str,
    gallery: codes_lib.CodeSet,
    workdir: str | None,
    weights: str | None,
    num_workers: int = 2,
    timeout_seconds: float = 60.0,
) -> Encoded:
  """Encodes video files to search a gallery with.

  Args:
    paths: Files and folders, as `list_given` takes them.
    gallery_path: The gallery's code directory, DIR/codes/gallery.
    gallery: Its codes.
    workdir: Of the run that made them; None for DIR.
    weights: As in `load_video_encoder`.
    num_workers: Processes that decode.
    timeout_seconds: For one file; without workers there is no limit.

  Raises:
    InputError: As `load_video_encoder`, if no file can be decoded, or if the
      run's checkpoint is not the one that the gallery was encoded with.
  """
  files, left_out, remarks = given_videos.list_given(paths)
  if not files:
    raise _no_video(left_out)
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
  ids, features = [], []
  for file, outcome in encoder.features_or_failures(
      files, num_workers=num_workers, timeout_seconds=timeout_seconds
  ):
    if isinstance(outcome, DecodeFailure):
      left_out.append(LeftOut(file.id, outcome.reason))
    else:
      ids.append(file.id)
      features.append(outcome)
  if not ids:
    raise _no_video(left_out)
  codes = codes_lib.CodeSet(encoder.codes(features), np.array(ids), None, {})
  return Encoded(codes, left_out, remarks)


def _no_video(left_out: Sequence[LeftOut]) -> InputError:
  """Says in one line why nothing can be searched with."""
  first, *others = left_out
  more = f"; nor can {len(others)} more" if others else ""
  return InputError(
      f"--video={first.name} must be a video that can be decoded:"
      f" {first.reason.rstrip('.')}{more}; check the file."
  )
