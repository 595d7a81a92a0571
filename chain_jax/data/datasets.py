"""TFDS builders of the datasets that `chain_jax.prepare` writes.

`import chain_jax.data.datasets` registers them, so that

    tfds.data_source("yt8m_frames", split="train", data_dir=OUTPUT)

reads what `prepare youtube8m --output=OUTPUT` wrote. TensorFlow is not needed.
"""

import pathlib
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from chain_jax import whole_files
from chain_jax.data.dataset_layout import VERSION, FrameForm
from chain_jax.errors import InputError


class _PreparedBuilder(tfds.core.GeneratorBasedBuilder):
  """Reads a prepared dataset; making one is the work of `prepare`."""

  VERSION = tfds.core.Version(VERSION)
  _DEFAULT_FORM: FrameForm
  _COMMAND: str

  def __init__(self, *, form: FrameForm | None = None, **kwargs: Any):
    """Takes the form of the frames where no folder tells it yet."""
    self._form = form or self._DEFAULT_FORM
    super().__init__(**kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    folder = pathlib.Path(self._data_dir or "")
    if (folder / "features.json").is_file():
      features = tfds.features.FeaturesDict.from_config(folder)
    else:
      features = _features(self._form)
    return tfds.core.DatasetInfo(
        builder=self, features=features, metadata=tfds.core.MetadataDict()
    )

  def download_and_prepare(self, **kwargs: Any) -> None:
    """Does nothing where the dataset is there, else says how to make it."""
    del kwargs
    if (pathlib.Path(self._data_dir) / "dataset_info.json").is_file():
      return
    raise self._not_prepared()

  def _not_prepared(self) -> InputError:
    return InputError(
        f"{self.name}: must be made by `python -m chain_jax.prepare"
        f" {self._COMMAND}`, got none in {self._data_dir!r}; see its --help."
    )

  # TFDS would make a dataset through these two.

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    raise self._not_prepared()

  def _generate_examples(self) -> Any:
    raise self._not_prepared()


class Yt8mFrames(_PreparedBuilder):
  """YouTube-8M: rgb 1024 and audio 128 a second, quantised, uint8."""

  _DEFAULT_FORM = FrameForm(1152, "uint8")
  _COMMAND = "youtube8m"


class Yt8mSegments(_PreparedBuilder):
  """YouTube-8M segments (2019): five frames each, labels rated by people."""

  _DEFAULT_FORM = FrameForm(1152, "uint8")
  _COMMAND = "youtube8m --segments"


class VideoFeatures(_PreparedBuilder):
  """Frame features of any origin: feature files, or decoded videos."""

  _DEFAULT_FORM = FrameForm(4096, "float16")
  _COMMAND = "features"


BUILDERS = {
    "yt8m_frames": Yt8mFrames,
    "yt8m_segments": Yt8mSegments,
    "video_features": VideoFeatures,
}


def _features(form: FrameForm) -> tfds.features.FeaturesDict:
  shape = (None, *form.shape(0)[1:])
  return tfds.features.FeaturesDict(
      {
          "id": tfds.features.Text(),
          "labels": tfds.features.Tensor(shape=(None,), dtype=np.int64),
          "frames": tfds.features.Tensor(
              shape=shape, dtype=np.dtype(form.dtype).type, encoding="bytes"
          ),
      }
  )


class SplitFiles(NamedTuple):
  """The record files of one split, in order."""

  shard_lengths: list[int]  # Videos a file; 0 where a file has none.
  num_bytes: int


def write_metadata(
    folder: pathlib.Path,
    name: str,
    form: FrameForm,
    splits: dict[str, SplitFiles],
    metadata: dict[str, Any],
) -> None:
  """Writes what TFDS needs to know beside the record files.

  Args:
    folder: `OUTPUT/<name>/<version>`, where the record files lie.
    name: A key of `BUILDERS`.
    form: Of the frames.
    splits: The record files, by split.
    metadata: JSON values; TFDS gives them back as `builder.info.metadata`.
  """
  builder = BUILDERS[name](
      form=form, data_dir=str(folder / "none"), file_format="array_record"
  )
  builder.info.set_splits(
      tfds.core.splits.SplitDict(
          [
              tfds.core.splits.SplitInfo(
                  name=split,
                  shard_lengths=files.shard_lengths,
                  num_bytes=files.num_bytes,
                  filename_template=tfds.core.ShardedFileTemplate(
                      data_dir=folder,
                      dataset_name=name,
                      split=split,
                      filetype_suffix="array_record",
                  ),
              )
              for split, files in splits.items()
          ]
      )
  )
  builder.info.metadata.update(metadata)
  with whole_files.partial_folder(folder / "tfds") as partial:
    builder.info.write_to_directory(partial)
    # The one by which our own readers know a dataset comes last.
    for file in sorted(
        partial.iterdir(), key=lambda file: file.name == "metadata.json"
    ):
      whole_files.put_in_place(file, folder / file.name)
