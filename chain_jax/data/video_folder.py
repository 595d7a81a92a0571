"""Which videos an input folder holds, their ids and their labels."""

import csv
import decimal
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from chain_jax import errors
from chain_jax.data.video_names import check_name

SUFFIXES = frozenset(
    ".3g2 .3gp .asf .avi .divx .dv .f4v .flv .gif .ivf .m2ts .m2v .m4v .mkv"
    " .mov .mp4 .mpeg .mpg .mts .mxf .nut .ogm .ogv .qt .rm .rmvb .ts .vob"
    " .webm .wmv .xvid".split()
)


class VideoList(NamedTuple):
  """The videos of an input folder.

  Attributes:
    paths: Where each lies.
    ids: The paths relative to the folder, parts joined by `/`; unique.
    labels: Each video's positions in `classes`, ascending; None = not known.
    classes: Names, sorted: by value where all are numbers.
  """

  paths: list[pathlib.Path]
  ids: list[str]
  labels: list[tuple[int, ...]] | None
  classes: list[str]


def list_videos(
    input_path: pathlib.Path, *, csv: pathlib.Path | None = None
) -> VideoList:
  """Lists the videos of a folder.

  With a CSV file: the videos it names, in its order. Without: every file with
  a suffix of video (`SUFFIXES`, upper or lower case) in sorted order; what
  begins with a dot is left out. Where all of them lie in sub-folders, the
  first folder's name is a video's class. Where all lie directly in the input,
  labels are not known. Links are followed.

  Args:
    input_path: The folder.
    csv: UTF-8, one video a line, `path,label[,label ...]`: a path relative to
      the folder, then class names, several in a cell parted by `;`, none in an
      empty cell. A first line whose first cell is `path` is a header.

  Raises:
    errors.InputError: If there is no video, videos lie both directly in the
      folder and in sub-folders, a name cannot be an id, or a line of the CSV
      file is wrong.
  """
  if not input_path.is_dir():
    raise errors.InputError(f"{input_path}: must be a folder with videos.")
  if csv is not None:
    found = _read_csv(csv, input_path)
  else:
    found = _find_videos(input_path)
  for name in found:
    check_name(name)
  names = set().union(*found.values())
  are_numbers = all(name.isdecimal() for name in names)
  classes = sorted(names, key=decimal.Decimal if are_numbers else None)
  numbers = {name: number for number, name in enumerate(classes)}
  labels = [tuple(sorted(map(numbers.get, own))) for own in found.values()]
  return VideoList(
      paths=[input_path / video for video in found],
      ids=list(found),
      labels=labels if classes else None,
      classes=classes,
  )


def _find_videos(folder: pathlib.Path) -> dict[str, set[str]]:
  """Returns the classes of each video by id."""
  ids = sorted(_walk(folder, above=()))
  if not ids:
    raise errors.InputError(
        f"{folder}: must hold videos, files that end in .mp4, .avi, .mkv,"
        " .webm or alike; found none."
    )
  direct = [video for video in ids if "/" not in video]
  if direct and len(direct) < len(ids):
    inside = next(video for video in ids if "/" in video)
    raise errors.InputError(
        f"{folder}: videos must lie all directly in it (no labels) or all in"
        f" sub-folders (one a class), got {len(direct)} directly ({direct[0]})"
        f" and {len(ids) - len(direct)} in sub-folders ({inside}); move the"
        " ones or the others, or give a CSV file of `path,label`."
    )
  return {
      video: set() if direct else {video.partition("/")[0]} for video in ids
  }


def _walk(folder: pathlib.Path, above: tuple[str, ...]) -> Iterator[str]:
  """Gives the paths of the videos in a folder, relative to it."""
  real = os.path.realpath(folder)
  if real in above:  # A link to a folder that it lies in.
    return
  with os.scandir(folder) as entries:
    for entry in entries:
      if entry.name.startswith("."):
        continue
      if entry.is_dir():
        for video in _walk(folder / entry.name, (*above, real)):
          yield f"{entry.name}/{video}"
      elif pathlib.PurePath(entry.name).suffix.lower() in SUFFIXES:
        yield entry.name


def _read_csv(file: pathlib.Path, folder: pathlib.Path) -> dict[str, set[str]]:
  """Returns the classes of each video by id."""
  found: dict[str, set[str]] = {}
  try:
    with open(file, newline="", encoding="utf-8-sig") as stream:
      reader = csv.reader(stream, strict=True)
      for row in reader:
        place = f"{file}, line {reader.line_num}"
        cells = [cell.strip() for cell in row]
        is_header = reader.line_num == 1 and cells[:1] == ["path"]
        if is_header or not any(cells):
          continue
        video, own = _parse_row(cells, folder, place)
        if video in found:
          raise errors.InputError(
              f"{place}: a path must be named once, got {video!r} again; put"
              " all its labels into one line, parted by `;`."
          )
        found[video] = own
  except FileNotFoundError:
    raise errors.InputError(f"{file}: no such file.") from None
  except OSError as error:
    raise errors.InputError(
        f"{file}: must be a CSV file, could not be read ({error.strerror})."
    ) from error
  except (csv.Error, UnicodeDecodeError) as error:
    raise errors.InputError(
        f"{file}: must be a CSV file in UTF-8, got: {error}."
    ) from error
  if not found:
    raise errors.InputError(f"{file}: must name videos, one a line; none is.")
  return found


def _parse_row(
    cells: list[str], folder: pathlib.Path, place: str
) -> tuple[str, set[str]]:
  path, *labels = cells
  if not labels or not path:
    raise errors.InputError(
        f"{place}: must be `path,label`, got {','.join(cells)!r}; a video"
        " without a label has an empty one, `path,`."
    )
  pure = pathlib.PurePosixPath(path)
  if pure.is_absolute() or ".." in pure.parts:
    raise errors.InputError(
        f"{place}: a path must be relative to {folder} and lie in it, got"
        f" {path!r}."
    )
  if not (folder / pure).is_file():
    raise errors.InputError(
        f"{place}: no file {path!r} in {folder}; the first cell of a header"
        " must be `path`."
    )
  own = {name.strip() for cell in labels for name in cell.split(";")}
  return str(pure), own - {""}
