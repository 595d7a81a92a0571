"""Labels in compressed rows say what the matrix said."""

import numpy as np

from chain_jax.labels import Labels

MATRIX = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0]])


def test_each_video_has_the_columns_that_are_set():
  labels = Labels.from_matrix(MATRIX)
  assert [labels.of(row).tolist() for row in range(3)] == [[1, 2], [], [0]]
  assert (labels.num_videos, labels.num_classes) == (3, 3)


def test_a_class_without_videos_still_counts():
  assert Labels.from_matrix(np.zeros((2, 7))).num_classes == 7


def test_one_class_a_video_makes_rows_of_one():
  labels = Labels.from_classes(np.array([4, 0, 4]), num_classes=6)
  assert [labels.of(row).tolist() for row in range(3)] == [[4], [0], [4]]
  assert labels.num_classes == 6


def test_take_keeps_the_order_asked_for_and_may_repeat():
  taken = Labels.from_matrix(MATRIX).take(np.array([2, 1, 0, 2]))
  assert [taken.of(row).tolist() for row in range(4)] == [[0], [], [1, 2], [0]]
  expected = Labels.from_matrix(MATRIX[[2, 1, 0, 2]])
  np.testing.assert_array_equal(taken.indptr, expected.indptr, strict=True)
  np.testing.assert_array_equal(taken.indices, expected.indices, strict=True)
  assert taken.num_classes == 3


def test_taking_no_video_leaves_the_classes():
  taken = Labels.from_matrix(MATRIX).take(np.zeros(0, np.int64))
  assert (taken.num_videos, taken.num_classes) == (0, 3)
  assert taken.indices.dtype == np.int64


def test_one_column_tells_two_classes_apart():
  labels = Labels.from_matrix(np.array([[0], [1], [0], [1]]))
  assert [labels.of(row).tolist() for row in range(4)] == [[0], [1], [0], [1]]
  assert labels.num_classes == 2
