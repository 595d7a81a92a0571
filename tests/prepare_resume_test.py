"""A preparation killed, begun or ended at any moment comes out the same."""

import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from chain_jax import prepare
from chain_jax.data import tfrecord
from chain_jax.preparation import demo, engine, finish, tasks


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
  """Two train shards, one validate shard, and a copy of a part of both."""
  folder = tmp_path_factory.mktemp("shards")
  demo.write_demo(
      str(folder), num_shards=3, videos_per_shard=4, num_classes=8, seed=0
  )
  payloads = [
      bytes(record.payload)
      for name in ("train0001", "validate0000")
      for record in list(tfrecord.read_records(folder / f"{name}.tfrecord"))[:3]
  ]
  tfrecord.write_records(folder / "train0009.tfrecord", payloads)
  return folder


def _arguments(shards, output, *more):
  return [
      "youtube8m",
      f"--train={shards}/train*",
      f"--evaluation={shards}/validate*",
      f"--output={output}",
      "--query_share=0.5",
      "--num_workers=0",
      *more,
  ]


def _contents(output):
  """Every file, but for the lock's, which is empty."""
  return {
      str(file.relative_to(output)): file.read_bytes()
      for file in output.rglob("*")
      if file.is_file()
  }


def _folder(output):
  return output / "yt8m_frames" / "1.0.0"


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
  """What an undisturbed preparation gives."""
  output = tmp_path_factory.mktemp("whole") / "out"
  assert prepare.main(_arguments(shards, output)) == 0
  return output


# Files come and go by these calls alone; each run ends, as by SIGKILL, right
# before the next of them.
_KILLED_EVERYWHERE = """
import os, pathlib, sys
from chain_jax import prepare
from chain_jax.data import datasets

def prepare_until(number, output):
  process = os.fork()
  if not process:
    count = 0
    def dying(call):
      def wrapped(*arguments, **kwargs):
        nonlocal count
        count += 1
        if count == number:
          os._exit(9)
        return call(*arguments, **kwargs)
      return wrapped
    for module, name in ((os, "replace"), (os, "unlink"), (os, "mkdir")):
      setattr(module, name, dying(getattr(module, name)))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os._exit(prepare.main([*sys.argv[2:], f"--output={output}"]))
  return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

root, number = pathlib.Path(sys.argv[1]), 0
while True:
  number += 1
  output = root / str(number)
  code = prepare_until(number, output)
  if code == 0:
    break
  assert code == 9, code
  # A folder that readers take for a dataset is a whole one.
  for metadata in output.glob("*/*/metadata.json"):
    names = {file.name for file in metadata.parent.iterdir()}
    assert {"dataset_info.json", "features.json", "manifest.json"} <= names
  code = prepare_until(0, output)
  assert code == 0, code
print(number)
"""


def test_a_kill_between_any_two_files_changes_nothing(shards, whole, tmp_path):
  arguments = [a for a in _arguments(shards, "") if "--output" not in a]
  run = subprocess.run(
      [sys.executable, "-c", _KILLED_EVERYWHERE, str(tmp_path), *arguments],
      capture_output=True,
      text=True,
  )
  assert run.returncode == 0, run.stderr
  # Four tasks, two of which lose videos; journals, indexes, metadata.
  assert int(run.stdout) > 25
  expected = _contents(whole)
  for output in tmp_path.iterdir():
    assert _contents(output) == expected, output.name


_HANGING = """
import sys
sys.path.insert(0, sys.argv[1])
import hanging_reader
from chain_jax import prepare
from chain_jax.preparation import engine, youtube8m
make_plan = youtube8m.make_plan
youtube8m.make_plan = lambda parsed: (
    make_plan(parsed)[0], hanging_reader.HangingReader(sys.argv[2])
)
prepare.main(sys.argv[3:])
"""


def test_workers_end_with_a_killed_run(shards, tmp_path):
  here = pathlib.Path(__file__).parent
  arguments = _arguments(shards, tmp_path / "out", "--num_workers=2")
  run = subprocess.Popen(
      [sys.executable, "-c", _HANGING, str(here), str(tmp_path), *arguments],
      start_new_session=True,
  )
  deadline = time.monotonic() + 60
  while len(list(tmp_path.glob("begun-*"))) < 2:
    assert time.monotonic() < deadline and run.poll() is None
    time.sleep(0.02)
  run.kill()
  run.wait()
  deadline = time.monotonic() + 20
  try:
    while _lives(run.pid):
      assert time.monotonic() < deadline
      time.sleep(0.05)
  finally:
    if _lives(run.pid):
      os.killpg(run.pid, signal.SIGKILL)


def _lives(group):
  try:
    os.killpg(group, 0)
  except ProcessLookupError:
    return False
  return True


_INTERRUPTED = """
import signal, sys
from chain_jax import prepare
# What is started in the background is deaf to Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(prepare.main(sys.argv[1:]))
"""


def test_ctrl_c_is_one_line_though_workers_just_start(shards, tmp_path):
  arguments = _arguments(shards, tmp_path / "out", "--num_workers=2")
  run = subprocess.Popen(
      [sys.executable, "-c", _INTERRUPTED, *arguments],
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
      start_new_session=True,
  )
  while not (_folder(tmp_path / "out") / "preparation" / "plan.json").exists():
    time.sleep(0.01)
  time.sleep(0.25)
  os.killpg(run.pid, signal.SIGINT)
  _, printed = run.communicate(timeout=60)
  assert run.returncode == 1
  assert printed == "error: interrupted; what was written stays valid\n"


def test_jobs_may_begin_at_one_time(shards, whole, tmp_path):
  # One job has made the folder, another was killed while it wrote the plan.
  preparation = _folder(tmp_path / "out") / "preparation"
  preparation.mkdir(parents=True)
  (preparation / "lock").touch()
  (preparation / ".plan.json.machine-1.partial").write_text("{")
  assert prepare.main(_arguments(shards, tmp_path / "out")) == 0
  assert _contents(tmp_path / "out") == _contents(whole)


def test_a_job_does_its_own_part_alone(shards, tmp_path, capsys):
  assert prepare.main(_arguments(shards, tmp_path / "out", "--task=1/3")) == 0
  preparation = _folder(tmp_path / "out") / "preparation"
  done = [file.name for file in preparation.glob("task-*")]
  assert done == ["task-00001.json"]
  assert "1 of 4 shards are done" in capsys.readouterr().out
  assert not (_folder(tmp_path / "out") / "metadata.json").exists()


def test_jobs_may_end_at_one_time(shards, whole, tmp_path, monkeypatch):
  plans, real_finish = [], finish.finish
  monkeypatch.setattr(engine.finish, "finish", plans.append)
  monkeypatch.setattr(engine.finish, "format_summary", lambda _: "")
  assert prepare.main(_arguments(shards, tmp_path / "out")) == 0
  drop, failed = tasks.drop_videos, []

  def drop_slowly(*arguments):
    time.sleep(0.1)
    drop(*arguments)

  def finish_one():
    try:
      real_finish(plans[0])
    except Exception as error:
      failed.append(error)

  monkeypatch.setattr(tasks, "drop_videos", drop_slowly)
  threads = [threading.Thread(target=finish_one) for _ in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not failed
  assert _contents(tmp_path / "out") == _contents(whole)


@pytest.mark.parametrize(
    "damage",
    [
        lambda journal: journal[:50],
        lambda journal: b"",
        lambda journal: b"[]",
        lambda journal: b"{}",
        lambda journal: b"\xff\xfe",
        lambda journal: b"[" * 100_000,
        lambda journal: b'{"crc32c": ' + b"1" * 5000 + b"}",
        lambda journal: journal.replace(b"train-", b"trein-", 1),
    ],
)
def test_a_task_with_a_damaged_journal_is_done_again(
    shards, whole, tmp_path, damage, capsys
):
  output = pathlib.Path(shutil.copytree(whole, tmp_path / "out"))
  journal = _folder(output) / "preparation" / "task-00001.json"
  content = journal.read_bytes()
  journal.write_bytes(damage(content))
  assert journal.read_bytes() != content
  assert prepare.main(_arguments(shards, output)) == 0
  assert "3 of 4 shards are done already" in capsys.readouterr().out
  assert _contents(output) == _contents(whole)


def _refused(arguments, capsys, *, code=2):
  assert prepare.main(arguments) == code
  line = capsys.readouterr().err
  assert line.startswith("error: ") and line.count("\n") == 1
  return line


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_plan_is_named(shards, whole, tmp_path, content, capsys):
  output = pathlib.Path(shutil.copytree(whole, tmp_path / "out"))
  (_folder(output) / "preparation" / "plan.json").write_text(content)
  line = _refused(_arguments(shards, output), capsys)
  assert "plan.json: must be the plan of what --output holds" in line


def test_a_split_that_another_shard_holds_already_vanishes(shards, tmp_path):
  # The whole shard is there under another name, among those to learn from.
  own = pathlib.Path(shutil.copytree(shards, tmp_path / "own"))
  (own / "train0009.tfrecord").unlink()
  shutil.copy(own / "validate0000.tfrecord", own / "train0009.tfrecord")
  assert prepare.main(_arguments(own, tmp_path / "out")) == 0
  folder = _folder(tmp_path / "out")
  (folder / "index-query.npz").write_bytes(b"of an earlier end")
  assert prepare.main(_arguments(own, tmp_path / "out")) == 0
  assert {f.name for f in folder.glob("index-*")} == {"index-train.npz"}
  assert not list(folder.glob("*gallery*")) + list(folder.glob("*query*"))
  manifest = json.loads((folder / "manifest.json").read_text())
  assert list(manifest["splits"]) == ["train"]


@pytest.mark.parametrize("written", ["index-train.npz", "metadata.json"])
def test_a_disk_that_is_full_at_the_end_loses_nothing(
    shards, whole, tmp_path, monkeypatch, capsys, written
):
  replace = os.replace

  def fill(source, target):
    if str(target).endswith(written):
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    replace(source, target)

  monkeypatch.setattr(os, "replace", fill)
  line = _refused(_arguments(shards, tmp_path / "out"), capsys, code=1)
  assert "No space left on device" in line and "make room" in line
  monkeypatch.undo()
  assert prepare.main(_arguments(shards, tmp_path / "out")) == 0
  assert "4 of 4 shards are done already" in capsys.readouterr().out
  assert _contents(tmp_path / "out") == _contents(whole)
