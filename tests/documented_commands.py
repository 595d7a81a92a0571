"""The commands that the documents give, and how tests run them small."""

import os
import pathlib
import re
import shlex
import sys
from typing import NamedTuple

import xla_settings

ROOT = pathlib.Path(__file__).resolve().parent.parent
# README first: its commands make what later ones read.
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "launch").glob("*.md")),
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "benchmarks").glob("*.md")),
]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND_LANGUAGES = ("bash", "sh", "shell", "console")
# In any other block, a line that looks like this is a command as well.
_LOOKS_LIKE_A_COMMAND = re.compile(
    r"^(\$ |\.venv/|python3? |pip |pytest|git |launch/|\w+=\S+ (python|launch/))"
)
_PYTHONS = ("python", "python3", ".venv/bin/python")

# Appended to a run's flags: the same run, in seconds.
_SHRUNK_RUN = [
    "--config.train.max_steps=2",
    "--config.train.batch_size=16",
    "--config.evaluation.batch_size=16",
    "--config.data.num_workers=0",
    "--config.data.synthetic.num_train=160",
    "--config.data.synthetic.num_gallery=64",
    "--config.data.synthetic.num_query=16",
    "--config.model.width=32",
    "--config.model.num_heads=2",
    "--config.model.mlp_dim=32",
    "--config.model.depth=1",
]
# The same for preparations, by kind. The defaults of a share suit millions.
_SHRUNK_PREPARE = {
    "youtube8m": ["--num_workers=0", "--query_share=0.2"]
    + ["--validation_share=0.2"],
    "features": ["--num_workers=0"],
    "videos": ["--num_workers=0", "--num_frames=4", "--num_variants=2"],
    "demo": ["--num_shards=2", "--videos_per_shard=8"],
}
# Weights that no test has: their backbone becomes the one without any.
_WEIGHTS = "--weights=squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"
_RANDOM_BACKBONE_DIM = 128
# The same for benchmarks; one that is not here is asked for its --help.
SHRUNK_BENCHMARKS = {
    "benchmarks.contrastive": ["--sizes", "32", "--devices", "1", "2"],
    "benchmarks.evaluate": ["--num_videos=200", "--num_bits", "16"],
    "benchmarks.search": [
        "--num_gallery=2000",
        "--num_queries=10",
        "--repeats=1",
    ],
}


class Command(NamedTuple):
  """One command of a document, and where it stands."""

  where: str
  words: tuple[str, ...]


def _lines_of(document):
  """Lines of the document's fenced blocks that are commands."""
  for language, block in _FENCE.findall(document.read_text(encoding="utf-8")):
    for line in block.replace("\\\n", " ").splitlines():
      line = line.strip()
      if language in _COMMAND_LANGUAGES:
        if line and not line.startswith("#"):
          yield line.removeprefix("$ ")
      elif _LOOKS_LIKE_A_COMMAND.match(line):
        yield line.removeprefix("$ ")


def commands():
  """All commands, each once, in the order of the documents."""
  commands = {}
  for document in DOCUMENTS:
    for line in _lines_of(document):
      for part in line.split(" && "):
        words = tuple(shlex.split(part, comments=True))
        where = str(document.relative_to(ROOT))
        commands.setdefault(words, Command(where, words))
  return list(commands.values())


def module_of(words):
  """The M of "python -m M", or None."""
  is_module = len(words) > 2 and words[0] in _PYTHONS and words[1] == "-m"
  return words[2] if is_module else None


def runs(command):
  """Says whether a command is of this project, and not of its set-up."""
  module = module_of(command.words) or ""
  return module.startswith(("chain_jax.", "benchmarks."))


def name(command):
  """Names a command for a test's report."""
  return f"{command.where}: {' '.join(command.words)}"


def shrunk(words):
  """The arguments to run, from the module's name on."""
  module, arguments = words[2], list(words[3:])
  if module == "chain_jax.main":
    if any(
        word.endswith(("=data/videos", "=data/all_clips")) for word in words
    ):
      arguments.append(f"--config.data.feature_dim={_RANDOM_BACKBONE_DIM}")
    if "--config=configs/yt8m.py:tiny" in words:
      arguments.append("--config.data.prepared.demo_shards=2")
    return [module, *arguments, *_SHRUNK_RUN]
  if module == "chain_jax.prepare" and arguments[0] in _SHRUNK_PREPARE:
    return [
        module,
        *_without_weights(arguments),
        *_SHRUNK_PREPARE[arguments[0]],
    ]
  if module in SHRUNK_BENCHMARKS:
    return [module, *arguments, *SHRUNK_BENCHMARKS[module]]
  if module.startswith("benchmarks."):
    return [module, "--help"]
  return [module, *_without_weights(arguments)]


def _without_weights(arguments):
  return [
      "--backbone=random" if word == "--backbone=squeezenet" else word
      for word in arguments
      if word != _WEIGHTS
  ]


# What `pip install .` leaves out; torch would be found by accident only.
_EXTRA_MODULES = ("av", "pebble", "safetensors", "PIL", "apache_beam", "torch")
_WITHOUT_EXTRAS = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({_EXTRA_MODULES}))
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def needs_extra(words):
  """Says whether a command is one of those that README gives an extra for."""
  return (
      words[3:4] == ("videos",)
      or module_of(words) in ("benchmarks.video_edits",)
      or any(word.startswith(("--video=", "--runner=")) for word in words)
  )


def python(words):
  """Python with the modules that are there once README was followed."""
  if needs_extra(words):
    return [sys.executable, "-m"]
  return [sys.executable, "-c", _WITHOUT_EXTRAS]


def environment():
  """The variables that a documented command runs under."""
  return os.environ | {
      "PYTHONPATH": str(ROOT),
      # One device, as a user has it; the tests around this one force eight.
      "XLA_FLAGS": xla_settings.xla_flags(),
  }
