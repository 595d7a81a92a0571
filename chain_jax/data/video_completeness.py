"""Whether all of a video is there that its file announces."""

import re
from typing import Any

# A file that holds less of the time it announces was cut off.
_SMALLEST_SHARE = 0.9
_SEGMENT = b"\x18\x53\x80\x67"  # Name of Matroska's top element.


class VideoError(ValueError):
  """A file cannot be turned into frames; the text is a short reason."""


def check_complete(found: float | None, container: Any, stream: Any) -> None:
  """Checks that a file holds what it announces.

  Args:
    found: How long its packets last, in seconds; None where that is open.
    container: An `av.container.InputContainer`.
    stream: Its video stream.

  Raises:
    VideoError: If the packets cover less than 90 % of the announced time, and
      the file is not known to be whole.
  """
  announced = _announced_seconds(container, stream)
  if found is None or announced is None:
    return
  if found < _SMALLEST_SHARE * announced and not _is_whole(container):
    raise VideoError(
        f"cut off: it announces {announced:.1f} s and holds {found:.1f} s"
    )


def _is_whole(container: Any) -> bool:
  """Says whether a Matroska file is as long as its header says.

  Then what it announces beyond its packets is time in which the last picture
  stays. Source: RFC 9559, the segment's size; other formats tell no size.
  """
  if not container.format.name.startswith("matroska"):
    return False
  with open(container.name.removeprefix("file:"), "rb") as file:
    header = file.read(2**16)
  place = 4  # After the name of the EBML header comes its size.
  for _ in range(2):
    length = 9 - header[place].bit_length()
    field = int.from_bytes(header[place : place + length])
    size = field - (1 << 7 * length)
    place += length
    if header[place + size : place + size + 4] == _SEGMENT:
      place += size + 4
  # All bits set: not known.
  return size < (1 << 7 * length) - 1 and place + size <= container.size


def _announced_seconds(container: Any, stream: Any) -> float | None:
  if stream.duration:
    return float(stream.duration * stream.time_base)
  tag = re.fullmatch(
      r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", "")
  )
  if tag:
    hours, minutes, seconds = map(float, tag.groups())
    return 3600 * hours + 60 * minutes + seconds
  if container.duration and len(container.streams) == 1:
    return container.duration * 1e-6
  return None
