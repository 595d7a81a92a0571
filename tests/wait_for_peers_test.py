"""Hosts of a cluster start together: each waits until all the others are there."""

import importlib.util
import pathlib
import socket
import threading

import pytest

_PATH = pathlib.Path(__file__).resolve().parent.parent / "launch" / "gke"


@pytest.fixture(scope="module")
def waiting():
  path = _PATH / "wait_for_peers.py"
  spec = importlib.util.spec_from_file_location("wait_for_peers", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _address(server):
  return ("127.0.0.1", server.getsockname()[1])


def _free_port():
  with socket.create_server(("127.0.0.1", 0)) as server:
    return _address(server)


def test_peers_that_are_there_are_not_waited_for(waiting):
  with waiting.listen(0) as first, waiting.listen(0) as second:
    peers = [_address(first), _address(second)]
    # More than once: a port goes on answering.
    for _ in range(3):
      assert waiting.wait(peers, deadline_seconds=0) == []


def test_a_peer_that_comes_late_is_waited_for(waiting, monkeypatch):
  monkeypatch.setattr(waiting, "_POLL_SECONDS", 0.05)
  late, servers = _free_port(), []
  timer = threading.Timer(0.3, lambda: servers.append(waiting.listen(late[1])))
  timer.start()
  try:
    with waiting.listen(0) as first:
      peers = [_address(first), late]
      assert waiting.wait(peers, deadline_seconds=10) == []
  finally:
    timer.join()
    for server in servers:
      server.close()


def test_a_peer_that_never_comes_is_named(waiting, monkeypatch):
  monkeypatch.setattr(waiting, "_POLL_SECONDS", 0.05)
  absent = _free_port()
  with waiting.listen(0) as first:
    peers = [_address(first), absent]
    assert waiting.wait(peers, deadline_seconds=0.2) == [absent]


def test_a_name_that_is_not_known_yet_counts_as_absent(waiting, monkeypatch):
  def fail(*_, **__):
    raise socket.gaierror(socket.EAI_NONAME, "unknown")

  monkeypatch.setattr(socket, "create_connection", fail)
  assert not waiting.is_there("no-such-host.invalid", 1)
