"""Where a result comes from: package versions and the git commit."""

import importlib.metadata
import pathlib
import platform
import subprocess

_PACKAGES = ("chain_jax", "numpy", "jax", "flax", "optax", "scipy", "faiss-cpu")


def package_versions() -> dict[str, str]:
  """Returns the versions of Python and of the packages that shape results.

  Reads the installed metadata, so it imports none of them. A package that is
  not installed is left out.

  >>> sorted(package_versions())[-1]
  'scipy'
  """
  versions = {"python": platform.python_version()}
  for name in _PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return versions


def git_commit() -> str | None:
  """Returns the commit of the checkout this package runs from, if known.

  "-dirty" is appended when tracked files differ from the commit. An installed
  package knows no commit, even inside some other project's repository.
  """
  root = pathlib.Path(__file__).resolve().parent.parent
  if not (root / ".git").exists():
    return None
  try:
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
  except (OSError, subprocess.SubprocessError):
    return None
  return f"{commit}-dirty" if changes else commit


def _git(root: pathlib.Path, *arguments: str) -> str:
  command = ["git", "-C", str(root), *arguments]
  done = subprocess.run(
      command, check=True, capture_output=True, text=True, timeout=10
  )
  return done.stdout.strip()
