"""What the contrastive benchmark compares with is right, and it runs small."""

import re
import subprocess
import sys

import documented_commands
import numpy as np
import reference

_ARGUMENTS = ["--sizes", "32", "64", "--devices", "1", "4", "--repeats=1"]
# Run from the root, as a user does: the benchmarks are not installed.
_BY_BLOCKS = """
import sys
import numpy as np
from benchmarks import contrastive_float64
contrastive_float64._BLOCK_ROWS = 6
embeddings = np.load(sys.argv[1])
value, gradient, slope = contrastive_float64.value_and_gradients(
    embeddings, 0.3
)
np.savez(sys.argv[2], value=value, gradient=gradient, slope=slope)
"""


def _python(*arguments):
  return subprocess.run(
      [sys.executable, *arguments],
      cwd=documented_commands.ROOT,
      env=documented_commands.environment(),
      capture_output=True,
      text=True,
      check=True,
  ).stdout


def test_the_float64_loss_by_blocks_agrees_with_loops(tmp_path):
  # 16 rows in blocks of 6: the last has 4.
  embeddings = np.random.default_rng(0).normal(size=(8, 2, 3))
  np.save(tmp_path / "embeddings.npy", embeddings)
  files = [str(tmp_path / name) for name in ("embeddings.npy", "exact.npz")]
  _python("-c", _BY_BLOCKS, *files)

  def loss(point, temperature):
    return reference.nt_xent(point, temperature=temperature)

  expected = {
      "value": np.float64(loss(embeddings, 0.3)),
      "gradient": reference.gradient(lambda x: loss(x, 0.3), embeddings),
      "slope": reference.gradient(lambda t: loss(embeddings, t), 0.3),
  }
  with np.load(files[1]) as exact:
    for name, slow in expected.items():
      # Central differences: 1e-10 of the value.
      np.testing.assert_allclose(
          exact[name], slow, rtol=1e-7, atol=1e-9, strict=True
      )


def test_the_table_has_every_method_and_its_errors_are_small():
  printed = _python("-m", "benchmarks.contrastive", *_ARGUMENTS)
  rows = re.findall(r"^ +(\d+) +(\d+)  (\w+) +(.*)$", printed, re.M)
  methods = ["naive", "global", "tiled", "ring"]
  expected = [
      (str(devices), str(batch), method)
      for batch in (32, 64)
      for devices in (1, 4)
      for method in methods
      if devices == 1 or method != "tiled"
  ]
  assert [row[:3] for row in rows] == expected
  for *_, numbers in rows:
    errors = [float(number) for number in numbers.split()[2:]]
    # The bound of the benchmark's aim.
    assert len(errors) == 3 and max(errors) < 1e-5
  assert len(re.findall(r"memory grows as B \*\* ", printed)) == 7
