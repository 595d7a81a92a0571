"""Runs `main` and says on standard output when it is in a phase.

Not a test: `python tests/slowed_run.py PHASE GRACE_SECONDS FLAG...`. What is
slowed sits in C code, as a compiler does, or in a thread of the library's.
"""

import hashlib
import logging
import runpy
import sys
import time

import jax
import orbax.checkpoint as ocp

from chain_jax import (
    codes,
    comparison,
    retrieval_metrics,
    run,
    step_recorder,
    stop_notice,
)


def _stay_in_c():
  hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)


def _slow_down(phase, owner, name, *, at_call=1, before=None, after=None):
  """Announces the phase at a call of a function, before or after its work."""
  work, calls = getattr(owner, name), []

  def slowed(*arguments, **settings):
    calls.append(None)
    is_it = len(calls) == at_call
    if is_it and before:
      print(f"in {phase}", flush=True)
      before()
    found = work(*arguments, **settings)
    if is_it and after:
      print(f"in {phase}", flush=True)
      after()
    return found

  setattr(owner, name, slowed)


class _Compiling(logging.Handler):
  """Announces that the training step goes to the compiler."""

  def emit(self, record):
    if record.getMessage().startswith("Compiling jit(step)"):
      print("in compile", flush=True)


def _prepare(phase):
  splits = run.splits_lib
  if phase == "start":
    _slow_down(phase, splits, "make_splits", before=_stay_in_c)
  elif phase == "compile":
    jax.config.update("jax_log_compiles", True)
    logging.getLogger("jax").addHandler(_Compiling())
    logging.getLogger("jax").propagate = False
  elif phase == "step":
    recorder = step_recorder.StepRecorder
    _slow_down(
        phase, recorder, "add", at_call=3, before=lambda: time.sleep(0.5)
    )
  elif phase in ("save", "endless_save"):
    seconds = 1.5 if phase == "save" else 600.0
    _slow_down(
        phase,
        ocp.CompositeCheckpointHandler,  # Before the last rename.
        "finalize",
        before=lambda: time.sleep(seconds),
    )
  elif phase == "validation":
    _slow_down(phase, retrieval_metrics, "evaluate_codes", before=_stay_in_c)
  elif phase == "export":
    _slow_down(phase, codes, "_write_files", at_call=2, after=_stay_in_c)
  elif phase == "evaluation":
    _slow_down(phase, comparison, "evaluate_run", before=_stay_in_c)


if __name__ == "__main__":
  _prepare(sys.argv[1])
  stop_notice.GRACE_SECONDS = float(sys.argv[2])
  sys.argv = sys.argv[:1] + sys.argv[3:]
  runpy.run_module("chain_jax.main", run_name="__main__", alter_sys=True)
