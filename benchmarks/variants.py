"""What is run beside what: the rows of every table, as plain data.

A row is a preset of the config file and the fields that it changes. Rows of the
same name are the same run in every table: `ablation` shares their folders.
"""

from typing import Any, NamedTuple


class Times(NamedTuple):
  """A change relative to what the config says: its value times `factor`."""

  factor: float


class Variant(NamedTuple):
  """One row: what is trained."""

  name: str
  preset: str  # Of the config file, after its colon; "" = as the file is.
  changes: dict[str, Any] = {}  # Dotted field -> value, or `Times`.


class Table(NamedTuple):
  """Some rows, and how they are shown."""

  title: str
  variants: tuple[Variant, ...]
  baselines: tuple[str, ...] = ()  # Rows below, that train no model.
  reference: str = ""  # Row that the others are compared with; "" = the first.
  bits: tuple[int, ...] = (64,)
  top_ks: tuple[int, ...] = (5, 20, 100)
  split: str = "queries"  # queries | validation: what is scored.


_NO_LOCAL_TASKS = {"loss.frame_order": 0.0, "loss.scene_change": 0.0}
_NO_TEMPORAL = {
    "augment.crop_fraction": (1.0, 1.0),
    "augment.sampling": "uniform",
}
_NO_SPATIAL = {
    "augment.noise_std": 0.0,
    "augment.dropout_rate": 0.0,
    "augment.mix_max": 0.0,
}

_RESULTS = Table(
    title="Results",
    variants=(
        Variant("chain", "chain"),
        Variant("chain_plus", "chain_plus"),
    ),
    baselines=("itq", "lsh"),
    reference="itq",
    bits=(16, 32, 64),
    top_ks=(5, 20, 40, 60, 80, 100),
)

_PARTS = Table(
    title="The parts of CHAIN",
    variants=(
        Variant("chain", "chain"),
        Variant("contrast only", "chain", _NO_LOCAL_TASKS),
        Variant("contrast, frame order", "chain", {"loss.scene_change": 0.0}),
        Variant("contrast, scene change", "chain", {"loss.frame_order": 0.0}),
        Variant("no temporal augmentation", "chain", _NO_TEMPORAL),
        Variant("no spatial stand-in", "chain", _NO_SPATIAL),
        Variant("no augmentation", "chain", _NO_TEMPORAL | _NO_SPATIAL),
    ),
)

_PEERS = Table(
    title="Objectives side by side, at an equal encoder and budget",
    variants=(
        Variant("chain", "chain"),
        Variant("conmh", "conmh"),
        Variant("chain_plus", "chain_plus"),
        Variant(
            "chain_plus, neither local task", "chain_plus", _NO_LOCAL_TASKS
        ),
    ),
)


def _tried(name: str, **changes: Any) -> Variant:
  """Makes a row of `chain_plus`; fields are dotted with two underscores."""
  fields = {field.replace("__", "."): to for field, to in changes.items()}
  return Variant(name, "chain_plus", fields)


_SEARCH = Table(
    title="What was tried, on videos held out of train",
    variants=(
        Variant("chain_plus", "chain_plus"),
        Variant("chain", "chain"),
        _tried("normalisation none", model__normalisation="none"),
        _tried("normalisation standardise", model__normalisation="standardise"),
        _tried("l2_normalise", model__l2_normalise=True),
        _tried("noise_std 0", augment__noise_std=0.0),
        _tried("noise_std .5", augment__noise_std=0.5),
        _tried("noise_std 1.5", augment__noise_std=1.5),
        _tried("feature dropout .2", augment__dropout_rate=0.2),
        _tried("mix_max .2", augment__mix_max=0.2),
        _tried("no frame deviations", model__frame_deviations=False),
        _tried("neighbours by mean frames", neighbours__pooling="mean"),
        _tried(
            "mean frames only",
            neighbours__pooling="mean",
            model__frame_deviations=False,
        ),
        _tried("20 neighbours", neighbours__num_neighbours=20),
        _tried("60 neighbours", neighbours__num_neighbours=60),
        _tried("neighbours by all features", neighbours__num_components=0),
        _tried("no whitening", neighbours__whitening=0.0),
        _tried("first lists only", neighbours__num_directions=0),
        _tried(
            "first lists only, no whitening",
            neighbours__num_directions=0,
            neighbours__whitening=0.0,
        ),
        _tried("min_overlap .2", neighbours__min_overlap=0.2),
        _tried("no neighbours", neighbours__num_neighbours=0),
        _tried("weight of neighbours .3", neighbours__weight=0.3),
        _tried("weight of neighbours 1", neighbours__weight=1.0),
        _tried("batch_share .5", neighbours__batch_share=0.5),
        _tried("temperature .25", loss__temperature=0.25),
        _tried("temperature .5", loss__temperature=0.5),
        _tried("temperature 1", loss__temperature=1.0),
        _tried("positive_prior .05", loss__positive_prior=0.05),
        _tried("no detail bits", model__detail_share=0.0),
        _tried("detail_share .25", model__detail_share=0.25),
        _tried("straight-through", model__hash_relaxation="straight_through"),
        _tried("hash_then_mean", model__hash_pooling="hash_then_mean"),
        _tried("linear hash layer", model__hash_hidden_dim=0),
        _tried("width 256", model__width=256, model__mlp_dim=512),
        _tried("depth 0", model__depth=0),
        _tried("depth 2", model__depth=2),
        _tried(
            "width 512, depth 2",
            model__width=512,
            model__mlp_dim=1024,
            model__depth=2,
            model__hash_hidden_dim=1024,
        ),
        _tried("4 frames", data__num_frames=4),
        _tried("quantisation 0", loss__quantisation=0.0),
        _tried("bit_balance .1", loss__bit_balance=0.1),
        _tried("decorrelation .002", loss__decorrelation=0.002),
        _tried("decorrelation .1", loss__decorrelation=0.1),
        _tried("model dropout 0", model__dropout_rate=0.0),
        _tried("batch of 32", train__batch_size=32),
        _tried("batch of 128", train__batch_size=128),
        _tried("num_epochs x.5", train__num_epochs=Times(0.5)),
        _tried("num_epochs x2", train__num_epochs=Times(2.0)),
        _tried("num_epochs x4", train__num_epochs=Times(4.0)),
        _tried(
            "frames guessed beside contrast",
            loss__reconstruction=1.0,
            augment__mask_fraction=0.5,
        ),
    ),
    split="validation",
)

_LOCAL = Table(
    title="The parts of CHAIN, where only time tells classes apart",
    variants=(
        Variant("both", ""),
        Variant("order only", "", {"loss.scene_change": 0.0}),
        Variant("scene only", "", {"loss.frame_order": 0.0}),
        Variant("neither", "", _NO_LOCAL_TASKS),
        Variant("both, no temporal augmentation", "", _NO_TEMPORAL),
        Variant("both, no spatial stand-in", "", _NO_SPATIAL),
        Variant("both, no augmentation", "", _NO_TEMPORAL | _NO_SPATIAL),
        Variant(
            "both, neighbours as positives",
            "",
            {"neighbours.num_neighbours": 30, "neighbours.weight": 0.3},
        ),
    ),
    baselines=("itq", "lsh"),
)

TABLES = {
    "results": _RESULTS,
    "parts": _PARTS,
    "peers": _PEERS,
    "search": _SEARCH,
    "local": _LOCAL,
}
