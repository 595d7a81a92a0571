"""Which videos an input folder holds, their ids and their labels."""

import csv
import os
import pathlib
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple, TextIO

from chain_jax import errors
from chain_jax.data import video_walk
from chain_jax.data.video_names import check_name, shown
from chain_jax.data.video_walk import LeftOut

# Where labels come from when no CSV file has them.
BY_FOLDER, NO_LABELS, AUTOMATIC = "folders", "none", "automatic"
_WAYS_OUT = (
    "give --labels=none, which takes all without classes, or --labels=FILE.csv"
    " with lines of `path,label`"
)
_LONGEST_LINE = 2**20  # Of a CSV file, in characters.


class VideoList(NamedTuple):
  """The videos of an input folder.

  Attributes:
    paths: Where each lies.
    ids: The paths relative to the folder, parts joined by `/`; unique.
    labels: Each video's positions in `classes`, ascending; None = not known.
    classes: Names, sorted: by value where all are numbers.
    left_out: What cannot be read or be an id, and why.
    remarks: Lines about files that were passed over.
  """

  paths: list[pathlib.Path]
  ids: list[str]
  labels: list[tuple[int, ...]] | None
  classes: list[str]
  left_out: list[LeftOut]
  remarks: list[str]


def list_videos(
    input_path: pathlib.Path,
    *,
    labels: str = AUTOMATIC,
    csv: pathlib.Path | None = None,
) -> VideoList:
  """Lists the videos of a folder.

  With a CSV file: the videos it names, in its order. Without: every file with
  a suffix of video (`video_walk.SUFFIXES`, upper or lower case) in sorted
  order, whatever lies where `video_walk.walk` comes.

  Args:
    input_path: The folder.
    labels: `BY_FOLDER`: the first folder's name is a video's class. `NO_LABELS`:
      labels are not known. `AUTOMATIC`: the one where all videos lie in
      folders, the other where all lie directly in the input.
    csv: UTF-8, one video a line, `path,label[,label ...]`: a path relative to
      the folder, then class names, several in a cell parted by `;`, none in an
      empty cell. A first line whose first cell is `path` is a header.

  Raises:
    errors.InputError: If there is no video, videos lie where `labels` does not
      allow them, or a line of the CSV file is wrong.
  """
  if not input_path.is_dir():
    raise errors.InputError(f"{input_path}: must be a folder with videos.")
  left_out, remarks = [], []
  if csv is not None:
    found = _read_csv(csv, input_path, left_out)
  else:
    walk = video_walk.walk(input_path, by_class=labels != NO_LABELS)
    found = _classes_by_folder(walk, input_path, labels)
    left_out = walk.left_out
    remarks = walk.remarks(
        "rename what is a video, or name it in --labels=FILE.csv"
    )
  classes = sorted(set().union(*found.values()))
  if all(name.isdecimal() for name in classes):
    classes.sort(key=_by_value)
  numbers = {name: number for number, name in enumerate(classes)}
  own = [tuple(sorted(map(numbers.get, names))) for names in found.values()]
  return VideoList(
      paths=[input_path / video for video in found],
      ids=list(found),
      labels=own if classes else None,
      classes=classes,
      left_out=left_out,
      remarks=remarks,
  )


def _by_value(name: str) -> tuple[int, str, str]:
  """Sorts numbers of any length, and `1`, `01`, `001` always alike."""
  digits = "".join(str(unicodedata.decimal(digit)) for digit in name)
  digits = digits.lstrip("0")
  return len(digits), digits, name


def _classes_by_folder(
    walk: video_walk.Walk, folder: pathlib.Path, labels: str
) -> dict[str, set[str]]:
  """Returns the classes of each video by id."""
  ids = walk.ids
  if not ids:
    raise errors.InputError(_none_found(walk, folder))
  direct = [video for video in ids if "/" not in video]
  if labels == NO_LABELS or (labels == AUTOMATIC and len(direct) == len(ids)):
    return {video: set() for video in ids}
  if len(direct) == len(ids):
    raise errors.InputError(
        f"{folder}: --labels=folders needs a folder for each class, got all"
        f" videos directly in it, such as {direct[0]}; {_WAYS_OUT}."
    )
  if direct:
    inside = next(video for video in ids if "/" in video)
    raise errors.InputError(
        f"{folder}: videos must lie all directly in it (no labels) or all in"
        f" sub-folders (one a class), got {len(direct)} directly ({direct[0]})"
        f" and {len(ids) - len(direct)} in sub-folders ({inside}); move the"
        f" ones or the others, or {_WAYS_OUT}."
    )
  holding = {video.partition("/")[0] for video in ids if video.count("/") == 1}
  for video in ids:
    if video.partition("/")[0] not in holding:
      raise errors.InputError(
          f"{folder}: classes must be one level of folders that hold videos,"
          f" got {video} and none in {video.partition('/')[0]} itself; give the"
          f" folder of the classes as --input, or {_WAYS_OUT}."
      )
  return {video: {video.partition("/")[0]} for video in ids}


def _none_found(walk: video_walk.Walk, folder: pathlib.Path) -> str:
  line = (
      f"{folder}: must hold videos, files that end in .mp4, .avi, .mkv, .webm or"
      " alike; found none"
  )
  passed = [f"{one.name}: {one.reason}" for one in walk.left_out[:3]]
  return "; ".join([line, *passed, *walk.remarks()]) + "."


def _read_csv(
    file: pathlib.Path, folder: pathlib.Path, left_out: list[LeftOut]
) -> dict[str, set[str]]:
  """Returns the classes of each video by id."""
  found: dict[str, set[str]] = {}
  if not file.exists():
    raise errors.InputError(f"{file}: no such file.")
  with (
      errors.reading(
          file,
          must_be="a CSV file in UTF-8",
          way_out="write lines of `path,label`",
      ),
      open(file, newline="", encoding="utf-8-sig") as stream,
  ):
    reader = csv.reader(_lines(stream), strict=True)
    for row in reader:
      place = f"{file}, line {reader.line_num}"
      cells = [cell.strip(" \t") for cell in row]
      if row and os.path.isfile(folder / row[0]):  # A blank may be its own.
        cells[0] = row[0]
      is_header = reader.line_num == 1 and cells[:1] == ["path"]
      if is_header or not any(cells):
        continue
      video, own = _parse_row(cells, folder, place)
      if video in found:
        raise errors.InputError(
            f"{place}: a path must be named once, got {video!r} again; put"
            " all its labels into one line, parted by `;`."
        )
      try:
        check_name(video)
        found[video] = own
      except errors.InputError as error:
        left_out.append(LeftOut(shown(video), str(error)))
  if not found:
    none = [f"{one.name}: {one.reason}" for one in left_out[:1]] or ["none is."]
    raise errors.InputError(f"{file}: must name videos, one a line; {none[0]}")
  return found


def _lines(stream: TextIO) -> Iterator[str]:
  """Gives the lines of a file; one without an end would fill the memory."""
  while line := stream.readline(_LONGEST_LINE):
    if len(line) == _LONGEST_LINE:
      raise ValueError(f"a line is longer than {_LONGEST_LINE} characters")
    yield line


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
  if not os.path.isfile(folder / pure):
    raise errors.InputError(
        f"{place}: no file {path!r} in {folder}; the first cell of a header"
        " must be `path`."
    )
  own = {name.strip() for cell in labels for name in cell.split(";")}
  return str(pure), own - {""}
