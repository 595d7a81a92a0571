"""mAP on videos held out of the train split; test queries take no part."""

from collections.abc import Callable

from jax.sharding import Mesh

from chain_jax import codes as codes_lib
from chain_jax import config as config_lib
from chain_jax import export, retrieval_metrics
from chain_jax.data import splits as splits_lib
from chain_jax.models import chain
from chain_jax.train_state import TrainState


def make_validator(
    config: config_lib.ExperimentConfig,
    model: chain.ChainModel,
    splits: splits_lib.Splits,
    mesh: Mesh,
) -> Callable[[TrainState], dict[str, float]]:
  """Makes the function state -> metrics of the held-out videos.

  They are the queries; what is left of the train split is the gallery, or
  they themselves where the dataset has a validation split of its own.

  Args:
    config: Export settings and view length.
    model: The model.
    splits: Where `validation` is None, the function returns nothing.
    mesh: The devices.

  Returns:
    A function to a dict of `validation_map_at_<K>`, the field's mAP.
  """
  encode = export.make_encode(model, mesh)

  def code_set(state: TrainState, source: object) -> codes_lib.CodeSet:
    packed = export.encode_split(
        encode,
        state,
        source,
        mesh,
        batch_size=config.evaluation.batch_size,
        num_frames=config.data.num_frames,
    )
    return codes_lib.CodeSet(packed, source.ids, source.labels, {})

  def validate(state: TrainState) -> dict[str, float]:
    if splits.validation is None:
      return {}
    query, gallery = splits.validation
    queries = code_set(state, query)
    result = retrieval_metrics.evaluate_codes(
        queries, queries if gallery is query else code_set(state, gallery)
    )
    return {
        f"validation_map_at_{k}": float(value)
        for k, value in result["map_at_k"].items()
    }

  return validate
