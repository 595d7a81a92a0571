"""No damage of arrays, codes, datasets and reports gets past one line."""

import functools
import zipfile

import fuzzing
import numpy as np
import pytest

from chain_jax import codes, neighbour_table, prepare
from chain_jax import report as report_lib
from chain_jax.data import dataset_folder, feature_files, neighbours
from chain_jax.labels import Labels

pytestmark = pytest.mark.slow

_RNG = np.random.default_rng(0)
_FEATURES = _RNG.random((6, 3, 5)).astype(np.float32)
_IDS = np.array(["a", "b", "ç", "d", "e", "f"])


@pytest.fixture
def fuzz(tmp_path, fuzz_seconds):
  def check(read, *sources):
    count = fuzzing.check(read, sources, tmp_path, seconds=fuzz_seconds)
    print(f"{count} copies were read")
    assert count > 0

  return check


def _with_members(folder):
  """Unpacks archives, so that what is in them is damaged, not their checksums."""
  for file in list(folder.rglob("*.npz")):
    with zipfile.ZipFile(file) as archive:
      archive.extractall(file.with_suffix(".members"))
    file.unlink()
  return folder


def _read_packed(read, name, path):
  for folder in path.rglob("*.members"):
    with zipfile.ZipFile(folder.with_suffix(".npz"), "w") as archive:
      for member in folder.iterdir():
        archive.write(member, member.name)
  read(path / name)


def _packed(read, name=""):
  return functools.partial(_read_packed, read, name)


def _read_features(path):
  file = feature_files.open_feature_file(path)
  for row in range(len(file)):
    file.read_frames(row)


def test_npz_feature_files(fuzz, tmp_path):
  arrays = {"feats": _FEATURES, "ids": _IDS, "labels": np.arange(6) % 2}
  np.savez(tmp_path / "a.npz", **arrays)
  np.savez_compressed(
      tmp_path / "b.npz",
      **arrays | {"labels": np.eye(6)},
      num_frames=np.array([3, 2, 1, 3, 3, 3]),
  )
  fuzz(_read_features, tmp_path / "a.npz", tmp_path / "b.npz")
  for name in ("a", "b"):
    (tmp_path / name).mkdir()
    (tmp_path / f"{name}.npz").rename(tmp_path / name / "set.npz")
    _with_members(tmp_path / name)
  fuzz(_packed(_read_features, "set.npz"), tmp_path / "a", tmp_path / "b")


def test_npy_feature_files(fuzz, tmp_path):
  np.save(tmp_path / "a.npy", _FEATURES)
  np.save(tmp_path / "b.npy", np.asfortranarray(_FEATURES))
  fuzz(_read_features, tmp_path / "a.npy", tmp_path / "b.npy")


def test_code_directories(fuzz, tmp_path):
  for name, in_manifest in (("with", True), ("without", False)):
    codes.write_code_directory(
        tmp_path / name,
        packed=_RNG.integers(0, 256, (6, 2), dtype=np.uint8),
        ids=_IDS,
        labels=Labels.from_classes(np.arange(6) % 2, num_classes=2),
        manifest={"step": 3},
    )
    if not in_manifest:
      file = tmp_path / name / "manifest.json"
      text = file.read_text().replace('"checksums"', '"checks"')
      file.write_text(text)
  fuzz(codes.read_code_directory, tmp_path / "with", tmp_path / "without")
  members = _with_members(tmp_path / "without")
  fuzz(_packed(codes.read_code_directory), members)


def _read_dataset(path):
  dataset = dataset_folder.open_dataset(path)
  for split in dataset.splits:
    source = dataset.split(split)
    for video in range(len(source)):
      source.read_frames(video)


def test_dataset_folders(fuzz, tmp_path):
  np.savez(tmp_path / "a.npz", feats=_FEATURES, ids=_IDS, labels=np.eye(6))
  for dtype in ("float16", "uint8"):
    arguments = [
        "features",
        f"--train={tmp_path}/a.npz",
        f"--output={tmp_path}/{dtype}",
        f"--dtype={dtype}",
        "--videos_per_shard=4",
        "--num_workers=0",
    ]
    assert prepare.main(arguments) == 0
  folders = [
      tmp_path / d / "video_features/1.0.0" for d in ("float16", "uint8")
  ]
  fuzz(_read_dataset, *folders)
  fuzz(_packed(_read_dataset), *map(_with_members, folders))


def test_neighbour_tables(fuzz, tmp_path):
  table = neighbours.find_neighbours(_FEATURES[:, 0], num_neighbours=2)
  np.savez(tmp_path / "a.npz", made_of=np.array("x"), **table._asdict())
  np.savez_compressed(
      tmp_path / "b.npz", made_of=np.array("x"), **table._asdict()
  )
  read = functools.partial(
      neighbour_table.read_table, made_of="x", shape=(6, 4)
  )
  fuzz(read, tmp_path / "a.npz", tmp_path / "b.npz")
  (tmp_path / "a").mkdir()
  (tmp_path / "a.npz").rename(tmp_path / "a" / "table.npz")
  fuzz(_packed(read, "table.npz"), _with_members(tmp_path / "a"))


def _read_report(path):
  report_lib.format_table(report_lib.read_report(path))


def test_reports(fuzz, tmp_path):
  scores = {k: 0.5 for k in ("5", "20", "40")}
  names = ("map_at_k", "map_at_k_best_ties", "map_at_k_worst_ties")
  result = {"method": "chain", "num_bits": 64, **dict.fromkeys(names, scores)}
  report = report_lib.make_report(
      config_name="ucf101",
      step=7,
      seed=0,
      git_commit=None,
      num_queries=2,
      num_gallery=3,
      self_match="removed",
      results=[result, result | {"method": "itq"}],
      seconds={"evaluate": 0.5},
      segments={"num_queries": 1, "num_gallery": 2, "results": [result]},
  )
  report_lib.write_report(tmp_path / "a.json", report)
  fuzz(_read_report, tmp_path / "a.json")
