"""The files that the field passes around: HDF5 features, MATLAB labels.

Layouts as the code of BTH, ConMH, S5VH and AutoSSVH reads them: a dataset
`feats` `[n, frames, dim]`, and matrices of 0 and 1, `[n, classes]`.
"""

import os
import pathlib
from typing import NamedTuple

from chain_jax.data import matlab_file
from chain_jax.data.cached_source import CachedSource, check_fits_in_memory
from chain_jax.data.hdf5_source import Hdf5Source
from chain_jax.data.sources import VideoSource
from chain_jax.errors import InputError
from chain_jax.guarded import call_guarded
from chain_jax.labels import Labels


class SplitFiles(NamedTuple):
  """Where one split of a dataset lies: files in its folder, and keys."""

  features: str
  labels: str | None = None
  labels_key: str = "labels"


class FieldLayout(NamedTuple):
  """The three splits; equal entries are one and the same set of videos."""

  train: SplitFiles
  gallery: SplitFiles
  query: SplitFiles


class FieldDataset(NamedTuple):
  """The three splits, opened; one object where two splits are the same."""

  train: VideoSource
  gallery: VideoSource
  query: VideoSource


_FCVID_TEST = SplitFiles("fcv_test_feats.h5", "fcv_test_labels.mat")
_UCF101_TRAIN = SplitFiles("ucf_train_feats.h5", "ucf_train_labels.mat")
_HMDB51_TRAIN = SplitFiles("hmdb_train_feats.h5", "hmdb_train_labels.mat")

FIELD_LAYOUTS = {
    "fcvid": FieldLayout(
        train=SplitFiles("fcv_train_feats.h5"),
        gallery=_FCVID_TEST,
        query=_FCVID_TEST,
    ),
    "activitynet": FieldLayout(
        train=SplitFiles("train_feats.h5"),
        gallery=SplitFiles("test_feats.h5", "re_label.mat", "re_label"),
        query=SplitFiles("query_feats.h5", "q_label.mat", "q_label"),
    ),
    "ucf101": FieldLayout(
        train=_UCF101_TRAIN,
        gallery=_UCF101_TRAIN,
        query=SplitFiles("ucf_test_feats.h5", "ucf_test_labels.mat"),
    ),
    "hmdb51": FieldLayout(
        train=_HMDB51_TRAIN,
        gallery=_HMDB51_TRAIN,
        query=SplitFiles("hmdb_test_feats.h5", "hmdb_test_labels.mat"),
    ),
}


def open_field_dataset(
    name: str, root: str | os.PathLike, *, cache_in_memory: bool
) -> FieldDataset:
  """Opens the files of one of the field's datasets.

  Args:
    name: A key of `FIELD_LAYOUTS`.
    root: Folder of the files.
    cache_in_memory: Read all features now and keep them in the files' dtype;
      otherwise each video is read when asked for.

  Raises:
    InputError: If a file is missing or damaged, splits do not fit each other,
      or the cache does not fit in memory.
  """
  if name not in FIELD_LAYOUTS:
    raise InputError(
        f"`data.dataset` must be one of {', '.join(sorted(FIELD_LAYOUTS))} to"
        f" be read from the field's files, got {name!r}."
    )
  layout, root = FIELD_LAYOUTS[name], pathlib.Path(root).expanduser()
  _check_files_exist(name, layout, root)
  sources: dict[SplitFiles, VideoSource] = {}
  for split in layout:
    if split not in sources:
      sources[split] = _open_split(split, root)
  _check_same_classes([sources[split] for split in layout])
  if cache_in_memory:
    check_fits_in_memory(list(sources.values()))
    sources = {split: CachedSource(sources[split]) for split in sources}
  return FieldDataset(*(sources[split] for split in layout))


def _check_files_exist(
    name: str, layout: FieldLayout, root: pathlib.Path
) -> None:
  wanted = []
  for split in layout:
    wanted += [split.features] + ([split.labels] if split.labels else [])
  wanted = list(dict.fromkeys(wanted))
  missing = [file for file in wanted if not (root / file).is_file()]
  if missing:
    raise InputError(
        f"`data.root` must be the folder of {name}'s files"
        f" ({', '.join(wanted)}), got {str(root)!r}, which lacks"
        f" {', '.join(missing)}; set `data.root` to the folder that has them."
    )


def _check_same_classes(sources: list[VideoSource]) -> None:
  counts = {s.labels.num_classes for s in sources if s.labels is not None}
  if len(counts) > 1:
    raise InputError(
        "label matrices of one dataset must have the same number of classes,"
        f" got {' and '.join(map(str, sorted(counts)))}; take them from the"
        " same release."
    )


def _open_split(split: SplitFiles, root: pathlib.Path) -> Hdf5Source:
  labels = None
  if split.labels is not None:
    labels = read_label_matrix(root / split.labels, key=split.labels_key)
  return Hdf5Source(root / split.features, labels=labels)


def read_label_matrix(path: pathlib.Path, *, key: str) -> Labels:
  """Reads a MATLAB matrix of 0 and 1, `[n, classes]`.

  Raises:
    InputError: If the file or the matrix is not such a one.
  """
  found = call_guarded(
      matlab_file.read_labels,
      path,
      key,
      must_be="a MATLAB 5 file",
      way_out="copy it again",
  )
  return Labels(found["indptr"], found["indices"], found["num_classes"])
