"""python -m chain_jax.main --config=configs/quickstart.py [--workdir=DIR]

Trains or resumes, exports codes, evaluates them. Any setting can be given as
--config.FIELD=VALUE, such as --config.model.num_bits=32.

On several hosts the same command runs on each. A TPU pod and Slurm's srun say by
themselves which host is which; elsewhere add --coordinator=HOST:PORT of process
0, --num_processes=N and --process_id=0 to N - 1.

Exit codes: 0 done; 1 failed; 2 bad usage or input; 75 told to stop by SIGTERM
or by the cloud, with what was learnt saved; 76 another process of the run
failed, died or hangs. After 75 and 76 run the same command again.
"""

import logging
import os
import sys
import threading
import traceback

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
_DISTRIBUTED = flags.DEFINE_enum(
    "distributed",
    "auto",
    ["auto", "on", "off"],
    "Whether this is one process of several: auto asks the environment.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0; its port must be free."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Processes of the run, with --coordinator."
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Number of this process, with --coordinator."
)
_START_TIMEOUT = flags.DEFINE_float(
    "start_timeout", 45.0, "Seconds in which all processes must be there."
)
_TRACEBACK = flags.DEFINE_bool(
    "traceback", False, "On an error, show where in the code it came from."
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
  if _TRACEBACK.value:
    errors.show_tracebacks()
  config = _CONFIG.value
  if config is None:
    raise errors.InputError(
        "--config must name a file; try --config=configs/quickstart.py, or"
        " --help."
    )
  # At once, and again when the devices are known.
  config_rules.validate(config, num_devices=1)
  main_flags.expand_home(config)
  # Deferred: --help and what the user got wrong need no jax.
  from chain_jax import multihost, run

  start_timeout = _START_TIMEOUT.value
  place = multihost.find_place(
      _DISTRIBUTED.value,
      _COORDINATOR.value,
      _NUM_PROCESSES.value,
      _PROCESS_ID.value,
      start_timeout=start_timeout,
  )
  path = _WORKDIR.value or os.path.join("runs", config.name)
  with multihost.joined(
      place, config, mode=_MODE.value, start_timeout=start_timeout
  ):
    run.run(config, path=path, mode=_MODE.value)


def _quieten_libraries() -> None:
  """Keeps what background threads log out of the way of our one line.

  What fails there is raised in the main thread too.
  """
  for name in ("absl", "asyncio"):
    logging.getLogger(name).setLevel(logging.CRITICAL)
  threading.excepthook = lambda _: None
  # The process that gives shared memory back when a run ends at once.
  sys.warnoptions.append("ignore:resource_tracker")


def _run() -> None:
  stop_notice.install()
  cloud_notice.watch(stop_notice.request)
  main(sys.argv)


if __name__ == "__main__":
  _quieten_libraries()
  try:
    exit_code = errors.run_command(_run, goes_on_unread=True)
  except Exception:  # A bug, or a device that failed: others end with us.
    traceback.print_exc()
    exit_code = 1
  if exit_code:
    # Threads that orbax left waiting for a save that failed never end.
    os._exit(exit_code)
