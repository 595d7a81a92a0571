"""Compares what `decode_video` gives with a full decode that it has no part in.

Both run in a process of their own, which is ended when it takes too long.
"""

import contextlib
import multiprocessing
import pathlib
import traceback
from typing import Any, NamedTuple

import numpy as np

from benchmarks.video_corpus_files import Case

NUM_FRAMES = 25
# Frames are compared at their own size where that is at most this high.
_LARGEST_SIDE = 160
_SMALL_SIDE = 64
_CELL = 4  # Pixels a side over which differences are averaged.
# Two ways to RGB may differ by 2 levels; one block of the number by 176.
_SAME_LEVELS = 4.0
_SAME_CORRELATION = 0.9
_MOST_REFERENCE_FRAMES = 4000


class Finding(NamedTuple):
  """What became of one file.

  Attributes:
    reason: Why it was left out; "" = it was taken.
    fault: What is wrong, if anything: a traceback, a hang, or wrong frames.
    wrong: How many frames are wrong.
    doubt: Why the file may not be what its case says.
  """

  reason: str = ""
  fault: str = ""
  wrong: int = 0
  doubt: str = ""


class Watched:
  """A process that calls functions, started anew when it hangs or ends."""

  def __init__(self, *, timeout_seconds: float) -> None:
    self._timeout_seconds = timeout_seconds
    self._process = None
    self._pipe: Any = None

  def call(self, function, *arguments) -> tuple[str, Any]:
    """Returns ("value", result), ("raised", lines), ("hangs" | "ended", "")."""
    if self._process is None:
      context = multiprocessing.get_context("spawn")
      self._pipe, other = context.Pipe()
      self._process = context.Process(target=_serve, args=(other,), daemon=True)
      self._process.start()
      other.close()
    self._pipe.send((function, arguments))
    try:
      if self._pipe.poll(self._timeout_seconds):
        return self._pipe.recv()
    except (EOFError, ConnectionResetError):
      self._process.join()
      code = self._process.exitcode
      self.close()
      return "ended", f"its process ended with {code}"
    self.close()
    return "hangs", f"took longer than {self._timeout_seconds:g} s"

  def __enter__(self) -> "Watched":
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def close(self) -> None:
    """Ends the process."""
    if self._process is not None:
      self._process.kill()
      self._process.join()
      self._process = None


def _serve(pipe) -> None:
  with contextlib.suppress(EOFError):
    while True:
      function, arguments = pipe.recv()
      try:
        pipe.send(("value", function(*arguments)))
      except BaseException:
        pipe.send(("raised", traceback.format_exc()))


def _decode(path: str, num_frames: int, short_side: int):
  """Returns (frames, "") or (None, reason), as `prepare` would see it."""
  from chain_jax import errors
  from chain_jax.data import video_index, videos

  try:
    frames = videos.decode_video(
        pathlib.Path(path), num_frames=num_frames, short_side=short_side
    )
  except (video_index.VideoError, errors.InputError) as error:
    return None, str(error) or "no reason"
  return frames, ""


def full_decode(path: str, size: tuple[int, int] | None):
  """Decodes each video of a file from the first packet to the last.

  Returns:
    For each of them (RGB frames, number of decoding errors), of one size.
  """
  import av

  av.logging.set_level(av.logging.PANIC)
  videos = []
  with av.open(path, metadata_errors="replace") as container:
    cover = av.stream.Disposition.attached_pic
    places = [
        stream.index
        for stream in container.streams.video
        if not stream.disposition & cover and stream.codec_context
    ]
  for place in places:
    with av.open(path, metadata_errors="replace") as container:
      videos.append(_full_decode(container, container.streams[place], size))
  return videos


def _full_decode(container, stream, size):
  import av
  from av.video.reformatter import Interpolation

  how = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
  frames, num_errors = [], 0
  for packet in container.demux(stream):
    try:
      decoded = packet.decode()
    except av.FFmpegError:
      num_errors += packet.size > 0
      continue
    for frame in decoded:
      size = size or (frame.width, frame.height)
      width, height = _compared_size(*size)
      small = frame.reformat(
          width=width,
          height=height,
          format="rgb24",
          interpolation=how | Interpolation.BITEXACT,
      )
      frames.append(small.to_ndarray())
      if len(frames) > _MOST_REFERENCE_FRAMES:
        return np.stack(frames), 1
  return np.stack(frames) if frames else np.zeros((0, 1, 1, 3)), num_errors


def _compared_size(width: int, height: int) -> tuple[int, int]:
  """Returns the size that both ways of decoding scale to."""
  short = min(width, height)
  side = short if short <= _LARGEST_SIDE else _SMALL_SIDE
  if width >= height:
    return round(side * (width / height)), side
  return side, round(side / (width / height))


def check(
    case: Case, path: pathlib.Path, *, decoder: Watched, other: Watched
) -> Finding:
  """Decodes a file in both ways and compares.

  Args:
    case: Whose file it is.
    path: Of the file.
    decoder: Runs `decode_video`.
    other: Runs the full decode: PyAV's settings are a process's.
  """
  kind, videos = other.call(full_decode, str(path), case.size)
  doubt = ""
  if kind != "value":
    doubt = videos.strip().splitlines()[-1]
    videos = []
  videos = [video for video in videos if len(video[0])]
  if case.must == "taken":
    if not doubt and not videos:
      doubt = "a full decode gives no frame"
    elif videos and min(errors for _, errors in videos):
      doubt = "a full decode meets errors"
  side = min(videos[0][0].shape[1:3]) if videos else _SMALL_SIDE
  kind, answer = decoder.call(_decode, str(path), NUM_FRAMES, side)
  if kind != "value":
    last = answer.strip().splitlines()[-1]
    return Finding(fault=f"{kind}: {last}", doubt=doubt)
  frames, reason = answer
  if frames is None:
    return Finding(reason=reason, doubt=doubt)
  if not case.is_compared or not videos:
    return Finding(doubt=doubt)
  comparisons = [_compare(case, frames, reference) for reference, _ in videos]
  wrong, fault = min(comparisons)
  return Finding(fault=fault, wrong=wrong, doubt=doubt)


def _compare(case, frames, reference) -> tuple[int, str]:
  """Counts the wrong frames: (how many, what is wrong with the first)."""
  if case.turn is not None:
    reference = np.stack([case.turn(picture) for picture in reference])
  if frames.shape[1:] != reference.shape[1:]:
    size = "x".join(map(str, frames.shape[2:0:-1]))
    wanted = "x".join(map(str, reference.shape[2:0:-1]))
    return len(frames), f"pictures of {size} instead of {wanted}"
  most = min(NUM_FRAMES, len(reference))
  if len(frames) not in (most, NUM_FRAMES):
    return NUM_FRAMES, f"{len(frames)} frames instead of {most}"
  alike = _alike(case, frames, reference)
  expected = expected_frames(case, len(reference), len(frames))
  faults = []
  for number, (row, target) in enumerate(zip(alike, expected, strict=True)):
    found = np.flatnonzero(row)
    if not len(found):
      faults.append(f"picture {number} is none of the video's")
    elif case.must == "taken" and case.slack is not None:
      nearest = found[np.argmin(np.abs(found - target))]
      if abs(nearest - target) > case.slack:
        faults.append(f"picture {number} is frame {nearest}, not {target}")
  return len(faults), faults[0] if faults else ""


def expected_frames(case: Case, available: int, count: int) -> list[int]:
  """Returns the frames on screen at the centres of equal segments of time."""
  if count == available:
    return list(range(count))
  times = case.times
  if times is None or len(times) != available + 1:
    times = range(available + 1)
  times = np.asarray(times, float)
  centres = times[0] + (np.arange(count) + 0.5) * (times[-1] - times[0]) / count
  # The earlier one where one ends and the next begins.
  chosen = np.searchsorted(times, centres - 1e-6, side="right") - 1
  return chosen.clip(0, available - 1).tolist()


def _alike(case, frames, reference):
  """Says which frames equal which of the reference, bool [frames, all]."""
  small, whole = (_cells(pictures) for pictures in (frames, reference))
  if case.is_toned:
    small, whole = (
        _standard(pictures.mean(axis=-1)) for pictures in (small, whole)
    )
    correlation = small @ whole.T
    best = correlation.max(axis=1, keepdims=True)
    return (correlation >= best - 0.01) & (best >= _SAME_CORRELATION)
  return np.stack(
      [
          np.abs(whole - picture).max(axis=(1, 2, 3)) <= _SAME_LEVELS
          for picture in small
      ]
  )


def _standard(pictures):
  flat = pictures.reshape(len(pictures), -1)
  flat = flat - flat.mean(axis=1, keepdims=True)
  return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def _cells(pictures):
  """Averages over cells of a few pixels; [n, rows, columns, 3]."""
  n, height, width, _ = pictures.shape
  rows, columns = max(1, height // _CELL), max(1, width // _CELL)
  cut = pictures[:, : rows * (height // rows), : columns * (width // columns)]
  shape = (n, rows, height // rows, columns, width // columns, 3)
  return cut.reshape(shape).mean(axis=(2, 4), dtype=np.float32)
