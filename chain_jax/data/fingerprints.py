"""Which videos a run works on, told by what they are and not where they lie."""

import contextlib
import hashlib
import json
from typing import Any

import numpy as np

from chain_jax import errors, whole_files
from chain_jax.data import dataset_folder, records, sources, synthetic

# Read whole in seconds, and no more than the first epoch reads.
_WHOLE_BYTES = 2**30
# Of larger splits: videos looked at, evenly spread, and those that begin a shard.
_NUM_SPREAD, _MOST_SHARDS = 1024, 4096


def of_source(source: sources.VideoSource) -> dict[str, str]:
  """Fingerprints the videos of a split.

  Returns:
    SHA-256 in hex, by the ending that what it covers gives to the split's name:

    "" covers all ids and the frames of the first, middle and last video.
    ":all" covers ids, lengths and form of all videos, and their frames as
    stored: of all of them where these take 1 GiB or less, else of 1024 evenly
    spread ones and of the first one of each shard, up to 4096 shards; so a
    change of 1 % of a larger split's videos is missed 3 times in 100,000.
    Synthetic videos follow from the config.
    ":files" covers the checksums of all records of a prepared split, as its
    manifest tells them; it is left out where there is no manifest.
  """
  parts = {"": of_three(source), ":all": _of_all(source)}
  checksums = _record_checksums(source)
  if checksums:
    text = json.dumps(checksums, sort_keys=True)
    parts[":files"] = hashlib.sha256(text.encode()).hexdigest()
  return parts


def of_three(source: sources.VideoSource) -> str:
  """Covers all ids and three videos, as every version did for its workdirs."""
  digest = hashlib.sha256(_ids(source))
  for video in (0, len(source) // 2, len(source) - 1):
    frames = records.to_features(source.read_frames(video), source.scaling)
    digest.update(f"{frames.shape}".encode())
    digest.update(np.ascontiguousarray(frames).data)
  return digest.hexdigest()


def _of_all(source: sources.VideoSource) -> str:
  digest = hashlib.sha256(_ids(source))
  form = (source.feature_dim, source.num_variants, source.dtype.str)
  digest.update(f"{len(source)} {form}".encode())
  digest.update(source.num_frames.astype("<i4").tobytes())
  for numbers in source.scaling:
    digest.update(np.asarray(numbers, "<f4").tobytes())
  if isinstance(_below(source), synthetic.SyntheticSource):
    return digest.hexdigest()
  if sources.num_stored_bytes(source) <= _WHOLE_BYTES:
    for _, block in sources.read_in_blocks(source, what="compare videos"):
      digest.update(block.tobytes())
  else:
    for video in _spread(source):
      digest.update(source.read_frames(video).tobytes())
  return digest.hexdigest()


def _spread(source: sources.VideoSource) -> list[int]:
  """Chooses the videos of a large split that are looked at."""
  chosen = np.linspace(0, len(source) - 1, min(_NUM_SPREAD, len(source)))
  firsts = source.shard_starts[:-1]
  if len(firsts) <= _MOST_SHARDS:  # An empty shard's first is another's.
    chosen = np.concatenate([chosen, firsts[firsts < len(source)]])
  return np.unique(chosen.astype(np.int64)).tolist()


def _ids(source: sources.VideoSource) -> bytes:
  return "\n".join(source.ids.tolist()).encode(errors="surrogatepass")


def _record_checksums(source: sources.VideoSource) -> dict[str, Any]:
  """Returns those of the split's record files; none where they are not known."""
  stored = _below(source)
  if not isinstance(stored, dataset_folder.ArrayRecordSource):
    return {}
  start = f"{stored.name}-{stored.split}."
  with contextlib.suppress(errors.InputError, AttributeError):
    manifest = whole_files.read_json(
        stored.path / "manifest.json", must_be="a manifest", way_out="copy it"
    )
    known = manifest.get("crc32c", {}).items()
    return {name: one for name, one in known if name.startswith(start)}
  return {}


def _below(source: Any) -> Any:
  """Returns what reads the files, below subsets and caches."""
  while (inner := getattr(source, "_source", None)) is not None:
    source = inner
  return source
