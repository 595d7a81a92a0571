"""tpu_vm.sh makes exactly the calls it should, and no others."""

import re
import shutil
import subprocess

import fake_commands
import pytest
from fake_commands import Answer

_SETTINGS = {
    "PROJECT": "p",
    "ZONE": "z",
    "ACCELERATOR_TYPE": "v5litepod-16",
    "NAME": "n",
    "POLL_SECONDS": "30",
}
_QUEUE = ["gcloud", "compute", "tpus", "queued-resources"]
_VM = ["gcloud", "compute", "tpus", "tpu-vm"]
_WHERE = ["--project=p", "--zone=z"]
_DESCRIBE = [*_QUEUE, "describe", "n", *_WHERE, "--format=value(state.state)"]
_CREATE = [
    *[*_QUEUE, "create", "n", *_WHERE, "--node-id=n"],
    "--accelerator-type=v5litepod-16",
    *["--runtime-version=v2-alpha-tpuv5-lite", "--quiet"],
]
_DELETE = [*_QUEUE, "delete", "n", *_WHERE, "--force", "--quiet"]
_SSH = [*_VM, "ssh", "n", *_WHERE, "--worker=all", "--quiet"]
_WORKER = "--command=bash chain_jax_source/launch/worker.sh "
_ABSENT = Answer(1, "", "ERROR: (gcloud) NOT_FOUND: Resource 'n' was not found")
_FLAKY = Answer(1, "", "ERROR: (gcloud) UNAVAILABLE: try again")


def _states(*states):
  answers = [
      s if isinstance(s, Answer) else Answer(0, s + "\n") for s in states
  ]
  return ("queued-resources describe", answers)


@pytest.fixture
def fakes(tmp_path):
  fakes = fake_commands.FakeCommands(tmp_path)
  fakes.add("sleep")
  return fakes


def _run(fakes, *words, **settings):
  return fakes.run("tpu_vm.sh", *words, **(_SETTINGS | settings))


def test_create_asks_for_a_queued_resource_once(fakes):
  fakes.add("gcloud", _states(_ABSENT))
  assert _run(fakes, "create").returncode == 0
  assert fakes.calls() == [_DESCRIBE, _CREATE]


def test_create_on_spot_with_more_flags_adds_them(fakes):
  fakes.add("gcloud", _states(_ABSENT))
  more = "--internal-ips --service-account=a@b"
  assert _run(fakes, "create", SPOT="1", CREATE_FLAGS=more).returncode == 0
  assert fakes.calls()[1] == [*_CREATE, "--spot", *more.split()]


@pytest.mark.parametrize(
    "accelerator, image",
    [
        ("v6e-64", "v2-alpha-tpuv6e"),
        ("v5p-128", "v2-alpha-tpuv5"),
        ("v5litepod-256", "v2-alpha-tpuv5-lite"),
        ("v4-32", "tpu-ubuntu2204-base"),
    ],
)
def test_each_generation_gets_the_image_that_the_cloud_names(
    fakes, accelerator, image
):
  fakes.add("gcloud", _states(_ABSENT))
  assert _run(fakes, "create", ACCELERATOR_TYPE=accelerator).returncode == 0
  assert f"--runtime-version={image}" in fakes.calls()[1]


def test_create_on_an_existing_one_says_so_and_creates_nothing(fakes):
  fakes.add("gcloud", _states("WAITING_FOR_RESOURCES"))
  done = _run(fakes, "create")
  assert done.returncode == 0
  assert done.stdout == (
      "queued resource n is there already, WAITING_FOR_RESOURCES\n"
  )
  assert fakes.calls() == [_DESCRIBE]


def test_create_whose_first_answer_was_lost_counts_as_done(fakes):
  exists = Answer(1, "", "ERROR: ALREADY_EXISTS: n")
  fakes.add("gcloud", _states(_ABSENT), ("create", [_FLAKY, exists]))
  assert _run(fakes, "create").returncode == 0
  assert fakes.calls("gcloud") == [_DESCRIBE, _CREATE, _CREATE]


def test_delete_on_a_missing_one_says_so_and_deletes_nothing(fakes):
  fakes.add("gcloud", _states(_ABSENT))
  done = _run(fakes, "delete")
  assert (done.returncode, done.stdout) == (
      0,
      "there is no queued resource n\n",
  )
  assert fakes.calls() == [_DESCRIBE]


def test_delete_takes_the_vm_with_it(fakes):
  fakes.add("gcloud", _states("ACTIVE"))
  assert _run(fakes, "delete").returncode == 0
  assert fakes.calls() == [_DESCRIBE, _DELETE]


def test_a_passing_failure_is_tried_again_with_a_pause_that_doubles(fakes):
  fakes.add("gcloud", _states(_FLAKY, _FLAKY, _FLAKY, "ACTIVE"))
  assert _run(fakes, "delete").returncode == 0
  assert fakes.calls("sleep") == [["sleep", s] for s in ("10", "20", "40")]
  assert fakes.calls("gcloud") == [_DESCRIBE] * 4 + [_DELETE]


def test_a_failure_that_stays_is_tried_as_often_as_said(fakes):
  fakes.add("gcloud", _states("ACTIVE"), ("delete", [_FLAKY]))
  done = _run(fakes, "delete", RETRIES="3")
  assert done.returncode == 1 and "UNAVAILABLE" in done.stderr
  assert fakes.calls("gcloud") == [_DESCRIBE] + [_DELETE] * 3


@pytest.mark.parametrize(
    "answer",
    [
        Answer(1, "", "ERROR: PERMISSION_DENIED: no"),
        Answer(2, "", "ERROR: usage"),
    ],
)
def test_a_permanent_failure_is_not_tried_again(fakes, answer):
  fakes.add("gcloud", _states("ACTIVE"), ("delete", [answer]))
  assert _run(fakes, "delete").returncode != 0
  assert fakes.calls() == [_DESCRIBE, _DELETE]


def test_a_state_that_cannot_be_read_creates_and_deletes_nothing(fakes):
  fakes.add("gcloud", _states(_FLAKY))
  for command in ("create", "delete"):
    assert _run(fakes, command, RETRIES="1").returncode == 1
  assert fakes.calls("gcloud") == [_DESCRIBE] * 2


def test_setup_waits_then_copies_and_installs_on_all_hosts(fakes):
  fakes.add(
      "gcloud", _states("WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")
  )
  fakes.add("git")
  done = _run(fakes, "setup", BUCKET="b", SETUP_COMMAND="echo 'a b'")
  assert done.returncode == 0, done.stderr
  assert fakes.calls("sleep") == [["sleep", "30"]] * 2
  *looks, scp, unpack, install, mount, custom = fakes.calls("gcloud")
  assert looks == [_DESCRIBE] * 3
  assert re.search(r"/chain_jax\.tar\.gz$", scp.pop(5))
  assert scp == [
      *[*_VM, "scp", "n:chain_jax.tar.gz", *_WHERE],
      *["--worker=all", "--quiet"],
  ]
  assert unpack[:-1] == _SSH and "tar -xzf chain_jax.tar.gz" in unpack[-1]
  assert install == [*_SSH, _WORKER + "install tpu\\,gcs"]
  assert mount == [*_SSH, _WORKER + "mount b"]
  assert custom == [*_SSH, "--command=echo 'a b'"]
  root = str(fake_commands.ROOT)
  archive = fakes.calls("git")[-1]
  assert archive[:4] == ["git", "-C", root, "archive"]
  assert archive[-1] == "HEAD"


@pytest.mark.parametrize("state", ["SUSPENDED", "FAILED", _ABSENT])
def test_setup_does_not_wait_for_what_will_never_come(fakes, state):
  fakes.add("gcloud", _states(state))
  assert _run(fakes, "setup").returncode == 1
  assert fakes.calls() == [_DESCRIBE]


def test_setup_gives_up_waiting_after_the_time_said(fakes):
  fakes.add("gcloud", _states("PROVISIONING"))
  done = _run(fakes, "setup", WAIT_SECONDS="60")
  assert done.returncode == 1 and "after 60 s" in done.stderr
  assert fakes.calls("sleep") == [["sleep", "30"]] * 2


def test_setup_stops_where_a_host_still_runs(fakes):
  fakes.add("gcloud", _states("ACTIVE"), ("tar -xzf", [Answer(2, "", "runs")]))
  fakes.add("git")
  assert _run(fakes, "setup").returncode == 2
  assert "tar -xzf" in fakes.calls("gcloud")[-1][-1]


_FLAGS = ["--config=configs/yt8m.py", "--config.name=it's $HOME; two  words"]


def test_run_gives_every_host_the_flags_as_they_were_typed(fakes):
  fakes.add("gcloud")
  assert _run(fakes, "run", *_FLAGS).returncode == 0
  (call,) = fakes.calls()
  assert call[:-1] == _SSH
  command = call[-1].removeprefix("--command=")
  # What the host's shell makes of it.
  show = 'bash() { printf "%s\\n" "$@"; }\n'
  words = subprocess.run(
      ["bash", "-c", show + command], capture_output=True, text=True
  ).stdout.splitlines()
  assert words == ["chain_jax_source/launch/worker.sh", "start", *_FLAGS]


def test_resume_replaces_a_suspended_resource_and_runs_the_same_flags(fakes):
  fakes.add("gcloud")
  fakes.add("git")
  assert _run(fakes, "run", *_FLAGS).returncode == 0
  (started,) = fakes.calls()
  fakes.add(
      "gcloud",
      ("tpu-vm describe", [_ABSENT]),
      _states("SUSPENDING", "SUSPENDED", _ABSENT, "PROVISIONING", "ACTIVE"),
  )
  done = _run(fakes, "resume", SPOT="1")
  assert done.returncode == 0, done.stderr
  verbs = [call[4] for call in fakes.calls("gcloud")[1:]]
  assert verbs == [
      *["describe"] * 3,  # The VM, then the resource until it is SUSPENDED.
      *["delete", "describe", "create"],
      *["describe"] * 2,
      *["scp", "ssh", "ssh", "ssh"],  # unpack, install, start
  ]
  assert _DELETE in fakes.calls() and [*_CREATE, "--spot"] in fakes.calls()
  assert fakes.calls("gcloud")[-1] == started


def test_resume_replaces_an_active_resource_whose_vm_is_gone(fakes):
  fakes.add(
      "gcloud",
      ("tpu-vm describe", [Answer(0, "PREEMPTED\n")]),
      _states("ACTIVE", _ABSENT, "ACTIVE"),
  )
  fakes.add("git")
  assert _run(fakes, "resume", *_FLAGS).returncode == 0
  assert _DELETE in fakes.calls() and _CREATE in fakes.calls()


def test_resume_keeps_a_resource_whose_vm_is_there(fakes):
  fakes.add(
      "gcloud", ("tpu-vm describe", [Answer(0, "READY")]), _states("ACTIVE")
  )
  fakes.add("git")
  assert _run(fakes, "resume", *_FLAGS).returncode == 0
  assert {call[4] for call in fakes.calls("gcloud")} == {
      "describe",
      "scp",
      "ssh",
  }


def test_logs_show_the_host_that_was_asked_for(fakes):
  fakes.add("gcloud")
  assert _run(fakes, "logs", WORKER="3", FOLLOW="1").returncode == 0
  assert fakes.calls() == [
      [*_VM, "ssh", "n", *_WHERE, "--worker=3", "--quiet"]
      + ["--command=tail -n 100 -F chain_jax_run/log.txt"]
  ]


@pytest.mark.parametrize(
    "words",
    [["create"], ["setup"], ["run", "-x"], ["status"], ["logs"], ["stop"]]
    + [["resume", "-x"], ["watch", "-x"], ["delete"]],
    ids=lambda words: words[0],
)
def test_dry_run_prints_commands_and_runs_none(fakes, words):
  for name in ("gcloud", "git"):
    fakes.add(name)
  done = _run(fakes, *words, DRY_RUN="1", BUCKET="b")
  assert done.returncode == 0, done.stderr
  assert "+ gcloud compute tpus" in done.stdout + done.stderr
  assert [c for c in fakes.calls() if c[0] != "git" or "status" not in c] == []
  assert not (fakes.folder / ".local").exists()


@pytest.mark.parametrize(
    "words, settings, said",
    [
        (["create"], {"PROJECT": ""}, "error: PROJECT must be set, such as"),
        (["create"], {"ZONE": ""}, "error: ZONE must be set, such as"),
        (["create"], {"ACCELERATOR_TYPE": ""}, "error: ACCELERATOR_TYPE must"),
        (
            ["create"],
            {"ACCELERATOR_TYPE": "v9-8"},
            "error: ACCELERATOR_TYPE v9-8",
        ),
        (["run"], {}, "error: no flags for the run"),
        (["watch"], {}, "error: no flags for the run"),
        (["status"], {"RETRIES": "many"}, "error: RETRIES must be a whole"),
        (["start"], {}, "error: COMMAND must be one of"),
        ([], {}, "error: COMMAND must be one of"),
    ],
)
def test_a_mistake_gives_one_line_exit_code_2_and_no_call(
    fakes, words, settings, said
):
  fakes.add("gcloud")
  done = _run(fakes, *words, **settings)
  assert done.returncode == 2 and done.stdout == ""
  assert done.stderr.startswith(said) and done.stderr.count("\n") == 1
  assert fakes.calls() == []


# The real parser of the tool, where it is installed, has the last word.
@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("gcloud") is None, reason="gcloud is not installed"
)
def test_gcloud_understands_every_call(fakes, tmp_path):
  fakes.add(
      "gcloud", ("tpu-vm describe", [_ABSENT]), _states(_ABSENT, "ACTIVE")
  )
  fakes.add("git")
  settings = {"SPOT": "1", "BUCKET": "b", "SSH_FLAGS": "--internal-ip"}
  for words in (["create"], ["setup"], ["run", "--x"], ["status"], ["delete"]):
    assert _run(fakes, *words, **settings).returncode == 0
  _run(fakes, "resume", "--x", **settings)
  # Spaces and quotes of remote commands are not what is checked.
  lines = {
      " ".join("--command=x" if "--command=" in word else word for word in call)
      for call in fakes.calls("gcloud")
  }
  assert len(lines) >= 6
  for line in lines:
    done = subprocess.run(
        ["gcloud", "meta", "lint-gcloud-commands", f"--command-string={line}"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert '"success": true' in done.stdout, (line, done.stdout[-500:])
