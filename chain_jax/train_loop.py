"""The training story, top to bottom: start or resume, step, save, stop."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh

from chain_jax import (
    agreement,
    checkpoint,
    device_cache,
    errors,
    factories,
    neighbour_table,
    observation,
    prefetch,
    step_recorder,
    stop_notice,
    train_state,
    validation,
)
from chain_jax import config as config_lib
from chain_jax import optimizer as optimizer_lib
from chain_jax.data import detail_bits, pipeline, pooling
from chain_jax.data import splits as splits_lib
from chain_jax.data.neighbour_plan import NeighbourPlan
from chain_jax.data.training_plan import TrainingPlan
from chain_jax.models import chain
from chain_jax.workdir import Workdir

# Enough videos for the mean of a feature; more only costs time.
_STATISTICS_VIDEOS = 2048


class Trained(NamedTuple):
  """What training leaves behind."""

  state: train_state.TrainState
  seconds: float  # Spent in training, over all restarts.


class Plan(NamedTuple):
  """Which videos a run sees, and for how long."""

  batches: TrainingPlan | NeighbourPlan
  num_steps: int


def make_plan(
    config: config_lib.ExperimentConfig, splits: splits_lib.Splits
) -> Plan:
  """Plans a run.

  Raises:
    InputError: If a batch is larger than the train split, or the run too long.
  """
  settings = config.train
  by_shards = config.data.shuffle == "shards"
  batches = TrainingPlan(
      len(splits.train),
      batch_size=neighbour_table.num_drawn(config),
      seed=settings.seed,
      shard_starts=splits.train.shard_starts if by_shards else None,
      shuffle_window=config.data.shuffle_window,
  )
  steps = batches.steps_per_epoch * settings.num_epochs
  steps = min(steps, settings.max_steps or steps)
  if steps >= 2**31:
    raise errors.InputError(
        "`train.num_epochs` must make less than 2**31 steps, got"
        f" {settings.num_epochs}, which are {steps}; set `train.max_steps`."
    )
  return Plan(batches, steps)


def train(
    config: config_lib.ExperimentConfig,
    workdir: Workdir,
    splits: splits_lib.Splits,
    plan: Plan,
    mesh: Mesh,
    checkpoints: checkpoint.Checkpoints,
) -> Trained:
  """Trains to the end, from the newest checkpoint if there is one.

  Args:
    config: The run.
    workdir: Holds its metrics.
    splits: Its videos.
    plan: From `make_plan`.
    mesh: Its devices.
    checkpoints: Of this run; closed at the end.

  Returns:
    The trained state.

  Raises:
    InputError: If the data does not fit the config.
    RunError: On a non-finite loss or a failed write; the last good
      checkpoint stays.
    Stopped: After a notice to stop, with the state saved.
  """
  last_step = plan.num_steps
  plan = _with_neighbours(config, workdir, splits, plan)
  model = factories.make_model(config)
  schedule = optimizer_lib.make_schedule(
      learning_rate=config.optimizer.learning_rate,
      warmup_steps=config.optimizer.warmup_steps,
      num_steps=last_step,
  )
  optimizer = factories.make_optimizer(config.optimizer, schedule)
  initialise = factories.make_initialiser(config, model, optimizer)
  with contextlib.ExitStack() as stack:
    # Whatever ends the run, what is being saved is committed.
    stack.callback(checkpoints.close)
    target = train_state.abstract_state(initialise, mesh)
    restored = checkpoints.restore(target, last_step=last_step)
    state, seconds = restored or _start(config, model, initialise, splits, mesh)
    start_step = int(state.step)
    _say_where_it_begins(config, start_step, last_step)
    step_fn = factories.make_step(config, model, optimizer, mesh, splits.train)
    recorder, tracer, close = observation.start(
        config,
        workdir,
        num_devices=mesh.size,
        steps=range(start_step, last_step),
    )
    stack.callback(close)
    return _loop(
        config,
        state,
        seconds,
        train_step_fn=tracer.traced(step_fn, steps_done=start_step),
        batches=_make_batches(config, splits, plan, start_step, mesh),
        validate=validation.make_validator(config, model, splits, mesh),
        schedule=schedule,
        recorder=recorder,
        checkpoints=checkpoints,
        votes=agreement.StopVotes(mesh),
        last_step=last_step,
    )


def _with_neighbours(
    config: config_lib.ExperimentConfig,
    workdir: Workdir,
    splits: splits_lib.Splits,
    plan: Plan,
) -> Plan:
  batches = neighbour_table.with_neighbours(
      config, workdir, splits.train, plan.batches
  )
  return plan._replace(batches=batches)


def _say_where_it_begins(
    config: config_lib.ExperimentConfig, start_step: int, last_step: int
) -> None:
  folder = config.train.checkpoint_folder
  if jax.process_index() != 0:
    return
  if start_step:
    print(f"resuming after step {start_step} of {last_step}", flush=True)
  elif folder:  # A misspelt one must not pass for a new run unseen.
    print(f"{folder}: no checkpoint yet, training begins", flush=True)


def _loop(
    config: config_lib.ExperimentConfig,
    state: train_state.TrainState,
    seconds: float,
    *,
    train_step_fn: Callable[..., Any],
    batches: Any,
    validate: Callable[[train_state.TrainState], dict[str, float]],
    schedule: optax.Schedule,
    recorder: step_recorder.StepRecorder,
    checkpoints: checkpoint.Checkpoints,
    votes: agreement.StopVotes,
    last_step: int,
) -> Trained:
  settings = config.train
  start_step, start_time = int(state.step), time.monotonic() - seconds

  def is_due(step: int, every: int) -> bool:
    return step == last_step or (every > 0 and step % every == 0)

  saving = stop_notice.saving_first(checkpoints.what_counts)
  with saving as told, batches as iterator:
    steps = range(start_step + 1, last_step + 1)
    for step, batch in zip(steps, recorder.timed(iterator), strict=True):
      state, metrics = train_step_fn(state, batch)
      recorder.add(metrics)
      told.begin()  # It is compiled: from here on a notice waits for a save.
      stops = votes.stops_here()
      validates = is_due(step, settings.validate_every_steps)
      # Before a validation too, in which no notice can be heard.
      saves = (
          stops or validates or is_due(step, settings.checkpoint_every_steps)
      )
      if saves or is_due(step, settings.log_every_steps):
        # Before a save: what is not finite never becomes a checkpoint.
        recorder.flush(step, learning_rate=float(schedule(step - 1)))
      if saves:
        with recorder.measure("checkpoint"):
          checkpoints.save(state, seconds=time.monotonic() - start_time)
      if stops:
        told.at_safe_point()
        checkpoints.wait()
        raise stop_notice.stopped(f"after step {step} of {last_step}, saved")
      if validates:
        with recorder.measure("validation"):
          scores = validate(state)
        if scores:
          recorder.write(step, scores)
    with recorder.measure("checkpoint"):
      checkpoints.wait()
  recorder.finish()
  return Trained(state, time.monotonic() - start_time)


def _start(
    config: config_lib.ExperimentConfig,
    model: chain.ChainModel,
    initialise: Any,
    splits: splits_lib.Splits,
    mesh: Mesh,
) -> tuple[train_state.TrainState, float]:
  """Draws the parameters and measures the train features; after 0 seconds."""
  state = train_state.start(initialise, config.train.seed, mesh)
  measured = pooling.feature_statistics(
      splits.train,
      max_videos=_STATISTICS_VIDEOS,
      seed=config.train.seed,
      l2_normalise=config.model.l2_normalise,
  )
  mean, scale = train_state.feature_scaling(
      measured.mean, measured.std, normalisation=config.model.normalisation
  )
  values = {"mean": mean, "scale": scale}
  if model.num_detail_bits:
    values |= detail_bits.fit_detail_directions(
        (measured.video_means - mean) * scale, num_bits=model.num_detail_bits
    )._asdict()
  statistics = train_state.fill_statistics(state.statistics, values, mesh)
  return state.replace(statistics=statistics), 0.0


@contextlib.contextmanager
def _make_batches(
    config: config_lib.ExperimentConfig,
    splits: splits_lib.Splits,
    plan: Plan,
    start_step: int,
    mesh: Mesh,
) -> Iterator[Iterator[pipeline.Batch]]:
  """Makes the batches from a step on, on the devices."""
  settings = {
      "seed": config.train.seed,
      "steps": range(start_step, plan.num_steps),
      "views": splits_lib.make_view_settings(
          config.augment, num_frames=config.data.num_frames
      ),
  }
  if config.data.cache_on_device:
    cache = device_cache.fill(splits.train, mesh)
    yield device_cache.make_batches(cache, plan.batches, mesh, **settings)
    return
  with pipeline.make_training_batches(
      splits.train,
      plan.batches,
      host=jax.process_index(),
      num_hosts=jax.process_count(),
      num_workers=config.data.num_workers,
      **settings,
  ) as batches:
    yield prefetch.to_devices(batches, mesh)
