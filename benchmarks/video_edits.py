"""How often does an edited copy of a video find its source?

    python -m benchmarks.video_edits --workdir=runs/clips --input=CLIPS --weights=FILE

Re-encodes, crops, speeds up and mirrors clips of the gallery (and all of these
at once), searches with each copy, and counts how often its source is the first,
or among the first five. Beside it ITQ on the same frame features, as many bits.
"""

import argparse
import fractions
import json
import pathlib
import sys
import tempfile

import numpy as np

from benchmarks import machine
from chain_jax import baselines, codes, nearest, video_encoder
from chain_jax.data import dataset_folder, pooling

# Share of height and width that the crop leaves; constant rate factor of H.264
# (18 looks like the source, 28 clearly worse, 51 is the worst there is).
_CROP, _QUALITY, _SPEED = 0.8, 35, fractions.Fraction(5, 4)
_KINDS = {
    "re-encoded": {},
    "cropped": {"crop": True},
    "sped up 1.25x": {"faster": True},
    "mirrored": {"mirror": True},
    "all of these": {"crop": True, "faster": True, "mirror": True},
}
_TOP_KS = (1, 5)


def edit(source, target, *, crop=False, faster=False, mirror=False):
  """Writes an edited copy; every copy is encoded anew."""
  import av

  with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
    stream = reader.streams.video[0]
    rate = stream.average_rate * (_SPEED if faster else 1)
    output = None
    for frame in reader.decode(stream):
      pixels = frame.to_ndarray(format="rgb24")
      if crop:
        pixels = _centre(pixels)
      if mirror:
        pixels = pixels[:, ::-1]
      if output is None:
        output = writer.add_stream("libx264", rate=rate)
        output.height, output.width = pixels.shape[:2]
        output.pix_fmt = "yuv420p"
        output.options = {"crf": str(_QUALITY)}
      shown = av.VideoFrame.from_ndarray(
          np.ascontiguousarray(pixels), format="rgb24"
      )
      for packet in output.encode(shown):
        writer.mux(packet)
    for packet in output.encode():
      writer.mux(packet)


def _centre(pixels):
  """Cuts out the middle; H.264 wants even sides."""
  height, width = (int(side * _CROP) // 2 * 2 for side in pixels.shape[:2])
  top, left = (
      (a - b) // 2
      for a, b in zip(pixels.shape[:2], (height, width), strict=True)
  )
  return pixels[top : top + height, left : left + width]


def _itq(dataset, settings, num_bits):
  """Learns ITQ on the mean frames of the train split."""
  split = dataset.split(settings["prepared"]["train_split"])
  linear = baselines.fit_itq(
      pooling.pooled_features(split), num_bits=num_bits, seed=0
  )
  gallery = dataset.split(settings["prepared"]["gallery_split"])
  return linear, _hash(linear, pooling.pooled_features(gallery))


def _hash(linear, pooled):
  return codes.pack_bits(baselines.apply_linear_hash(linear, pooled))


def _pool(features):
  pooled = np.stack([f.astype(np.float32).mean(axis=0) for f in features])
  return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)


def _hits(query, gallery, sources):
  """Share of the queries whose source is among the first K, by K."""
  positions, _ = nearest.search_codes(query, gallery, top_k=max(_TOP_KS))
  found = positions == sources[:, None]
  return {k: found[:, :k].any(axis=1).mean() for k in _TOP_KS}


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--workdir", required=True, help="of a finished run")
  parser.add_argument("--input", required=True, help="folder of the videos")
  parser.add_argument("--weights", help="of the backbone")
  parser.add_argument("--num_clips", type=int, default=60)
  parser.add_argument("--seed", type=int, default=0, help="of the clips")
  flags = parser.parse_args()
  workdir = pathlib.Path(flags.workdir)
  gallery = codes.read_code_directory(workdir / "codes" / "gallery")
  config = json.loads((workdir / "config.json").read_text())
  encoder = video_encoder.load_video_encoder(
      flags.workdir,
      features=gallery.manifest.get("features"),
      weights=flags.weights,
  )
  linear, itq_gallery = _itq(
      dataset_folder.open_dataset(config["data"]["root"]),
      config["data"],
      gallery.num_bits,
  )
  rng = np.random.default_rng(flags.seed)
  count = min(flags.num_clips, len(gallery.ids))
  sources = np.sort(rng.choice(len(gallery.ids), count, replace=False))
  print(machine.machine_line("jax", "av"))
  print(
      f"{count} clips of {len(gallery.ids)}, {gallery.num_bits} bits, step"
      f" {encoder.step}; source first / among the first five"
  )
  print(f"{'edit':<16}{'chain':>14}{'ITQ':>14}")
  with tempfile.TemporaryDirectory() as folder:
    for kind, edits in _KINDS.items():
      copies = []
      for source in sources:
        copies.append(pathlib.Path(folder) / f"{source}.mp4")
        edit(
            pathlib.Path(flags.input) / gallery.ids[source], copies[-1], **edits
        )
      features = list(encoder.features(copies))
      rows = (
          _hits(encoder.codes(features), gallery.packed, sources),
          _hits(_hash(linear, _pool(features)), itq_gallery, sources),
      )
      cells = [f"{row[1]:.3f} / {row[5]:.3f}" for row in rows]
      print(
          f"{kind:<16}" + "".join(f"{cell:>14}" for cell in cells), flush=True
      )


if __name__ == "__main__":
  sys.exit(main())
