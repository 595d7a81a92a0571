"""Small files of random weights, in the layouts that users bring."""

import h5py
import numpy as np

_SQUEEZE_WIDTHS = (16, 16, 32, 32, 48, 48, 64, 64)  # Of fire2 to fire9.


def random_tensors(shapes, seed=0):
  """Returns float32 arrays that keep values of about 1 through the layers."""
  rng = np.random.default_rng(seed)
  tensors = {}
  for name, shape in shapes.items():
    fan_in = max(1, int(np.prod(shape[1:])))
    scale = np.sqrt(2 / fan_in) if len(shape) > 1 else 0.1
    tensors[name] = rng.normal(size=shape, scale=scale).astype(np.float32)
    if name.endswith("running_var") or (
        name.endswith("weight") and not shape[1:]
    ):
      tensors[name] = rng.uniform(0.5, 2, shape).astype(np.float32)
  return tensors


def squeezenet_shapes():
  """Returns `<layer>` -> torch's shape of its kernel, in Keras' names."""
  shapes, channels = {"conv1": (64, 3, 3, 3)}, 64
  for place, width in enumerate(_SQUEEZE_WIDTHS, 2):
    shapes[f"fire{place}/squeeze1x1"] = (width, channels, 1, 1)
    shapes[f"fire{place}/expand1x1"] = (4 * width, width, 1, 1)
    shapes[f"fire{place}/expand3x3"] = (4 * width, width, 3, 3)
    channels = 8 * width
  return shapes


def squeezenet_tensors(seed=0):
  """Returns `<layer>/kernel` in torch's layout and `<layer>/bias`."""
  shapes = squeezenet_shapes()
  return random_tensors(
      {f"{layer}/kernel": shape for layer, shape in shapes.items()}
      | {f"{layer}/bias": shape[:1] for layer, shape in shapes.items()},
      seed,
  )


def write_keras(path, tensors, *, dtype=np.float32):
  """Writes kernels (given in torch's layout) and biases as Keras does."""
  layers = list(dict.fromkeys(name.rpartition("/")[0] for name in tensors))
  with h5py.File(path, "w") as file:
    file.attrs["layer_names"] = np.array(["input", *layers], "S")
    file.create_group("input").attrs["weight_names"] = np.zeros(0)
    for place, layer in enumerate(layers):
      group = file.create_group(layer)
      names = [f"uniform{place}", f"{layer}_b"]  # Nothing to rely on.
      group.attrs["weight_names"] = np.array(names, "S")
      kernel = tensors[f"{layer}/kernel"].transpose(2, 3, 1, 0)
      group.create_dataset(names[0], data=kernel.astype(dtype))
      group.create_dataset(
          names[1], data=tensors[f"{layer}/bias"].astype(dtype)
      )
  return path
