import json
import pathlib
import subprocess
import sys

import faiss
import full_disk
import numpy as np
import pytest

from chain_jax import codes, nearest, search
from chain_jax.errors import InputError


def _brute_force(query, gallery, top_k):
  """Sorts the whole gallery by (distance, position), a query at a time."""
  gallery_bits = np.unpackbits(gallery, axis=1)
  positions, distances = [], []
  for bits in np.unpackbits(query, axis=1):
    far = (gallery_bits != bits).sum(axis=1)
    order = np.lexsort((np.arange(len(far)), far))[:top_k]
    positions.append(order)
    distances.append(far[order])
  return np.array(positions, np.int64), np.array(distances, np.int32)


def _random_codes(rng, num_videos, num_bytes, *, num_distinct):
  """Codes in which many items share a code, and many distances tie."""
  distinct = rng.integers(0, 256, (num_distinct, num_bytes), dtype=np.uint8)
  return distinct[rng.integers(0, num_distinct, num_videos)]


def _assert_exact(query, gallery, top_k):
  actual = nearest.search_codes(query, gallery, top_k=top_k)
  expected = _brute_force(query, gallery, min(top_k, len(gallery)))
  for a, b in zip(actual, expected, strict=True):
    np.testing.assert_array_equal(a, b, strict=True)


# 0 sends every search through the sample and the balls; the other scans all.
@pytest.mark.parametrize("smallest_work", [0, 10**9])
@pytest.mark.parametrize("num_distinct", [1, 3, 40, 3000])
@pytest.mark.parametrize("num_bytes", [1, 2, 8, 9, 33])
def test_search_equals_brute_force_under_ties(
    monkeypatch, num_bytes, num_distinct, smallest_work
):
  monkeypatch.setattr(nearest, "_SMALLEST_SAMPLED_WORK", smallest_work)
  rng = np.random.default_rng(num_distinct)
  gallery = _random_codes(rng, 3000, num_bytes, num_distinct=num_distinct)
  query = np.concatenate(
      [
          gallery[rng.integers(0, 3000, 10)],
          rng.integers(0, 256, (10, num_bytes), dtype=np.uint8),
      ]
  )
  for top_k in (1, 7, 50):
    _assert_exact(query, gallery, top_k)


def test_balls_gathered_in_small_blocks_give_the_same(monkeypatch):
  monkeypatch.setattr(nearest, "_SMALLEST_SAMPLED_WORK", 0)
  monkeypatch.setattr(nearest, "_ITEMS_PER_BLOCK", 1)
  rng = np.random.default_rng(0)
  gallery = rng.integers(0, 256, (2000, 8), dtype=np.uint8)
  _assert_exact(gallery[:30], gallery, 10)


# At radius 3 about half of the balls hold the five items asked for.
@pytest.mark.parametrize("radius", [0, 3])
def test_a_guessed_radius_too_small_costs_no_exactness(monkeypatch, radius):
  monkeypatch.setattr(
      nearest, "_guess_radii", lambda query, *_: np.full(len(query), radius)
  )
  rng = np.random.default_rng(0)
  gallery = rng.integers(0, 256, (500, 2), dtype=np.uint8)
  query = rng.integers(0, 256, (40, 2), dtype=np.uint8)
  _assert_exact(query, gallery, 5)


def test_guessed_balls_answer_nearly_every_query(monkeypatch):
  monkeypatch.setattr(nearest, "_SMALLEST_SAMPLED_WORK", 0)
  rng = np.random.default_rng(0)
  gallery = rng.integers(0, 256, (5000, 8), dtype=np.uint8)
  query = rng.integers(0, 256, (50, 8), dtype=np.uint8)
  left, search_all = [], nearest._search_all

  def count(index, queries, *rest):
    left.extend(queries)
    return search_all(index, queries, *rest)

  monkeypatch.setattr(nearest, "_search_all", count)
  _assert_exact(query, gallery, 20)
  # Balls are three standard deviations larger than they need be.
  assert len(left) <= 2


def test_a_ball_holds_its_own_rim():
  gallery = np.array([[0], [1], [3]], np.uint8)
  index = nearest._make_index(gallery)
  full, positions, distances = nearest._search_ball(
      index, np.zeros((1, 1), np.uint8), 1, 2
  )
  assert full.tolist() == [True]
  assert (positions.tolist(), distances.tolist()) == ([[0, 1]], [[0, 1]])


def test_ties_at_the_cut_do_not_depend_on_faiss(monkeypatch):
  """An index that is right in its distances but picks ties at its will."""

  class LastOfTies(faiss.IndexBinaryFlat):

    def search(self, queries, top_k):
      gallery = faiss.vector_to_array(self.xb).reshape(self.ntotal, -1)
      backwards, distances = _brute_force(queries, gallery[::-1], top_k)
      return distances, self.ntotal - 1 - backwards

  monkeypatch.setattr(faiss, "IndexBinaryFlat", LastOfTies)
  rng = np.random.default_rng(0)
  gallery = _random_codes(rng, 300, 1, num_distinct=5)
  _assert_exact(gallery[:20], gallery, 10)


def test_gallery_shorter_than_top_k_is_returned_whole():
  gallery = np.array([[1], [0]], np.uint8)
  positions, distances = nearest.search_codes(gallery[1:], gallery, top_k=9)
  assert (positions.tolist(), distances.tolist()) == ([[1, 0]], [[0, 1]])


@pytest.mark.parametrize(
    ("query", "gallery", "top_k", "message"),
    [
        ((1, 2), (3, 1), 1, "`num_bits`.*got 16 and 8"),
        ((1, 1), (0, 1), 1, "`gallery` must hold"),
        ((1, 1), (3, 1), 0, "`top_k` must be at least 1, got 0"),
    ],
)
def test_impossible_searches_are_refused(query, gallery, top_k, message):
  with pytest.raises(InputError, match=message):
    nearest.search_codes(
        np.zeros(query, np.uint8), np.zeros(gallery, np.uint8), top_k=top_k
    )


@pytest.fixture
def folders(tmp_path):
  for name, packed in (("gallery", [[3], [0], [1]]), ("query", [[0]])):
    codes.write_code_directory(
        tmp_path / name,
        packed=np.array(packed, np.uint8),
        ids=np.array([f"{name} {i}" for i in range(len(packed))]),
        labels=None,
        manifest={},
    )
  return [f"--gallery={tmp_path}/gallery", f"--query={tmp_path}/query"]


def test_command_prints_ids_and_distances(folders, capsys):
  assert search.main([*folders, "--top_k=2"]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines == ["query 0", "     0  gallery 1", "     1  gallery 2"]


def test_command_writes_json_lines(folders, tmp_path, capsys):
  output = tmp_path / "found.jsonl"
  assert search.main([*folders, "--top_k=1", f"--output={output}"]) == 0
  assert capsys.readouterr().out == ""
  assert [json.loads(line) for line in output.read_text().splitlines()] == [
      {"id": "query 0", "neighbours": [{"id": "gallery 1", "distance": 0}]}
  ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--top_k=0"], "`top_k` must be at least 1"),
        (["--top_k=many"], "invalid int value"),
        (["--query=/nowhere"], "/nowhere: must be a code directory"),
        (["--output=/nowhere/found"], "must be in a folder that exists"),
        (["--topk=3"], "unrecognized arguments: --topk=3"),
    ],
)
def test_bad_usage_ends_in_one_line_and_code_2(folders, flags, message, capsys):
  assert search.main([*folders, *flags]) == 2
  error = capsys.readouterr().err
  assert error.startswith("error: ") and error.count("\n") == 1
  assert message in error


def test_command_imports_no_jax():
  program = (
      "import sys, chain_jax.search; print({'jax', 'flax'} & set(sys.modules))"
  )
  done = subprocess.run(
      [sys.executable, "-c", program],
      cwd=pathlib.Path(search.__file__).parent.parent,
      capture_output=True,
      text=True,
      check=True,
  )
  assert done.stdout.strip() == "set()"


def test_a_tilde_is_the_home_folder(folders, tmp_path, monkeypatch, capsys):
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.chdir("/")
  flags = ["--gallery=~/gallery", "--query", "~/query", "--output=~/found"]
  assert search.main(flags) == 0, capsys.readouterr().err
  assert (tmp_path / "found").read_text().count("\n") == 1


def test_neighbours_are_written_whole_or_not_at_all(
    folders, small_disk, capsys
):
  output = small_disk / "found.jsonl"
  assert search.main([*folders, f"--output={output}"]) == 0
  old = output.read_bytes()
  full_disk.fill(small_disk, leaving=0)
  assert search.main([*folders, f"--output={output}"]) == 1
  line = capsys.readouterr().err
  assert line.startswith(f"error: {output}: could not be written (No space")
  assert line.count("\n") == 1
  assert output.read_bytes() == old
  assert {file.name for file in small_disk.iterdir()} == {
      "found.jsonl",
      "filler",
  }
