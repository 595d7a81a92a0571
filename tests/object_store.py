"""Google Cloud Storage in memory, on this machine, for tests.

`epath` reaches it through fsspec, TensorStore through Google's JSON API; both
see the same objects.
"""

import contextlib
import http.server
import json
import sys
import threading
import types
import urllib.parse

import fsspec
from fsspec.implementations import memory


class Objects(memory.MemoryFileSystem):
  """What lies under gs://, by bucket and name."""

  protocol = ("gcs", "gs")
  store = {}
  pseudo_dirs = [""]

  @classmethod
  def _strip_protocol(cls, path):
    path = str(path).removeprefix("gs://").removeprefix("gcs://").strip("/")
    return "/" + path if path else ""


def _described(name, file):
  """Returns the metadata of an object."""
  return {
      "name": name,
      "size": str(len(file.getvalue())),
      "generation": str(id(file)),
      "metageneration": "1",
      "timeCreated": "2026-01-01T00:00:00Z",
      "updated": "2026-01-01T00:00:00Z",
      "md5Hash": "",
      "crc32c": "",
  }


class _Handler(http.server.BaseHTTPRequestHandler):
  """/storage/v1/b/BUCKET/o/NAME: what TensorStore asks for."""

  protocol_version = "HTTP/1.1"

  def do_GET(self):
    bucket, name, query = self._asked()
    if name is None:
      self._list(bucket, query)
      return
    found = Objects.store.get(f"/{bucket}/{name}")
    if found is None:
      self._answer(404)
      return
    content, headers = found.getvalue(), {"x-goog-generation": str(id(found))}
    status, span = 200, self.headers.get("Range", "").removeprefix("bytes=")
    if span:
      first, _, last = span.partition("-")
      end = int(last) + 1 if first and last else len(content)
      start = int(first) if first else max(0, len(content) - int(last))
      end = min(end, len(content))
      size = len(content)
      headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
      status, content = 206, content[start:end]
    self._answer(status, content, headers)

  def do_POST(self):
    bucket, _, query = self._asked()
    path = f"/{bucket}/{query['name']}"
    length = int(self.headers["Content-Length"])
    Objects().pipe_file(path, self.rfile.read(length))
    self._answer_json(_described(query["name"], Objects.store[path]))

  def do_DELETE(self):
    bucket, name, _ = self._asked()
    found = Objects.store.pop(f"/{bucket}/{name}", None)
    self._answer(204 if found else 404)

  def log_message(self, *_):
    pass

  def _asked(self):
    url = urllib.parse.urlsplit(self.path)
    self.server.paths.append(url.path)
    parts = url.path.removeprefix("/upload").split("/", 6)
    name = urllib.parse.unquote(parts[6]) if len(parts) > 6 else None
    query = urllib.parse.parse_qsl(url.query, keep_blank_values=True)
    return parts[4], name, dict(query)

  def _list(self, bucket, query):
    start = f"/{bucket}/"
    names = sorted(
        path.removeprefix(start)
        for path in list(Objects.store)
        if path.startswith(start + query.get("prefix", ""))
    )
    first, end = query.get("startOffset", ""), query.get("endOffset")
    self._answer_json(
        {
            "items": [
                _described(name, Objects.store[start + name])
                for name in names
                if name >= first and (not end or name < end)
            ]
        }
    )

  def _answer_json(self, content):
    body = json.dumps(content).encode()
    self._answer(200, body, {"Content-Type": "application/json"})

  def _answer(self, status, body=b"", headers=None):
    self.send_response(status)
    for key, value in (headers or {}).items():
      self.send_header(key, value)
    if status != 204:
      self.send_header("Content-Length", str(len(body)))
    self.end_headers()
    self.wfile.write(body)


def _stand_in_for_googles_client(monkeypatch):
  """Orbax asks it what kind of bucket it is, and nothing else."""

  class Client:

    def get_bucket(self, name):
      return types.SimpleNamespace(hierarchical_namespace_enabled=False)

  client = types.ModuleType("google.cloud.storage")
  client.Client = Client
  package = types.ModuleType("google.cloud")
  package.storage = client
  monkeypatch.setitem(sys.modules, "google.cloud", package)
  monkeypatch.setitem(sys.modules, "google.cloud.storage", client)


@contextlib.contextmanager
def serving(monkeypatch):
  """Makes gs:// this machine's for the block; yields the paths asked for."""
  server = http.server.ThreadingHTTPServer(("localhost", 0), _Handler)
  server.daemon_threads, server.paths = True, []
  address = f"http://localhost:{server.server_port}"
  monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", address)
  # No credentials are looked for on the machine's own link.
  monkeypatch.setenv("GCE_METADATA_ROOT", address.removeprefix("http://"))
  _stand_in_for_googles_client(monkeypatch)
  fsspec.register_implementation("gcs", Objects, clobber=True)
  fsspec.register_implementation("gs", Objects, clobber=True)
  Objects.store.clear()
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  try:
    yield server.paths
  finally:
    server.shutdown()
    thread.join()
    server.server_close()
    Objects.store.clear()
