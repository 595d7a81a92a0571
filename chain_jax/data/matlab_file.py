"""Labels in a MATLAB file, read in a process of its own."""

from typing import Any

import numpy as np

from chain_jax.errors import InputError
from chain_jax.labels import Labels

_BLOCK = 2**20


def read_labels(path: str, key: str) -> dict[str, Any]:
  """Reads a matrix of 0 and 1 as the fields of `Labels`.

  SciPy's reader of such files can crash: call it by `guarded.call_guarded`.

  Raises:
    InputError: If there is no such matrix.
  """
  # It is imported here: the process that asks has no use for it.
  import scipy.io

  try:
    found = {name: kind for name, _, kind in scipy.io.whosmat(path)}
    if key not in found:
      raise InputError(
          f"{path} must hold a matrix {key!r}, got"
          f" {', '.join(sorted(found))[:200] or 'none'}; rename it there, or"
          " check that this is the right file."
      )
    variables = scipy.io.loadmat(path, spmatrix=False, variable_names=[key])
  except NotImplementedError as error:
    raise InputError(
        f"{path} must be a MATLAB 5 file, got version 7.3; save it with"
        " `save(..., '-v7')`."
    ) from error
  labels = Labels.from_matrix(_plain(path, key, variables[key]))
  return labels._asdict()


def _plain(path: str, key: str, matrix: Any) -> np.ndarray:
  """Returns a matrix of 0 and 1 that is not sparse.

  Raises:
    InputError: If it is no such matrix.
  """
  import scipy.sparse

  if matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.number):
    raise InputError(
        f"{path}: {key!r} must be a matrix of numbers, one row a video, got"
        f" {matrix.dtype} of shape {list(matrix.shape)}; check that this is the"
        " right file."
    )
  if not scipy.sparse.issparse(matrix):
    _check_values(path, key, matrix.ravel(order="K"))
    return matrix
  matrix = scipy.sparse.csc_array(matrix)
  # Rows out of range would be written beside the matrix.
  matrix.check_format(full_check=True)
  matrix.sum_duplicates()
  _check_values(path, key, matrix.data)
  return matrix.astype(np.uint8).toarray()


def _check_values(path: str, key: str, values: np.ndarray) -> None:
  for start in range(0, len(values), _BLOCK):  # Saves memory.
    block = values[start : start + _BLOCK]
    odd = block[(block != 0) & (block != 1)]
    if odd.size:
      raise InputError(
          f"{path}: {key!r} must hold 0 and 1, one column a class, got"
          f" {odd[0]}; turn class numbers into such rows."
      )
