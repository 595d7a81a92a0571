"""python -m chain_jax.main --config=configs/quickstart.py [--workdir=DIR]

Trains or resumes, exports codes, evaluates them. Any setting can be given as
--config.FIELD=VALUE, such as --config.model.num_bits=32.

Exit codes: 0 done; 1 failed; 2 bad usage or input; 75 told to stop by SIGTERM
or by the cloud, with what was learnt saved: run the same command again.
"""

import logging
import os
import sys
import threading

from absl import flags
from ml_collections import config_flags

from chain_jax import (
    cloud_notice,
    config_rules,
    errors,
    main_flags,
    stop_notice,
)

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "File that describes the run, such as configs/ucf101.py."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; runs/<config name> by default."
)
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "export", "evaluate"],
    "train does all; export starts at the newest checkpoint; evaluate at the"
    " exported codes.",
)


def main(arguments: list[str]) -> None:
  """Parses the flags and runs.

  Args:
    arguments: `sys.argv`.

  Raises:
    InputError: If a flag, a field or the data is at fault.
    RunError: If the run fails.
  """
  main_flags.parse(arguments)
  config = _CONFIG.value
  if config is None:
    raise errors.InputError(
        "--config must name a file; try --config=configs/quickstart.py, or"
        " --help."
    )
  # At once, and again when the devices are known.
  config_rules.validate(config, num_devices=1)
  # Deferred: --help and what the user got wrong need no jax.
  from chain_jax import run

  path = _WORKDIR.value or os.path.join("runs", config.name)
  run.run(config, path=path, mode=_MODE.value)


def _quieten_libraries() -> None:
  """Keeps what background threads log out of the way of our one line.

  What fails there is raised in the main thread too.
  """
  for name in ("absl", "asyncio"):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  threading.excepthook = lambda _: None


if __name__ == "__main__":
  _quieten_libraries()
  stop_notice.install()
  cloud_notice.watch(stop_notice.request)
  exit_code = errors.run_command(lambda: main(sys.argv))
  if exit_code:
    # Threads that orbax left waiting for a save that failed never end.
    sys.stdout.flush()
    os._exit(exit_code)
