"""Runs `prepare videos` on folders, and the folders beside the corpus."""

import json
import pathlib
import subprocess
import sys
from typing import NamedTuple

import numpy as np

from benchmarks import video_corpus_files as files
from benchmarks.video_corpus_files import Case

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_NUM_CLIPS = 20


class Prepared(NamedTuple):
  """What `prepare videos` made of a folder.

  Attributes:
    exit_code: Its; None = it was ended for it took too long.
    taken: Names of the videos in the dataset.
    skipped: Names of the files that the manifest lists, and why.
    has_traceback: Whether it showed one.
    said: The end of what it wrote on standard error.
  """

  exit_code: int | None
  taken: set[str]
  skipped: dict[str, str]
  has_traceback: bool
  said: str


def prepare(
    folder: pathlib.Path,
    output: pathlib.Path,
    *flags: str,
    timeout_seconds: float = 1800,
) -> Prepared:
  """Runs the command on all files of a folder at once."""
  command = [sys.executable, "-m", "chain_jax.prepare", "videos"]
  command += [f"--input={folder}", f"--output={output}", "--backbone=random"]
  try:
    done = subprocess.run(
        [*command, "--num_variants=1", "--num_workers=2", *flags],
        capture_output=True,
        text=True,
        errors="replace",
        cwd=_ROOT,
        timeout=timeout_seconds,
    )
  except subprocess.TimeoutExpired:
    return Prepared(None, set(), {}, False, "")
  taken, skipped = set(), {}
  for index in output.glob("*/*/index-*.npz"):
    with np.load(index) as members:
      taken |= {_text(name) for name in members["ids"]}
  for manifest in output.glob("*/*/manifest.json"):
    for entry in json.loads(manifest.read_text())["skipped"]:
      skipped[entry["source"]] = entry["reason"]
  said = done.stderr.strip().splitlines()[-1:] or [""]
  shown = "Traceback (most recent call last)" in done.stdout + done.stderr
  return Prepared(done.returncode, taken, skipped, shown, said[0])


def _text(name) -> str:
  return name.decode() if isinstance(name, bytes) else str(name)


# --- Files that were found in the wild: what must become of each ---

_ODD = {
    "f1.mp4": {},
    "f2.mov": {},
    "f3.mkv": {"must": "refused"},
    # What leads to the cut is dropped by some decoders, not by others.
    "f4.mp4": {"slack": 5},
    "f5.ts": {"slack": 5},
    "f6.mkv": {"slack": None},  # The last picture stays for 18 of 20 s.
    "f7.mkv": {},
    "f9.ts": {},
    "f13.mp4": {"must": "either"},
}


def odd_cases(folder: pathlib.Path) -> list[Case]:
  """Returns the known files of a folder as cases."""
  return [
      Case(
          group="odd videos",
          name=name,
          write=lambda path, name=name: path.write_bytes(
              (folder / name).read_bytes()
          ),
          **fields,
      )
      for name, fields in _ODD.items()
      if (folder / name).exists()
  ]


# --- Clips with sound ---


def check_sound(clips: pathlib.Path, folder: pathlib.Path) -> list[str]:
  """Adds sound to clips and breaks some: says what is not as it must be."""
  inputs = folder / "clips_with_sound"
  inputs.mkdir()
  found = sorted(path for path in clips.rglob("*.*") if path.is_file())
  found = [path for path in found if path.suffix in (".mp4", ".avi", ".mkv")]
  chosen = found[:: max(1, len(found) // _NUM_CLIPS)][:_NUM_CLIPS]
  for number, clip in enumerate(chosen):
    sound = ("aac", "mp3")[number % 2]
    add_sound(clip, inputs / f"{number:02d}_{clip.stem}.mp4", sound)
  data = (inputs / f"00_{chosen[0].stem}.mp4").read_bytes()
  (inputs / "broken_half.mp4").write_bytes(data[: len(data) // 2])
  (inputs / "broken_text.mp4").write_bytes(b"no video\n" * 100)
  (inputs / "broken_empty.mp4").write_bytes(b"")
  faults = []
  for flags, wanted in (((), 0), (("--strict",), 2)):
    output = folder / f"sound_output_{wanted}"
    prepared = prepare(inputs, output, *flags)
    print(
        f"with sound {' '.join(flags)}: exit {prepared.exit_code},"
        f" {len(prepared.taken)} videos, {len(prepared.skipped)} listed;"
        f" must be exit {wanted}, {len(chosen)} videos, 3 listed"
    )
    if (
        prepared.has_traceback
        or prepared.exit_code != wanted
        or len(prepared.taken) != len(chosen)
        or len(prepared.skipped) != 3
    ):
      faults.append(f"clips with sound {' '.join(flags)}: {prepared.said}")
  return faults


def add_sound(
    source: pathlib.Path, target: pathlib.Path, sound: str, *, seconds=3.0
) -> None:
  """Copies a video and adds a tone, without encoding its pictures anew."""
  import av

  with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
    stream = reader.streams.video[0]
    video = writer.add_stream_from_template(stream)
    tone = writer.add_stream(sound, rate=48000)
    for packet in reader.demux(stream):
      if packet.dts is not None:
        packet.stream = video
        writer.mux(packet)
    for packet in files.tone(tone, seconds):
      writer.mux(packet)
