"""Which videos a run is scored on: the queries, or what is held out."""

import pytest
import tiny

from chain_jax import config_rules
from chain_jax.data import splits
from chain_jax.errors import InputError


def _splits(**changes):
  config = tiny.tiny_config(**changes)
  config_rules.validate(config, num_devices=1)
  return splits.make_splits(config.data, seed=0)


def test_held_out_videos_are_searched_with_and_in_the_rest_of_train():
  made = _splits(
      data__validation_fraction=0.25, data__evaluated_split="validation"
  )
  query, gallery = set(made.query.ids), set(made.gallery.ids)
  assert (len(query), len(gallery)) == (12, 36)
  assert query.isdisjoint(gallery) and gallery == set(made.train.ids)
  whole = _splits()
  assert query | gallery == set(whole.train.ids)


def test_holding_out_alone_leaves_the_queries_as_they_are():
  made, whole = _splits(data__validation_fraction=0.25), _splits()
  assert made.query.ids.tolist() == whole.query.ids.tolist()
  assert made.gallery.ids.tolist() == whole.gallery.ids.tolist()


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("validation", r"`data\.evaluated_split`.*validation_fraction"),
        ("test", r"`data\.evaluated_split` must be one of query, validation"),
    ],
)
def test_what_cannot_be_scored_is_refused(split, message):
  with pytest.raises(InputError, match=message):
    _splits(data__evaluated_split=split)
