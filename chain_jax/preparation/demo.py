"""Synthetic YouTube-8M shards, to try everything on before the download."""

import pathlib
from collections.abc import Sequence

from chain_jax import command_line
from chain_jax import config as config_lib
from chain_jax.data import synthetic_youtube8m
from chain_jax.preparation import youtube8m


def run(arguments: Sequence[str]) -> None:
  """Runs `prepare demo`."""
  parser = command_line.CommandParser(
      module="chain_jax.prepare demo",
      description=(
          "Writes shards like YouTube-8M's, half of them train*.tfrecord and"
          " half validate*.tfrecord with rated segments."
      ),
      example=(
          "python -m chain_jax.prepare demo --output=data/demo_shards"
          " --num_shards=20 --videos_per_shard=200"
      ),
  )
  parser.add_argument("--output", required=True, metavar="DIR", help="folder")
  for name, default, what in (
      ("num_shards", 20, "files, of both parts together; at least 2"),
      ("videos_per_shard", 200, "about 230 kB each"),
      ("num_classes", 40, "classes that occur"),
      ("seed", 0, "of the set"),
  ):
    parser.add_number(name, default, what)
  flags = parser.parse_args(arguments)
  write_demo(
      flags.output,
      num_shards=flags.num_shards,
      videos_per_shard=flags.videos_per_shard,
      num_classes=flags.num_classes,
      seed=flags.seed,
  )
  print(f"{flags.output}: {flags.num_shards} shards of synthetic videos")


def write_demo(
    folder: str,
    *,
    num_shards: int,
    videos_per_shard: int,
    num_classes: int,
    seed: int,
) -> None:
  """Writes both parts of a synthetic set.

  Args:
    folder: Made if it is not there.
    num_shards: Files of both parts together; the larger half is train.
    videos_per_shard: Videos a file.
    num_classes: Classes that occur.
    seed: Of the set.

  Raises:
    InputError: If an argument is out of range.
  """
  num_validate = num_shards // 2
  for part, count in (
      ("train", num_shards - num_validate),
      ("validate", num_validate),
  ):
    synthetic_youtube8m.write_shards(
        folder,
        num_shards=count,
        videos_per_shard=videos_per_shard,
        seed=seed,
        part=part,
        num_classes=num_classes,
        segments=part == "validate",
    )


# A tenth of the few videos of a demonstration, to search with.
_DEMO_FLAGS = ("--query_share=0.1", "--validation_share=0.05")
_DEMO_VIDEOS = 200  # A shard.


def make_missing(config: config_lib.DataConfig) -> None:
  """Makes what a demonstration lacks: shards, and datasets of them.

  Args:
    config: Names the datasets; each has its shards beside it. One that is
      there, finished or not, is left to the command that made it.
  """
  if config.dataset != "prepared" or not config.prepared.demo_shards:
    return
  shards = pathlib.Path(f"{config.root}_shards").expanduser()
  wanted = (("", config.root), ("--segments", config.prepared.segments_root))
  for flag, root in wanted:
    if not root or any(
        pathlib.Path(root).expanduser().glob("*/*/metadata.json")
    ):
      continue
    if len(list(shards.glob("*.tfrecord"))) < config.prepared.demo_shards:
      print(f"{shards}: making synthetic YouTube-8M shards", flush=True)
      write_demo(
          str(shards),
          num_shards=config.prepared.demo_shards,
          videos_per_shard=_DEMO_VIDEOS,
          num_classes=40,
          seed=0,
      )
    parts = [f"--evaluation={shards}/validate*.tfrecord"]
    parts += [flag] if flag else [f"--train={shards}/train*.tfrecord"]
    print(f"{root}: preparing it", flush=True)
    youtube8m.run([*parts, *_DEMO_FLAGS, f"--output={root}"])
