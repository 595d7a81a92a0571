"""Runs a run as one of several processes of this machine; not a test.

`python tests/one_of_several.py PORT NUM_PROCESSES PROCESS_ID WORKDIR FIELD=VALUE...`
"""

import json
import os
import sys

import jax
import tiny

from chain_jax import errors, run, stop_notice

if __name__ == "__main__":
  port, num_processes, process_id, path, *changes = sys.argv[1:]
  stop_notice.install()
  jax.config.update("jax_enable_preemption_service", False)
  jax.distributed.initialize(
      f"localhost:{port}", int(num_processes), int(process_id)
  )
  config = tiny.tiny_config(
      **{
          name: json.loads(value)
          for name, _, value in (one.partition("=") for one in changes)
      }
  )
  code = errors.run_command(lambda: run.run(config, path=path, mode="train"))
  jax.distributed.shutdown()
  os._exit(code)
