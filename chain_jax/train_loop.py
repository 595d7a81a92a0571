"""The training story, top to bottom: start or resume, step, save, stop."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh

from chain_jax import (
    checkpoint,
    device_cache,
    observation,
    prefetch,
    sharding,
    step_recorder,
    train_state,
    train_step,
    validation,
)
from chain_jax import config as config_lib
from chain_jax import optimizer as optimizer_lib
from chain_jax.data import pipeline, pooling, sources
from chain_jax.data import splits as splits_lib
from chain_jax.data.training_plan import TrainingPlan
from chain_jax.losses import total
from chain_jax.workdir import Workdir

# Enough videos for the mean of a feature; more only costs time.
_STATISTICS_VIDEOS = 2048


class Trained(NamedTuple):
  """What training leaves behind."""

  state: train_state.TrainState
  seconds: float  # Spent in training, over all restarts.


class Plan(NamedTuple):
  """Which videos a run sees, and for how long."""

  batches: TrainingPlan
  num_steps: int


def make_plan(
    config: config_lib.ExperimentConfig, splits: splits_lib.Splits
) -> Plan:
  """Plans a run.

  Raises:
    InputError: If a batch is larger than the train split.
  """
  settings = config.train
  by_shards = config.data.shuffle == "shards"
  batches = TrainingPlan(
      len(splits.train),
      batch_size=settings.batch_size,
      seed=settings.seed,
      shard_starts=splits.train.shard_starts if by_shards else None,
      shuffle_window=config.data.shuffle_window,
  )
  steps = batches.steps_per_epoch * settings.num_epochs
  return Plan(batches, min(steps, settings.max_steps or steps))


def train(
    config: config_lib.ExperimentConfig,
    workdir: Workdir,
    splits: splits_lib.Splits,
    plan: Plan,
    mesh: Mesh,
) -> Trained:
  """Trains to the end, from the newest checkpoint if there is one.

  Args:
    config: The run.
    workdir: Holds its checkpoints and metrics.
    splits: Its videos.
    plan: From `make_plan`.
    mesh: Its devices.

  Returns:
    The trained state.

  Raises:
    InputError: If the data does not fit the config.
    RunError: On a non-finite loss or a failed write; the last good
      checkpoint stays.
  """
  last_step = plan.num_steps
  model = train_state.make_model(config.model)
  schedule = optimizer_lib.make_schedule(
      learning_rate=config.optimizer.learning_rate,
      warmup_steps=config.optimizer.warmup_steps,
      num_steps=last_step,
  )
  optimizer = make_optimizer(config.optimizer, schedule)
  checkpoints = checkpoint.Checkpoints(
      workdir.checkpoints, keep=config.train.keep_checkpoints
  )
  initialise = make_initialiser(config, model, optimizer)
  restored = checkpoints.restore(train_state.abstract_state(initialise, mesh))
  state, seconds = restored or (_start(config, initialise, splits, mesh), 0.0)
  start_step = int(state.step)
  if restored and jax.process_index() == 0:
    print(f"resuming after step {start_step} of {last_step}", flush=True)
  train_step_fn = make_step(config, model, optimizer, mesh, splits.train)
  recorder, tracer, close = observation.start(
      config, workdir, num_devices=mesh.size, steps=range(start_step, last_step)
  )
  try:
    return _loop(
        config,
        state,
        seconds,
        train_step_fn=tracer.traced(train_step_fn, steps_done=start_step),
        batches=_make_batches(config, splits, plan, start_step, mesh),
        validate=validation.make_validator(config, model, splits, mesh),
        schedule=schedule,
        recorder=recorder,
        checkpoints=checkpoints,
        last_step=last_step,
    )
  finally:
    close()
    checkpoints.close()


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
    last_step: int,
) -> Trained:
  settings = config.train
  start_step, start_time = int(state.step), time.monotonic() - seconds

  def is_due(step: int, every: int) -> bool:
    return step == last_step or (every > 0 and step % every == 0)

  with batches as iterator:
    steps = range(start_step + 1, last_step + 1)
    for step, batch in zip(steps, recorder.timed(iterator), strict=True):
      state, metrics = train_step_fn(state, batch)
      recorder.add(metrics)
      saves = is_due(step, settings.checkpoint_every_steps)
      if saves or is_due(step, settings.log_every_steps):
        # Before a save: what is not finite never becomes a checkpoint.
        recorder.flush(step, learning_rate=float(schedule(step - 1)))
      if is_due(step, settings.validate_every_steps):
        with recorder.measure("validation"):
          scores = validate(state)
        if scores:
          recorder.write(step, scores)
      if saves:
        with recorder.measure("checkpoint"):
          checkpoints.save(
              state,
              config=dataclasses.asdict(config),
              seconds=time.monotonic() - start_time,
          )
  with recorder.measure("checkpoint"):
    checkpoints.wait()
  recorder.finish()
  return Trained(state, time.monotonic() - start_time)


def make_optimizer(
    config: config_lib.OptimizerConfig, schedule: optax.Schedule
) -> optax.GradientTransformation:
  """Makes the optimizer that the config describes."""
  return optimizer_lib.make_optimizer(
      schedule,
      weight_decay=config.weight_decay,
      gradient_clip=config.gradient_clip,
      adam_b2=config.adam_b2,
  )


def make_initialiser(
    config: config_lib.ExperimentConfig,
    model: Any,
    optimizer: optax.GradientTransformation,
) -> Any:
  """Makes the function seed -> state for the config's shapes."""
  return train_state.make_initialiser(
      model,
      optimizer,
      num_frames=config.data.num_frames,
      feature_dim=config.data.feature_dim,
  )


def _start(
    config: config_lib.ExperimentConfig,
    initialise: Any,
    splits: splits_lib.Splits,
    mesh: Mesh,
) -> train_state.TrainState:
  """Draws the parameters and measures the train features."""
  whole = sharding.replicated(mesh)
  state = jax.jit(initialise, out_shardings=whole)(config.train.seed)
  mean, std = pooling.feature_statistics(
      splits.train,
      max_videos=_STATISTICS_VIDEOS,
      seed=config.train.seed,
      l2_normalise=config.model.l2_normalise,
  )
  scaling = train_state.feature_scaling(
      mean, std, normalisation=config.model.normalisation
  )
  return state.replace(
      statistics=train_state.fill_statistics(state.statistics, *scaling, mesh)
  )


def make_step(
    config: config_lib.ExperimentConfig,
    model: Any,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    source: sources.VideoSource,
) -> Callable[..., Any]:
  """Makes the jitted step that the config describes, for videos of `source`."""
  loss = config.loss
  return train_step.make_train_step(
      model,
      optimizer,
      mesh,
      weights=total.LossWeights(
          contrastive=loss.contrastive,
          frame_order=loss.frame_order,
          scene_change=loss.scene_change,
          quantisation=loss.quantisation,
          bit_balance=loss.bit_balance,
          decorrelation=loss.decorrelation,
      ),
      temperature=loss.temperature,
      positive_prior=loss.positive_prior,
      scene_threshold_std=loss.scene_threshold_std,
      scaling=source.scaling,
      augmentation=splits_lib.make_augmentation(config.augment, source),
      seed=config.train.seed,
  )


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
