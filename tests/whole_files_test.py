"""Files appear whole or not at all, and locks keep others out."""

import os
import threading

import pytest

from chain_jax import errors, whole_files


def test_a_file_that_fails_leaves_the_old_one_and_nothing_else(tmp_path):
  path = tmp_path / "file"
  path.write_text("old")
  with pytest.raises(ZeroDivisionError):
    with whole_files.written_whole(path) as partial:
      partial.write_text("half")
      assert path.read_text() == "old"
      raise ZeroDivisionError
  assert [file.name for file in tmp_path.iterdir()] == ["file"]
  with whole_files.written_whole(path) as partial:
    partial.write_text("new")
  assert [file.name for file in tmp_path.iterdir()] == ["file"]
  assert path.read_text() == "new"


def test_processes_and_machines_write_under_different_names(
    tmp_path, monkeypatch
):
  names = set()
  for machine in ("a", "b"):
    monkeypatch.setattr(whole_files.socket, "gethostname", lambda m=machine: m)
    for process in (1, 2):
      monkeypatch.setattr(whole_files.os, "getpid", lambda p=process: p)
      names.add(whole_files.partial_name(tmp_path / "file"))
  assert len(names) == 4
  assert {name.parent for name in names} == {tmp_path}


def test_leftovers_go_and_files_stay(tmp_path):
  whole_files.partial_name(tmp_path / "file").write_text("half")
  whole_files.partial_name(tmp_path / "folder").mkdir()
  (whole_files.partial_name(tmp_path / "folder") / "x").write_text("half")
  (tmp_path / "file").write_text("whole")
  (tmp_path / ".hidden").write_text("mine")
  whole_files.remove_leftovers(tmp_path)
  assert sorted(file.name for file in tmp_path.iterdir()) == [".hidden", "file"]


def test_a_second_one_waits_for_the_lock(tmp_path):
  entered, order = threading.Event(), []

  def second():
    entered.set()
    with whole_files.locked(tmp_path / "lock"):
      order.append("second")

  with whole_files.locked(tmp_path / "lock"):
    thread = threading.Thread(target=second)
    thread.start()
    entered.wait()
    thread.join(timeout=0.2)
    order.append("first")
  thread.join()
  assert order == ["first", "second"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[1, 2]", "it holds list, no object"),
        (b"null", "no object"),
        (b'{"a": ', "Expecting value"),
        (b"\xff\xfe", "utf-8"),
        (b"[" * 100_000, "recursion"),
        (b'{"a": ' * 101 + b"1" + b"}" * 101, "deeper than 100 levels"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "deeper than 100 levels"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
    ],
)
def test_what_is_no_json_object_is_named(tmp_path, content, reason):
  path = tmp_path / "report.json"
  path.write_bytes(content)
  with pytest.raises(errors.InputError, match=reason) as caught:
    whole_files.read_json(path, must_be="a report", way_out="make it again")
  assert str(caught.value).startswith(f"{path}: must be a report, could not")


def test_a_json_file_that_would_fill_the_memory_is_not_read(tmp_path):
  path = tmp_path / "report.json"
  with open(path, "wb") as file:
    file.truncate(2**28 + 1)
  with pytest.raises(errors.InputError, match="268435457 bytes are too many"):
    whole_files.read_json(path, must_be="a report", way_out="make it again")


def test_a_json_file_that_is_a_pipe_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / "report.json")
  with pytest.raises(errors.InputError, match="it is no file"):
    whole_files.read_json(
        tmp_path / "report.json", must_be="a report", way_out="make it again"
    )


def test_a_name_that_is_no_utf8_comes_back(tmp_path):
  content = {"root": os.fsdecode(b"caf\xe9"), "levels": [[["ç"]]]}
  path = tmp_path / "config.json"
  whole_files.write_json(path, content)
  assert whole_files.read_json(path, must_be="a", way_out="b") == content


def test_a_second_one_is_refused_where_a_lock_is_held_alone(tmp_path):
  path = tmp_path / "lock"
  with whole_files.held_alone(path, refusal="taken; go away"):
    with pytest.raises(errors.RunError, match=r"^taken; go away \(process \d+"):
      with whole_files.held_alone(path, refusal="taken; go away"):
        raise AssertionError
    assert path.exists()
  assert not path.exists()
  with whole_files.held_alone(path, refusal="taken"):
    pass


def test_a_file_system_without_locks_refuses_nobody(tmp_path, monkeypatch):
  def flock(*_):
    raise OSError(37, "No locks available")

  monkeypatch.setattr(whole_files.fcntl, "flock", flock)
  with whole_files.held_alone(tmp_path / "lock", refusal="taken"):
    with whole_files.held_alone(tmp_path / "lock", refusal="taken"):
      pass


def test_a_lock_removed_while_it_was_opened_is_taken_anew(
    tmp_path, monkeypatch
):
  path, flock, times = tmp_path / "lock", whole_files.fcntl.flock, []

  def flock_late(file, how):
    if not times:
      path.unlink()  # As the holder before does at its end.
    times.append(how)
    flock(file, how)

  monkeypatch.setattr(whole_files.fcntl, "flock", flock_late)
  with whole_files.held_alone(path, refusal="taken"):
    assert path.exists() and len(times) == 2
    with pytest.raises(errors.RunError, match="taken"):
      with whole_files.held_alone(path, refusal="taken"):
        raise AssertionError
