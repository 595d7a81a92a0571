"""Which files of a folder are videos, and what became of everything else."""

import collections
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from chain_jax import errors
from chain_jax.data.video_names import check_name, shown

SUFFIXES = frozenset(
    ".264 .265 .266 .3g2 .3gp .3gpp .amv .asf .avi .divx .dv .evo .f4v .flv"
    " .gif .h261 .h263 .h264 .h265 .hevc .insv .ivf .m1v .m2p .m2t .m2ts .m2v"
    " .m4v .mk3d .mkv .mod .mov .mp4 .mp4v .mpe .mpeg .mpg .mpv .mts .mxf .nsv"
    " .nut .obu .ogm .ogv .qt .rm .rmvb .tod .tp .trp .ts .vc1 .vob .vro .vvc"
    " .webm .wmv .wtv .xvid .y4m".split()
)
# What lies beside videos anywhere, and is worth no line of its own.
_COMPANIONS = frozenset(
    ".7z .aac .ass .bmp .bup .cpi .csv .db .doc .docx .flac .gz .h5 .heic .htm"
    " .html .idx .ifo .info .ini .ipynb .jpeg .jpg .json .jsonl .lnk .log .lrc"
    " .m3u .m3u8 .m4a .mat .md .md5 .mka .mp3 .nfo .npy .npz .ogg .opus .pdf"
    " .pkl .png .py .rar .sfv .sh .sha1 .sha256 .smi .srt .ssa .sub .svg .tar"
    " .thm .tif .tiff .torrent .tsv .txt .url .vtt .wav .webp .wma .xls .xlsx"
    " .xml .xmp .yaml .yml .zip".split()
)
_NUM_NAMED = 5  # Of the files that are not taken.


class LeftOut(NamedTuple):
  """What might have been a video, or held some.

  Attributes:
    name: Fit to be printed; relative to the folder.
    reason: Why there is no video of it.
  """

  name: str
  reason: str


class Walk(NamedTuple):
  """What a folder holds.

  Attributes:
    ids: Of the videos: their paths relative to the folder, joined by `/`.
    left_out: What cannot be read, or cannot be an id.
    not_taken: Files whose names do not end like a video's, fit to be printed.
    companions: How many usual companions of videos there are, by suffix.
  """

  ids: list[str]
  left_out: list[LeftOut]
  not_taken: list[str]
  companions: collections.Counter[str]

  def remarks(self, way_out: str = "rename what is a video") -> list[str]:
    """Says in a line each what was passed over."""
    lines = []
    if self.not_taken:
      more = ", ..." if len(self.not_taken) > _NUM_NAMED else ""
      lines.append(
          f"{_files(len(self.not_taken))} not taken, the name does not end like"
          f" a video's: {', '.join(self.not_taken[:_NUM_NAMED])}{more};"
          f" {way_out}"
      )
    if self.companions:
      counts = sorted(self.companions.items(), key=lambda one: (-one[1], one))
      lines.append(
          f"{_files(self.companions.total())} not taken, of kinds that lie beside"
          " videos: "
          + ", ".join(f"{count} {suffix}" for suffix, count in counts)
      )
    return lines


def _files(count: int) -> str:
  return f"{count:,} file is" if count == 1 else f"{count:,} files are"


class _Folder(NamedTuple):
  """A folder to walk.

  Attributes:
    name: Relative to the input; "" is the input itself.
    real: Its path without links.
    is_linked: Whether the way there from the input goes over a link.
  """

  name: str
  real: str
  is_linked: bool


def walk(folder: str | os.PathLike[str], *, by_class: bool) -> Walk:
  """Finds the videos in a folder and its sub-folders.

  A folder is walked once, by its own name. Links to folders are followed where
  they lead to others than these, and there, too, each is walked once: under
  each first folder where these are classes, else at all. The way with the
  fewest links counts, and of these the first by name; so however folders link
  to each other, each costs one visit, or one a class.

  Args:
    folder: The input.
    by_class: Whether its first folders are classes, and may share a folder.
  """
  found = Walk([], [], [], collections.Counter())
  seen: dict[tuple[str | None, str], str] = {}
  own = collections.deque([_Folder("", os.path.realpath(folder), False)])
  linked: collections.deque[_Folder] = collections.deque()
  while own or linked:
    at = (own or linked).popleft()
    scope = at.name.partition("/")[0] if by_class else ""
    key = scope if at.is_linked else None, at.real
    first = seen.get((None, at.real), seen.get((scope, at.real)))
    if first is not None:
      reason = f"the folder {shown(first) or 'with all this'} again"
      found.left_out.append(LeftOut(shown(at.name), reason))
      continue
    seen[key] = at.name
    for inner, is_link in _look_into(at, found):
      (linked if is_link else own).append(inner)
  found.ids.sort()
  found.left_out.sort()
  found.not_taken.sort()
  return found


def _look_into(at: _Folder, found: Walk) -> Iterator[tuple[_Folder, bool]]:
  """Notes the files of one folder and gives its folders, and if it links."""
  for entry in _entries(at, found):
    name = f"{at.name}/{entry.name}" if at.name else entry.name
    suffix = pathlib.PurePath(entry.name).suffix.lower()
    try:
      if entry.is_dir():
        check_name(name)
        is_link = entry.is_symlink()
        real = os.path.join(at.real, entry.name)
        real = os.path.realpath(real) if is_link else real
        yield _Folder(name, real, at.is_linked or is_link), is_link
      elif suffix in _COMPANIONS:
        found.companions[suffix] += 1
      elif not entry.is_file():
        exists = os.path.exists(entry.path)
        reason = "not a file" if exists else "no such file"
        found.left_out.append(LeftOut(shown(name), reason))
      elif suffix in SUFFIXES:
        check_name(name)
        found.ids.append(name)
      else:
        found.not_taken.append(shown(name))
    except (OSError, errors.InputError) as error:
      reason = errors.one_line(error, length=400)
      found.left_out.append(LeftOut(shown(name), reason))


def _entries(at: _Folder, found: Walk) -> list[os.DirEntry[str]]:
  """Lists what does not begin with a dot, in a fixed order."""
  entries = []
  try:
    with os.scandir(at.real) as scanned:
      for entry in scanned:
        entries.append(entry)
  except OSError as error:  # What came before it still counts.
    reason = errors.one_line(error)
    found.left_out.append(LeftOut(shown(at.name) or ".", reason))
  shown_entries = (one for one in entries if not one.name.startswith("."))
  return sorted(shown_entries, key=lambda entry: entry.name)
