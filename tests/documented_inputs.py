"""What the commands in the documents read, made small."""

import h5py
import numpy as np
import scipy.io

from chain_jax.data import synthetic_youtube8m


def write_inputs(folder):
  """Writes all inputs that documents name, under the names they have there."""
  _write_ucf101(folder / "DIR")
  _write_features(folder / "features.npz")
  _write_shards(folder / "yt8m", segments=False)
  _write_shards(folder / "yt8m_2019", segments=True)
  _write_clips(folder / "CLIPS", folder / "query.mp4")


def _write_ucf101(folder):
  """Made-up files in the field's layout, with frames of the field's width."""
  folder.mkdir()
  rng = np.random.default_rng(0)
  # ITQ needs more train videos than its 64 bits.
  for split, num_videos in (("train", 96), ("test", 8)):
    with h5py.File(folder / f"ucf_{split}_feats.h5", "w") as file:
      features = rng.random((num_videos, 5, 4096), np.float32)
      file["feats"] = features.astype(np.float16)
      file["ids"] = [f"{split}_g{row % 12}_c{row}" for row in range(num_videos)]
    labels = np.eye(4, dtype=np.uint8)[np.arange(num_videos) % 4]
    scipy.io.savemat(folder / f"ucf_{split}_labels.mat", {"labels": labels})


def _write_features(path):
  rng = np.random.default_rng(0)
  features = rng.random((96, 5, 2048), np.float32).astype(np.float16)
  np.savez(path, feats=features, labels=np.arange(96) % 4)


def _write_shards(folder, *, segments):
  for part, num_shards in (("train", 2), ("validate", 1)):
    synthetic_youtube8m.write_shards(
        folder,
        num_shards=num_shards,
        videos_per_shard=40,
        seed=0,
        part=part,
        segments=segments and part == "validate",
    )


def _write_clips(folder, query):
  """Writes 24 clips of 2 classes, named like UCF101's, and one to find."""
  import video_files  # Needs PyAV.

  for number in range(24):
    name = f"class{number % 2}"
    (folder / name).mkdir(parents=True, exist_ok=True)
    path = folder / name / f"v_{name}_g{number // 2 + 8:02d}_c01.mp4"
    frames = video_files.moving_frames(6, seed=number)
    video_files.write_video(path, frames)
    if number == 20:
      query.write_bytes(path.read_bytes())
