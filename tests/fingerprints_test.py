"""A workdir knows its videos again, and no others."""

import hashlib
import json

import numpy as np
import pytest
from array_source import ArraySource, random_videos

from chain_jax import ownership
from chain_jax.data import cached_source, fingerprints, sources
from chain_jax.data import splits as splits_lib
from chain_jax.data.splits import Splits

_NUM_VIDEOS = 400


def _found(videos, **attributes):
  source = ArraySource(videos)
  for name, value in attributes.items():
    setattr(source, name, value)
  return splits_lib.fingerprints(Splits(source, None, source, source))


def _videos():
  return random_videos([(3, 4)] * _NUM_VIDEOS)


@pytest.mark.parametrize("video", [1, 57, 398])
def test_one_changed_video_of_many_is_noticed(video):
  before, videos = _found(_videos()), _videos()
  videos[video][1, 2] += 1
  assert ownership.differing_videos(_found(videos), before) == [
      "train",
      "gallery",
      "query",
  ]
  assert ownership.differing_videos(_found(_videos()), before) == []


def test_swapped_videos_lengths_and_counts_are_noticed():
  before = _found(_videos())
  swapped = _videos()
  swapped[10], swapped[20] = swapped[20], swapped[10]
  fewer = _videos()
  del fewer[11]
  for videos in (swapped, fewer):
    assert "train" in ownership.differing_videos(_found(videos), before)


def test_a_large_split_is_looked_at_all_over_and_in_every_shard(monkeypatch):
  monkeypatch.setattr(fingerprints, "_WHOLE_BYTES", 0)
  monkeypatch.setattr(fingerprints, "_NUM_SPREAD", 5)
  starts = {"shard_starts": np.array([0, 7, 7, 310, _NUM_VIDEOS])}
  before = _found(_videos(), **starts)
  noticed = []
  for video in range(_NUM_VIDEOS):
    videos = _videos()
    videos[video][1, 2] += 1
    if _found(videos, **starts)["train:all"] != before["train:all"]:
      noticed.append(video)
  # 399 / 4 apart, and the firsts of shards.
  assert noticed == [0, 7, 99, 199, 299, 310, 399]


def test_neither_caches_nor_subsets_of_all_change_what_videos_are():
  source = ArraySource(_videos())
  cached = cached_source.CachedSource(source)
  subset = sources.SubsetSource(source, np.arange(_NUM_VIDEOS))
  one, two, three = (
      splits_lib.fingerprints(Splits(each, None, each, each))
      for each in (source, cached, subset)
  )
  assert one == two == three


def test_a_workdir_of_an_earlier_version_is_known_again():
  videos = _videos()
  # As every version before wrote it: ids, and three videos' shape and floats.
  digest = hashlib.sha256(
      "\n".join(f"video-{row}" for row in range(_NUM_VIDEOS)).encode()
  )
  for video in (0, 200, 399):
    digest.update(b"(3, 4)" + videos[video].astype(np.float32).tobytes())
  old = {split: digest.hexdigest() for split in ("train", "gallery", "query")}
  now = _found(videos)
  assert ownership.differing_videos(now, old) == []
  assert old.items() <= now.items()
  videos[200] += 1
  assert ownership.differing_videos(_found(videos), old)


def test_prepared_records_are_told_apart_by_their_checksums(tmp_path):
  class Prepared(ArraySource):
    path, name, split = tmp_path, "clips", "train"

  def found():
    source = Prepared(_videos())
    return splits_lib.fingerprints(Splits(source, None, source, source))

  def write(content):
    (tmp_path / "manifest.json").write_text(json.dumps(content))

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(fingerprints.dataset_folder, "ArrayRecordSource", Prepared)
    without = found()
    write({"crc32c": {"clips-train.a": "1", "clips-query.a": "2"}})
    before = found()
    write({"crc32c": {"clips-train.a": "1", "clips-query.a": "3"}})
    assert found() == before
    write({"crc32c": {"clips-train.a": "4", "clips-query.a": "2"}})
    assert "train" in ownership.differing_videos(found(), before)
    # Whoever copied the records alone is not refused.
    assert ownership.differing_videos(found(), without) == []
    assert ownership.differing_videos(without, before) == []
    for odd in ([], {}, {"crc32c": 3}):
      write(odd)
      assert found() == without
