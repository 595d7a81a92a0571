"""The config of every row of every table is what the row says."""

import argparse
import pathlib
import sys

import pytest

from chain_jax import config_rules, errors

# The benchmarks are not installed.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from benchmarks import ablation, ablation_config, variants

_PRESETS = """
from chain_jax import config as config_lib

def get_config(preset="chain"):
  config = config_lib.ExperimentConfig()
  if preset == "chain_plus":
    config.loss.temperature = 0.3
  return config
"""


@pytest.mark.parametrize("table", variants.TABLES)
def test_every_row_is_a_valid_config_that_differs_as_it_says(table):
  configs = pathlib.Path(__file__).resolve().parent.parent / "configs"
  file = configs / ("quickstart.py" if table == "local" else "ucf101.py")
  flags = argparse.Namespace(
      table=table, config=str(file), root=None, seeds=[7], bits=None,
      variants=None, workdir="runs",
  )  # fmt: skip
  cells = ablation.make_cells(flags, {}, variants.TABLES[table].split)
  seen = [
      repr(cell.config) + cell.method for cell in cells if cell.num_bits == 64
  ]
  assert len(set(seen)) == len(seen)
  assert len({cell.path for cell in cells}) == len(cells)
  for cell in cells:
    config_rules.validate(cell.config, num_devices=1)
    assert cell.config.train.seed == cell.config.evaluation.baseline_seed == 7


def test_rows_of_one_name_are_one_run_in_every_table():
  known = {}
  for table in variants.TABLES.values():
    for row in table.variants:
      assert known.setdefault(row.name, row) == row


def test_a_variant_has_the_last_word_and_doubles_what_was_asked_for(tmp_path):
  file = tmp_path / "small.py"
  file.write_text(_PRESETS, encoding="utf-8")
  config = ablation_config.make_config(
      f"{file}:chain_plus",
      variants.Variant("row", "", {"train.num_epochs": variants.Times(2.0)}),
      overrides={"train.num_epochs": 3, "model.depth": 2},
      split="queries",
      num_bits=32,
      seed=5,
  )
  assert config.train.num_epochs == 6 and config.model.depth == 2
  assert type(config.train.num_epochs) is int
  assert config.loss.temperature == 0.3  # Of the preset after the colon.
  assert (config.model.num_bits, config.train.seed) == (32, 5)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--confg.model.depth=1", "must be flags or --config.FIELD=VALUE"),
        ("--config.model.depth", "must be flags or --config.FIELD=VALUE"),
        ("--config.model.dept=1", "no field `model.dept`"),
        ("--config.model.l2_normalise=true", "literal, got 'true'; try False"),
    ],
)
def test_a_wrong_override_is_named(word, message):
  with pytest.raises(errors.InputError, match=message):
    ablation_config.parse_overrides([word])


def test_overrides_keep_their_types():
  assert ablation_config.parse_overrides(
      [
          "--config.name=7",
          "--config.model.depth=1",
          "--config.augment.crop_fraction=(0.5, 1)",
      ]
  ) == {
      "name": "7",
      "model.depth": 1,
      "augment.crop_fraction": (0.5, 1),
  }


def test_a_preset_that_the_file_does_not_know_is_one_line(tmp_path):
  file = tmp_path / "plain.py"
  file.write_text("def get_config():\n  return None\n")
  with pytest.raises(errors.InputError, match=r"get_config\('chain'\)"):
    ablation.main([f"--config={file}", "--table=parts"])
  with pytest.raises(errors.InputError, match="must be rows of --table=local"):
    ablation.main(["--table=local", "--variants", "chain"])
