"""`tpu_vm.sh watch` starts again what should be, so often, and nothing else."""

import itertools

import fake_commands
import pytest
from fake_commands import Answer

_SETTINGS = {
    "PROJECT": "p",
    "ZONE": "z",
    "ACCELERATOR_TYPE": "v5litepod-8",
    "RETRIES": "1",
}
_ABSENT = Answer(1, "", "NOT_FOUND")
_DOWN = Answer(255, "", "ssh: connection timed out")


def _hosts(*states):
  lines = [f"chain_jax_worker host-{i} {s}\n" for i, s in enumerate(states)]
  return Answer(0, "".join(lines))


@pytest.fixture
def watch(tmp_path):
  """Runs watch; the looks are what the hosts, queue and VM answer in turn."""
  fakes = fake_commands.FakeCommands(tmp_path)
  fakes.add("sleep")
  fakes.add("git")

  def run(looks, *, queue=("ACTIVE",), vm="READY", **settings):
    states = [s if isinstance(s, Answer) else Answer(0, s) for s in queue]
    fakes.add(
        "gcloud",
        ("worker.sh status", looks),
        ("queued-resources describe", states),
        ("tpu-vm describe", [Answer(0, vm)]),
    )
    done = fakes.run("tpu_vm.sh", "watch", "--f", **(_SETTINGS | settings))
    verbs = [call[4] for call in fakes.calls("gcloud")]
    starts = [c for c in fakes.calls() if c[-1].endswith("worker.sh start --f")]
    return done, len(starts), verbs

  return run


_DONE = _hosts("exited_0", "exited_0")


def test_a_run_that_is_done_is_not_started_again(watch):
  done, starts, _ = watch([_DONE])
  assert (done.returncode, starts) == (0, 0)


@pytest.mark.parametrize(
    "states",
    [
        ("exited_75", "exited_75"),
        ("exited_76", "lost"),
        ("exited_0", "exited_76"),
        ("not_started", "not_started"),
        ("running", "not_started"),
    ],
)
def test_a_run_that_can_go_on_is_started_again(watch, states):
  running = _hosts("running", "running")
  done, starts, verbs = watch([_hosts(*states), running, _DONE])
  assert (done.returncode, starts) == (0, 1)
  assert "create" not in verbs and "delete" not in verbs


@pytest.mark.parametrize("state", ["exited_75", "exited_76", "lost"])
def test_interruptions_do_not_count_as_failures(watch, state):
  done, starts, _ = watch([_hosts("exited_0", state)] * 5 + [_DONE])
  assert (done.returncode, starts) == (0, 5)


def test_a_run_is_left_alone_until_all_its_hosts_have_ended(watch):
  looks = [_hosts("running", "exited_76"), _hosts("exited_1", "running"), _DONE]
  done, starts, _ = watch(looks)
  assert (done.returncode, starts) == (0, 0)


@pytest.mark.parametrize(
    "states",
    list(itertools.permutations(["exited_2", "exited_76", "exited_1"])),
)
def test_refused_input_on_any_host_is_never_tried_again(watch, states):
  done, starts, _ = watch([_hosts(*states)])
  assert (done.returncode, starts) == (2, 0)
  assert "refused its input" in done.stderr


@pytest.mark.parametrize("state", ["exited_1", "exited_137"])
def test_a_failing_run_is_started_again_three_times(watch, state):
  done, starts, _ = watch([_hosts("exited_76", state)])
  assert (done.returncode, starts) == (1, 3)
  assert "failed 4 times" in done.stderr


def test_preemptions_without_end_are_given_up(watch):
  done, starts, _ = watch([_hosts("exited_75")], MAX_RESTARTS="7")
  assert (done.returncode, starts) == (1, 7)


def test_a_preempted_vm_is_replaced_and_the_run_goes_on(watch):
  # Seen once by watch, once by resume; create finds nothing, setup all.
  queue = ("SUSPENDED", "SUSPENDED", _ABSENT, "ACTIVE")
  done, starts, verbs = watch([_DONE], queue=queue)
  assert (done.returncode, starts) == (0, 1)
  assert (verbs.count("delete"), verbs.count("create")) == (1, 1)


def test_watch_on_nothing_creates_it(watch):
  queue = (_ABSENT, _ABSENT, _ABSENT, "ACTIVE")
  done, starts, verbs = watch([_DONE], queue=queue)
  assert (done.returncode, starts) == (0, 1)
  assert (verbs.count("delete"), verbs.count("create")) == (0, 1)


def test_a_vm_that_the_queue_still_thinks_active_is_replaced(watch):
  queue = ("ACTIVE", "ACTIVE", _ABSENT, "ACTIVE")
  done, starts, verbs = watch([_DOWN, _DONE], queue=queue, vm="PREEMPTED")
  assert (done.returncode, starts) == (0, 1)
  assert (verbs.count("delete"), verbs.count("create")) == (1, 1)


def test_a_short_loss_of_the_connection_changes_nothing(watch):
  done, starts, verbs = watch([_DOWN] * 9 + [_DONE])
  assert (done.returncode, starts) == (0, 0)
  assert "delete" not in verbs


def test_a_host_out_of_reach_for_ten_looks_is_replaced(watch):
  queue = ["ACTIVE"] * 11 + [_ABSENT, "ACTIVE"]
  done, _, verbs = watch([_DOWN] * 10 + [_DONE], queue=queue)
  assert done.returncode == 0 and verbs.count("delete") == 1


def test_a_start_that_fails_is_tried_again_and_bounded(watch):
  done, starts, _ = watch(
      [_hosts("lost"), _DOWN, _hosts("lost")], MAX_RESTARTS="3"
  )
  assert (done.returncode, starts) == (1, 3)
