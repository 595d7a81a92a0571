"""What a file of weights must hold, and how each fault is named."""

import builtins
import functools
import os
import pathlib
import pickle

import backbone_files
import h5py
import jax
import numpy as np
import pytest

from chain_jax import guarded
from chain_jax.errors import InputError
from chain_jax.models.backbones import loading, weights

# A small network: one convolution, one batch norm, one dense layer.
_SHAPES = jax.tree.map(
    lambda shape: jax.ShapeDtypeStruct(shape, np.float32),
    {
        "params": {
            "conv_1": {"kernel": (3, 5, 2, 4), "bias": (4,)},
            "bn": {"scale": (4,), "bias": (4,)},
            "fc": {"kernel": (4, 6)},
        },
        "batch_stats": {"bn": {"mean": (4,), "var": (4,)}},
    },
    is_leaf=lambda node: isinstance(node, tuple),
)
_STORED = {
    "conv.1.weight": (4, 2, 3, 5),
    "conv.1.bias": (4,),
    "bn.weight": (4,),
    "bn.bias": (4,),
    "bn.running_mean": (4,),
    "bn.running_var": (4,),
    "fc.weight": (6, 4),
}
_KERAS_SHAPES = jax.tree.map(
    lambda shape: jax.ShapeDtypeStruct(shape, np.float32),
    {"params": {"fire2": {"a": {"kernel": (1, 3, 2, 4), "bias": (4,)}}}},
    is_leaf=lambda node: isinstance(node, tuple),
)


def _tensors(**changes):
  tensors = backbone_files.random_tensors(_STORED)
  return tensors | {k.replace("__", "."): v for k, v in changes.items()}


def _write(tmp_path, tensors, name="weights.safetensors"):
  numpy_files = pytest.importorskip(
      "safetensors.numpy", reason="needs chain_jax[video]"
  )
  numpy_files.save_file(tensors, tmp_path / name)
  return tmp_path / name


def _load(path, **settings):
  return weights.load_variables(path, _SHAPES, weights.TORCHVISION, **settings)


def _load_keras(path, **settings):
  return weights.load_variables(path, _KERAS_SHAPES, weights.KERAS, **settings)


def _keras_tensors():
  return backbone_files.random_tensors(
      {"fire2/a/kernel": (4, 2, 1, 3), "fire2/a/bias": (4,)}
  )


def _refusal(load, path, **settings):
  """Returns the one line with which a file is refused; it names the file."""
  with pytest.raises(InputError) as caught:
    load(path, **settings)
  text = str(caught.value)
  assert "\n" not in text and text.startswith(f"{path}: ")
  return text


def test_each_tensor_lands_where_flax_looks_for_it(tmp_path):
  tensors = _tensors()
  variables = _load(_write(tmp_path, tensors))
  params, stats = variables["params"], variables["batch_stats"]
  stored = tensors["conv.1.weight"]
  for out, channel, row, column in np.ndindex(stored.shape):
    actual = params["conv_1"]["kernel"][row, column, channel, out]
    assert actual == stored[out, channel, row, column]
  expected = {
      "fc.weight": params["fc"]["kernel"].T,
      "conv.1.bias": params["conv_1"]["bias"],
      "bn.weight": params["bn"]["scale"],
      "bn.bias": params["bn"]["bias"],
      "bn.running_mean": stats["bn"]["mean"],
      "bn.running_var": stats["bn"]["var"],
  }
  for name, actual in expected.items():
    np.testing.assert_array_equal(actual, tensors[name], strict=True)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_become_float32(tmp_path, dtype):
  tensors = {name: value.astype(dtype) for name, value in _tensors().items()}
  kernel = _load(_write(tmp_path, tensors))["params"]["fc"]["kernel"]
  np.testing.assert_array_equal(
      kernel, tensors["fc.weight"].T.astype(np.float32), strict=True
  )


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2"])
def test_keras_kernels_are_found_by_their_place_not_their_name(tmp_path, dtype):
  tensors = _keras_tensors()
  path = backbone_files.write_keras(tmp_path / "a.h5", tensors, dtype=dtype)
  layer = _load_keras(path)["params"]["fire2"]["a"]
  kernel = tensors["fire2/a/kernel"].transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(
      layer["kernel"], kernel.astype(dtype).astype(np.float32), strict=True
  )
  np.testing.assert_array_equal(
      layer["bias"],
      tensors["fire2/a/bias"].astype(dtype).astype(np.float32),
      strict=True,
  )


def test_a_missing_tensor_is_named(tmp_path):
  tensors = _tensors()
  del tensors["fc.weight"]
  path = _write(tmp_path, tensors)
  assert "'fc.weight' is missing" in _refusal(_load, path)
  del tensors["bn.bias"]
  path = _write(tmp_path, tensors)
  assert "'bn.bias' and 1 more are missing" in _refusal(_load, path)


def test_an_unknown_tensor_is_named_unless_it_is_known_to_be_unused(tmp_path):
  tensors = _tensors(head__weight=np.zeros(3, np.int64))
  path = _write(tmp_path, tensors)
  assert "'head.weight' is not part" in _refusal(_load, path)
  assert "'head.weight'" in _refusal(_load, path, unused="head")
  _load(path, unused=r"head\.weight")


_WHOLE_CHECKPOINT = {
    "vgg16": [
        f"classifier.{layer}.{leaf}"
        for layer in (3, 6)
        for leaf in ("weight", "bias")
    ],
    "resnet50": [
        "fc.weight",
        "fc.bias",
        "bn1.num_batches_tracked",
        "layer1.0.downsample.1.num_batches_tracked",
    ],
    "squeezenet": ["conv10/kernel", "conv10/bias"],
}


@pytest.mark.parametrize("name", _WHOLE_CHECKPOINT)
def test_the_unused_part_of_a_whole_checkpoint_is_allowed(name):
  recipe = loading._RECIPES[name]
  stored = set(_WHOLE_CHECKPOINT[name])
  path = pathlib.Path("weights")
  weights._check_names(path, set(), stored, recipe.unused)
  for wrong in ("classifier.0.weight", "layer1.0.conv1.weight", "conv1/kernel"):
    with pytest.raises(InputError, match=wrong):
      weights._check_names(path, set(), stored | {wrong}, recipe.unused)


def test_a_wrong_shape_is_named_even_when_the_size_fits(tmp_path):
  path = _write(tmp_path, _tensors(fc__weight=np.zeros((4, 6), np.float32)))
  text = _refusal(_load, path)
  assert "'fc.weight' must have the shape [6, 4], got [4, 6]" in text


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool])
def test_a_tensor_that_is_not_float_is_named(tmp_path, dtype):
  path = _write(tmp_path, _tensors(bn__bias=np.zeros(4, dtype)))
  assert "'bn.bias' must be float16, float32 or" in _refusal(_load, path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_value_that_is_not_finite_in_float32_is_named(tmp_path, value):
  wrong = np.array([0, 1, value, 2], np.float64)
  path = _write(tmp_path, _tensors(bn__running_mean=wrong))
  text = _refusal(_load, path)
  got = "inf" if value == 1e300 else str(value)
  assert f"'bn.running_mean' must be finite in float32, got {got} " in text


@pytest.mark.parametrize(
    "suffix", ["pth", "pt", "pkl", "bin", "PTH", "pth.tar"]
)
def test_a_pickle_is_never_opened_and_the_conversion_is_given(tmp_path, suffix):
  class Trap:

    def __reduce__(self):
      return (pytest.fail, ("a pickle was read",))

  path = tmp_path / f"my weights.{suffix}"
  path.write_bytes(pickle.dumps(Trap()))
  for load in (_load, _load_keras):
    text = _refusal(load, path)
    assert "torch.load(sys.argv[1], weights_only=True)" in text
    assert f"'{path}'" in text  # Quoted for a shell: it holds a space.


@pytest.mark.parametrize("load", [_load, _load_keras])
def test_a_pickle_under_another_name_is_damage(tmp_path, load):
  suffix = ".safetensors" if load is _load else ".h5"
  path = tmp_path / f"renamed{suffix}"
  path.write_bytes(pickle.dumps({"conv.1.weight": [1.0]}))
  reason = "got damaged" if load is _load else "signature not found"
  assert reason in _refusal(load, path)


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("load", [_load, _load_keras])
def test_a_cut_file_is_refused(tmp_path, load, share):
  if load is _load:
    path = _write(tmp_path, _tensors())
  else:
    path = backbone_files.write_keras(tmp_path / "a.h5", _keras_tensors())
  whole = path.read_bytes()
  path.write_bytes(whole[: int(share * len(whole))])
  assert "copy or download it again" in _refusal(load, path)


def _without_layer_names(file):
  del file.attrs["layer_names"]


def _number_as_layer_names(file):
  file.attrs["layer_names"] = 3


def _layer_that_is_not_there(file):
  del file["fire2/a"]


def _weight_that_is_a_group(file):
  file["fire2/a"].attrs["weight_names"] = [b"fire2"]


@pytest.mark.parametrize(
    "damage",
    [
        _without_layer_names,
        _number_as_layer_names,
        _layer_that_is_not_there,
        _weight_that_is_a_group,
    ],
)
def test_an_hdf5_file_that_keras_did_not_write_is_refused(tmp_path, damage):
  path = backbone_files.write_keras(tmp_path / "a.h5", _keras_tensors())
  with h5py.File(path, "r+") as file:
    damage(file)
  text = _refusal(_load_keras, path)
  assert "with the layers that Keras' `save_weights` writes, could not" in text


def test_a_keras_file_that_links_to_a_pipe_is_not_waited_for(
    tmp_path, monkeypatch
):
  monkeypatch.setattr(guarded, "_wall_seconds", lambda job: 3.0)
  path = backbone_files.write_keras(tmp_path / "a.h5", _keras_tensors())
  os.mkfifo(tmp_path / "pipe")
  with h5py.File(path, "r+") as file:
    del file["fire2/a"]
    file["fire2/a"] = h5py.ExternalLink(str(tmp_path / "pipe"), "a")
  assert "took longer" in _refusal(_load_keras, path)


def test_a_keras_layer_with_a_third_weight_is_refused(tmp_path):
  path = backbone_files.write_keras(tmp_path / "a.h5", _keras_tensors())
  with h5py.File(path, "r+") as file:
    names = [b"uniform0", b"fire2/a_b", b"uniform0"]
    file["fire2/a"].attrs["weight_names"] = names
  assert "'fire2/a/weight2' is not part" in _refusal(_load_keras, path)


def test_a_damaged_chunk_is_named_when_it_is_read(tmp_path):
  path = backbone_files.write_keras(tmp_path / "a.h5", _keras_tensors())
  with h5py.File(path, "r+") as file:
    kernel = file["fire2/a/uniform0"][()]
    del file["fire2/a/uniform0"]
    dataset = file["fire2/a"].create_dataset(
        "uniform0", data=kernel, chunks=kernel.shape, fletcher32=True
    )
    offset = dataset.id.get_chunk_info(0).byte_offset
  damaged = bytearray(path.read_bytes())
  damaged[offset] ^= 1
  path.write_bytes(damaged)
  assert "must be a whole HDF5 file" in _refusal(_load_keras, path)


def test_a_path_without_a_file_or_of_another_kind_is_refused(tmp_path):
  assert "got none" in _refusal(_load, tmp_path / "weights.safetensors")
  assert "got none" in _refusal(_load, tmp_path)
  path = tmp_path / "weights.npz"
  path.write_bytes(b"1")
  assert ".safetensors file, got .npz" in _refusal(_load, path)
  assert ".h5 or .hdf5 file, got .npz" in _refusal(_load_keras, path)


def test_without_the_package_the_error_names_the_extra(tmp_path, monkeypatch):
  path = tmp_path / "weights.safetensors"
  path.write_bytes(b"1")
  original = builtins.__import__

  def no_safetensors(name, *rest):
    if name == "safetensors":
      raise ImportError(name)
    return original(name, *rest)

  monkeypatch.setattr(builtins, "__import__", no_safetensors)
  assert "pip install 'chain_jax[video]'" in _refusal(_load, path)


def test_a_backbone_knows_the_checksum_of_its_file(tmp_path):
  path = backbone_files.write_keras(
      tmp_path / "a.h5", backbone_files.squeezenet_tensors()
  )
  backbone = loading.load_backbone("squeezenet", path)
  assert len(bytes.fromhex(backbone.weights_checksum)) == 32
  path.write_bytes(path.read_bytes() + b" ")  # HDF5 reads it all the same.
  other = loading.load_backbone("squeezenet", path)
  assert other.weights_checksum != backbone.weights_checksum


def test_a_backbone_takes_its_classifier_and_no_other_tensor(tmp_path):
  tensors = backbone_files.squeezenet_tensors()
  for layer in ("conv10", "conv11"):
    tensors[f"{layer}/kernel"] = np.zeros((1, 512, 1, 1), np.float32)
    tensors[f"{layer}/bias"] = np.zeros(1, np.float32)
    path = backbone_files.write_keras(tmp_path / f"{layer}.h5", tensors)
    if layer == "conv10":
      loading.load_backbone("squeezenet", path)
  load = functools.partial(loading.load_backbone, "squeezenet")
  assert "'conv11/bias' and 1 more are not part" in _refusal(load, path)


def test_a_layer_list_of_absurd_size_is_refused_unread(tmp_path):
  path = tmp_path / "a.h5"
  with h5py.File(path, "w", libver="latest") as file:
    file.attrs.create("layer_names", np.zeros(2**17, "S1"))
  assert "layer_names of 131072 bytes" in _refusal(_load_keras, path)
