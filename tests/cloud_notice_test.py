"""The cloud's notice is heard where there is one, and costs nothing elsewhere."""

import contextlib
import http.server
import queue
import threading
import time

import pytest

from chain_jax import cloud_notice


@contextlib.contextmanager
def _metadata_server(answers):
  """Serves each value's (value, etag) pairs in turn, then holds the request."""

  class Handler(http.server.BaseHTTPRequestHandler):

    def do_GET(self):
      name, _, query = self.path.rpartition("/")[2].partition("?")
      asked.append((name, query, self.headers["Metadata-Flavor"]))
      if not answers[name]:
        ended.wait(20)
        return
      answer = answers[name].pop(0)
      if answer is None:
        self.send_error(503)
        return
      self.send_response(200)
      self.send_header("ETag", answer[1])
      self.end_headers()
      if isinstance(answer[0], bytes):
        self.wfile.write(answer[0])
      else:
        self.wfile.write(answer[0].encode())
      while answer[0] == "ENDLESS" and not ended.is_set():
        self.wfile.write(b"x" * 2**16)

    def log_message(self, *_):
      pass

  asked, ended = [], threading.Event()
  server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  try:
    yield f"localhost:{server.server_port}", asked
  finally:
    ended.set()
    server.shutdown()
    thread.join()
    server.server_close()


def _notices(monkeypatch, host):
  monkeypatch.setenv("GCE_METADATA_HOST", host)
  monkeypatch.setenv("http_proxy", "http://localhost:1")  # Asks no proxy.
  monkeypatch.setattr(cloud_notice, "_RETRY_SECONDS", 0.01)
  monkeypatch.setattr(cloud_notice, "_PAUSE_SECONDS", 0.01, raising=False)
  heard = queue.Queue()
  assert cloud_notice.watch(heard.put)
  return heard


def test_a_preemption_is_heard_after_a_failed_request_too(monkeypatch):
  answers = {
      "preempted": [("FALSE", "a b"), None, ("TRUE", "c")],
      "maintenance-event": [],
  }
  with _metadata_server(answers) as (host, asked):
    heard = _notices(monkeypatch, host)
    assert heard.get(timeout=10) == "the cloud's notice of preemption"
  of_preemption = [query for name, query, _ in asked if name == "preempted"]
  assert of_preemption[0] == ""
  assert of_preemption[1].startswith("wait_for_change=true&timeout_sec=")
  assert of_preemption[1].endswith("&last_etag=a%20b")
  assert {flavor for _, _, flavor in asked} == {"Google"}


@pytest.mark.parametrize("odd", [b"\xff\xfe", "ENDLESS", ""])
def test_after_an_odd_answer_it_goes_on_to_listen(monkeypatch, odd):
  answers = {
      "preempted": [("FALSE", "a"), (odd, "b"), ("TRUE", "c")],
      "maintenance-event": [],
  }
  with _metadata_server(answers) as (host, asked):
    heard = _notices(monkeypatch, host)
    assert heard.get(timeout=10) == "the cloud's notice of preemption"
  last = [query for name, query, _ in asked if name == "preempted"][-1]
  assert last.endswith("&last_etag=b")


def test_a_server_that_never_waits_is_not_asked_without_a_pause(monkeypatch):
  answers = {"preempted": [("FALSE", "")] * 10_000, "maintenance-event": []}
  with _metadata_server(answers) as (host, asked):
    _notices(monkeypatch, host)
    monkeypatch.setattr(cloud_notice, "_PAUSE_SECONDS", 0.2)
    time.sleep(1.0)
  assert len(asked) < 12


@pytest.mark.parametrize("host", ["[", "a b", "a\nb", "x" * 70, "ü:y"])
def test_a_server_of_no_address_ends_no_thread(monkeypatch, host):
  _notices(monkeypatch, host)
  time.sleep(0.1)  # An error in a thread would be a warning, and fail.


@pytest.mark.parametrize(
    "events, is_heard",
    [
        (["NONE", "MIGRATE_ON_HOST_MAINTENANCE", "NONE"], False),
        (["NONE", "TERMINATE_ON_HOST_MAINTENANCE"], True),
        # Known before the start: the run makes use of the time that is left.
        (["TERMINATE_ON_HOST_MAINTENANCE"] * 2, False),
    ],
)
def test_only_a_new_end_of_the_machine_is_a_notice(
    monkeypatch, events, is_heard
):
  answers = {
      "preempted": [],
      "maintenance-event": [(event, str(i)) for i, event in enumerate(events)],
  }
  with _metadata_server(answers) as (host, asked):
    heard = _notices(monkeypatch, host)
    if is_heard:
      assert heard.get(timeout=10) == "the cloud's notice of maintenance"
    else:
      deadline = time.monotonic() + 10
      while len(asked) < len(events) + 2 and time.monotonic() < deadline:
        time.sleep(0.01)
      assert not answers["maintenance-event"] and heard.empty()


def test_elsewhere_nothing_is_asked(monkeypatch, tmp_path):
  monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
  for content, is_google in (
      (b"Standard PC", False),
      (b"Google\n", True),
      (b"\xff", False),
  ):
    (tmp_path / "product_name").write_bytes(content)
    monkeypatch.setattr(
        cloud_notice, "_PRODUCT_FILE", tmp_path / "product_name"
    )
    assert cloud_notice._is_google() == is_google
  monkeypatch.setattr(cloud_notice, "_PRODUCT_FILE", tmp_path / "missing")
  before = set(threading.enumerate())
  assert not cloud_notice.watch(print)
  assert set(threading.enumerate()) <= before
