"""Runs the tasks of a preparation: here, as one of many, or under Beam."""

import concurrent.futures
import contextlib
import multiprocessing
import shlex
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from chain_jax import parent_process, progress
from chain_jax.errors import InputError, RunError
from chain_jax.preparation import finish, tasks
from chain_jax.preparation.plan import Plan, claim_output


class How(NamedTuple):
  """Where the tasks run.

  Attributes:
    num_workers: Processes of this machine; 0 works in this one.
    task: (i, n): only tasks i, i + n, ...: this is one of n jobs.
    runner: Of Apache Beam, such as "DirectRunner"; "" = without Beam.
    runner_options: Of Beam's pipeline, as on a command line.
    strict: Fail when something was skipped.
  """

  num_workers: int = 0
  task: tuple[int, int] = (0, 1)
  runner: str = ""
  runner_options: str = ""
  strict: bool = False


# Reads the input of one task; picklable.
Read = Callable[[int], Iterable[tasks.Item]]
# Reads several tasks in turn, each by a stream of its own.
ReadMany = Callable[[list[int]], Iterator[Iterable[tasks.Item]]]


def prepare(
    plan: Plan, read: Read, how: How, *, read_many: ReadMany | None = None
) -> None:
  """Does what is left of a preparation, and prints what came out.

  Args:
    plan: The preparation.
    read: Reads the input of a task, also in another process.
    how: Where.
    read_many: Reads tasks in this process, where that is better than one by
      one; it is then what `num_workers` processes work for.

  Raises:
    InputError: If the output folder is not this preparation's, or `strict`
      and something was skipped.
    RunError: If something cannot be written.
  """
  plan.rule.check()
  claim_output(plan)
  first, step = how.task
  mine = range(first, plan.num_tasks, step)
  waiting = [task for task in mine if not tasks.is_done(plan, task)]
  if len(waiting) < len(mine):
    print(f"{len(mine) - len(waiting)} of {len(mine)} shards are done already")
  if how.runner:
    _run_under_beam(plan, read, waiting, how)
  else:
    done = _run_here(plan, read, waiting, how, read_many)
    # `read_many` tells itself how far it is.
    for _ in progress.track(
        done,
        total=len(waiting),
        what="prepare",
        unit="shards",
        shown=read_many is None,
    ):
      pass
  left = [t for t in range(plan.num_tasks) if not tasks.is_done(plan, t)]
  if left:
    print(
        f"{plan.num_tasks - len(left)} of {plan.num_tasks} shards are done; the"
        " job that does the last one finishes the dataset, or any job run again"
    )
    return
  manifest = finish.finish(plan)
  print(finish.format_summary(manifest))
  print(f"{plan.output}: this dataset is complete")
  if how.strict and manifest["skipped"]:
    raise InputError(
        f"--strict allows nothing to be skipped, got {len(manifest['skipped'])}"
        f" (see {plan.folder / 'manifest.json'}); mend or remove these inputs"
        " and prepare into a new --output."
    )


def run_task(plan: Plan, read: Read, task: int) -> int:
  """Does one task; what worker processes and Beam call."""
  tasks.write_task(plan, task, read(task))
  return task


def _run_here(
    plan: Plan,
    read: Read,
    waiting: list[int],
    how: How,
    read_many: ReadMany | None,
) -> Iterator[int]:
  if read_many:
    for task, items in zip(waiting, read_many(waiting), strict=True):
      tasks.write_task(plan, task, items)
      yield task
  elif not how.num_workers or len(waiting) < 2:
    for task in waiting:
      yield run_task(plan, read, task)
  else:
    yield from _run_in_processes(plan, read, waiting, how.num_workers)


def _run_in_processes(
    plan: Plan, read: Read, waiting: list[int], num_workers: int
) -> Iterator[int]:
  executor = concurrent.futures.ProcessPoolExecutor(
      min(num_workers, len(waiting)),
      mp_context=multiprocessing.get_context("spawn"),
      initializer=parent_process.end_with_parent,
  )
  try:
    with _deaf_to_interrupts():
      futures = [executor.submit(run_task, plan, read, t) for t in waiting]
    for future in concurrent.futures.as_completed(futures):
      yield future.result()
  except concurrent.futures.BrokenExecutor as error:
    raise RunError(
        "a worker process ended unexpectedly, perhaps for want of memory; run"
        " the same command again, with fewer --num_workers."
    ) from error
  finally:
    executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
  """Starts processes that Ctrl-C does not reach: the run itself ends them."""
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_under_beam(
    plan: Plan, read: Read, waiting: list[int], how: How
) -> None:
  try:
    import apache_beam as beam
    from apache_beam.options import pipeline_options
  except ImportError as error:
    raise InputError(
        "--runner needs Apache Beam, which is not installed; install"
        " 'chain_jax[beam]', or use --task=i/n instead."
    ) from error
  try:
    options = pipeline_options.PipelineOptions(
        [f"--runner={how.runner}", *shlex.split(how.runner_options)]
    )
    pipeline = beam.Pipeline(options=options)
  except (ValueError, SystemExit) as error:
    raise InputError(
        "--runner and --runner_options must be what Apache Beam knows, got"
        f" {how.runner!r} and {how.runner_options!r} ({error})."
    ) from error
  try:
    with pipeline:
      _ = (
          pipeline
          | beam.Create(waiting)
          | beam.Reshuffle()
          | beam.Map(lambda task: run_task(plan, read, task))
      )
  # What a task raises comes back in Beam's own wrapping.
  except Exception as error:
    raise RunError(
        f"Apache Beam must run to its end, got {str(error)[-300:]}; run the same"
        " command again, finished record files stay."
    ) from error
