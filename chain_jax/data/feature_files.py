"""Frame features in one HDF5, npz or npy file, whoever made it.

Each holds `feats` `[n, frames, dim]` or `[n, frames, variants, dim]` (an npy
file is that array), and perhaps `ids` `[n]`, `labels` (0/1 rows `[n, classes]`
or one class number a video, `[n]`) and `num_frames` `[n]`, which says how many
of the frames of a video are no padding.
"""

import os
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Num

from chain_jax import array_files
from chain_jax.data.field_files import read_label_matrix
from chain_jax.data.hdf5_header import read_arrays
from chain_jax.data.hdf5_source import Hdf5Source
from chain_jax.data.records import check_finite
from chain_jax.data.video_names import check_name
from chain_jax.errors import InputError
from chain_jax.labels import MAX_CLASSES, Labels

_HDF5, _NPZ, _NPY = (".h5", ".hdf5"), (".npz",), (".npy",)


class FeatureFile:
  """The videos of one file.

  Attributes:
    path: The file.
    ids: Unicode `[n]`, all different; "<file stem>-<row>" where it has none.
    labels: Or None.
    has_label_matrix: Whether the file says how many classes there are; class
      numbers only say how many at least.
    feature_dim: Width of a frame's feature.
    num_variants: Stored spatial variants; 1 without such an axis.
  """

  def __init__(
      self,
      path: pathlib.Path,
      features: Any,
      *,
      ids: np.ndarray,
      labels: Labels | None,
      has_label_matrix: bool,
      num_frames: np.ndarray | None,
  ):
    """Takes an open file; see `open_feature_file`."""
    self.path, self.ids, self.labels = path, ids, labels
    self.has_label_matrix = has_label_matrix
    self._features, self._num_frames = features, num_frames
    self.feature_dim = int(features.shape[-1])
    with_variants = len(features.shape) == 4
    self.num_variants = int(features.shape[2]) if with_variants else 1

  def __len__(self) -> int:
    return len(self.ids)

  def read_frames(
      self, row: int
  ) -> Num[np.ndarray, "num_frames *variants dim"]:
    """Reads one video, in the dtype of the file, without padding.

    Raises:
      InputError: If the file is damaged there, or a value is not finite.
    """
    if isinstance(self._features, Hdf5Source):
      frames = self._features.read_frames(row)
    else:
      frames = np.asarray(self._features[row])
    if self._num_frames is not None:
      frames = frames[: self._num_frames[row]]
    if self.num_variants == 1 and frames.ndim == 3:
      frames = frames[:, 0]
    check_finite(frames, video=f"{self.path}, row {row}")
    return frames


def open_feature_file(
    path: str | os.PathLike,
    *,
    labels_path: str | os.PathLike | None = None,
    labels_key: str = "labels",
) -> FeatureFile:
  """Opens a file of features and checks all but the features themselves.

  Args:
    path: .h5, .hdf5, .npz or .npy.
    labels_path: .mat or .npy; None looks for `labels` in the file itself.
    labels_key: Of the matrix in a .mat file.

  Raises:
    InputError: If it is missing, damaged, or not in the form described above.
  """
  path = pathlib.Path(path).expanduser()
  if not path.is_file():
    raise InputError(
        f"{path} must be a file of features, got"
        f" {'a folder' if path.is_dir() else 'none'}; check the name."
    )
  suffix = path.suffix.lower()
  if suffix in _HDF5:
    arrays, features = _read_hdf5(path)
  elif suffix in _NPZ + _NPY:
    arrays = _read_numpy(path)
    features = arrays.pop("feats")
    _check_features(path, features)
  else:
    raise InputError(
        f"{path} must end in .h5, .hdf5, .npz or .npy, got {suffix!r}; convert"
        " it, or rename it if it is one of these."
    )
  num_videos = features.shape[0]
  labels = arrays.get("labels")
  has_matrix = labels is not None and labels.ndim == 2
  if labels_path is not None:
    labels_path = pathlib.Path(labels_path).expanduser()
    labels, has_matrix = _read_labels(labels_path, labels_key)
  elif labels is not None:
    labels = _as_labels(path, labels)
  if labels is not None and labels.num_videos != num_videos:
    raise InputError(
        f"{labels_path or path} must label each of the {num_videos} videos of"
        f" {path.name}, got {labels.num_videos} rows; take both from one list."
    )
  return FeatureFile(
      path,
      features,
      ids=_check_ids(path, arrays.get("ids"), num_videos),
      labels=labels,
      has_label_matrix=has_matrix,
      num_frames=_check_num_frames(path, arrays.get("num_frames"), features),
  )


def _read_hdf5(path: pathlib.Path) -> tuple[dict[str, Any], Hdf5Source]:
  source = Hdf5Source(path, labels=None)  # Names what is wrong, if anything.
  arrays = read_arrays(path, ("labels", "num_frames"))
  return arrays | {"ids": source.ids}, source


def _read_numpy(path: pathlib.Path) -> dict[str, Any]:
  words = {
      "must_be": "a whole NumPy file without pickled objects",
      "way_out": "write it again with np.save or np.savez",
  }
  if path.suffix.lower() in _NPY:
    return {"feats": array_files.Rows(path, **words)}
  return array_files.read_npz(
      path, ("feats",), optional=("ids", "labels", "num_frames"), **words
  )


def _check_features(
    path: pathlib.Path, features: np.ndarray | array_files.Rows
) -> None:
  is_number = features.dtype.kind in "fu" and features.dtype.itemsize <= 8
  if not is_number or len(features.shape) not in (3, 4) or 0 in features.shape:
    raise InputError(
        f"{path}: 'feats' must be numbers [n, frames, dim] or [n, frames,"
        f" variants, dim], got {features.dtype} of shape"
        f" {list(features.shape)}; write it again in that form."
    )


def _read_labels(path: pathlib.Path, key: str) -> tuple[Labels, bool]:
  if not path.is_file():
    raise InputError(f"{path} must be a file of labels, got none.")
  if path.suffix.lower() == ".mat":
    return read_label_matrix(path, key=key), True
  values = array_files.read_npy(
      path,
      must_be="a .mat or .npy file of labels",
      way_out="write it again with np.save",
  )
  return _as_labels(path, values), values.ndim == 2


def _as_labels(path: pathlib.Path, values: np.ndarray) -> Labels:
  if values.ndim == 1 and values.dtype.kind in "iu" and len(values):
    if values.min() >= 0 and values.max() < MAX_CLASSES:
      return Labels.from_classes(values, num_classes=int(values.max()) + 1)
  elif values.ndim == 2 and values.size and values.dtype.kind in "biuf":
    if np.isin(values, (0, 1)).all():
      return Labels.from_matrix(values)
  raise InputError(
      f"{path}: labels must be 0/1 rows [n, classes] or class numbers [n] from 0"
      f" to {MAX_CLASSES - 1}, got {values.dtype} of shape"
      f" {list(values.shape)}; write them in one of these forms."
  )


def _check_ids(
    path: pathlib.Path, ids: np.ndarray | None, num_videos: int
) -> np.ndarray:
  if ids is None:
    return np.array([f"{path.stem}-{row:06d}" for row in range(num_videos)])
  if ids.shape != (num_videos,) or ids.dtype.kind not in "US":
    raise InputError(
        f"{path}: 'ids' must name each of the {num_videos} videos, got"
        f" {ids.dtype} of shape {list(ids.shape)}; write both from one list."
    )
  if ids.dtype.kind == "S":
    try:
      ids = np.char.decode(ids, "utf-8")
    except UnicodeDecodeError as error:
      raise InputError(
          f"{path}: 'ids' must be UTF-8, got {error.object[:40]!r}; write the"
          " names again in UTF-8."
      ) from error
  try:
    for name in ids.tolist():
      check_name(name)
  except InputError as error:
    raise InputError(f"{path}: {error}") from error
  names, counts = np.unique(ids, return_counts=True)
  if (counts > 1).any():
    raise InputError(
        f"{path}: 'ids' must differ from video to video, got"
        f" {str(names[np.argmax(counts > 1)])!r} twice; leave one of them out."
    )
  return ids


def _check_num_frames(
    path: pathlib.Path, num_frames: np.ndarray | None, features: Any
) -> np.ndarray | None:
  if num_frames is None:
    return None
  num_videos, longest = features.shape[:2]
  valid = num_frames.shape == (num_videos,) and num_frames.dtype.kind in "iu"
  if not valid or num_frames.min() < 1 or num_frames.max() > longest:
    raise InputError(
        f"{path}: 'num_frames' must be {num_videos} numbers in 1 .. {longest},"
        f" got {num_frames.dtype} of shape {list(num_frames.shape)}; write it"
        " again."
    )
  return num_frames
