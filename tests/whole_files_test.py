"""Files appear whole or not at all, and locks keep others out."""

import threading

import pytest

from chain_jax import whole_files


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
