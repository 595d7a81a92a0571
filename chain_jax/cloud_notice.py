"""What the cloud says of this machine: on Google Cloud, that it goes away.

The metadata server answers a request when a value changes: one thread a value
waits there and asks again. On any other machine nothing is asked.
"""

import contextlib
import os
import pathlib
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable

_PRODUCT_FILE = pathlib.Path("/sys/class/dmi/id/product_name")
_HOST = "metadata.google.internal"
# The server answers after so long also where nothing has changed.
_POLL_SECONDS = 240
_RETRY_SECONDS = 5.0
# Between two answers; one that never waits would be asked without end.
_PAUSE_SECONDS = 1.0
_LONGEST_VALUE = 1000


def watch(act: Callable[[str], None]) -> bool:
  """Starts to wait for notices; returns at once.

  Args:
    act: Takes the reason, in a thread of its own; may be called twice.

  Returns:
    Whether this machine has a metadata server to ask: it is one of Google
    Cloud, or GCE_METADATA_HOST is set.

  Source: https://cloud.google.com/compute/docs/metadata/querying-metadata
  """
  host = os.environ.get("GCE_METADATA_HOST") or (_HOST if _is_google() else "")
  if not host:
    return False
  for target in (_watch_preemption, _watch_maintenance):
    threading.Thread(target=target, args=(host, act), daemon=True).start()
  return True


def _is_google() -> bool:
  with contextlib.suppress(OSError):
    return b"Google" in _PRODUCT_FILE.read_bytes()
  return False


def _watch_preemption(host: str, act: Callable[[str], None]) -> None:
  etag = ""
  while True:
    value, etag = _ask(host, "preempted", etag)
    if value == "TRUE":
      act("the cloud's notice of preemption")
      return
    time.sleep(_PAUSE_SECONDS)


def _watch_maintenance(host: str, act: Callable[[str], None]) -> None:
  # What was announced before the start lies ahead still, perhaps by an hour:
  # to end at once again and again would be worse.
  value, etag = _ask(host, "maintenance-event", "")
  while True:
    before = value
    time.sleep(_PAUSE_SECONDS)
    value, etag = _ask(host, "maintenance-event", etag)
    # The other kind moves the machine while it runs.
    if value != before and value.startswith("TERMINATE"):
      act("the cloud's notice of maintenance")
      return


def _ask(host: str, name: str, etag: str) -> tuple[str, str]:
  """Returns a value of the instance and its etag, after it has changed.

  Args:
    host: Of the metadata server.
    name: Of the value.
    etag: Of the value known so far; "" asks for the value as it is.
  """
  query = ""
  if etag:
    query = (
        f"?wait_for_change=true&timeout_sec={_POLL_SECONDS}&last_etag="
        + urllib.parse.quote(etag)
    )
  url = f"http://{host}/computeMetadata/v1/instance/{name}{query}"
  # The server is on the machine's own link: no proxy knows it.
  opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
  while True:
    # Whatever it answers, it ends no run.
    with contextlib.suppress(Exception):
      request = urllib.request.Request(
          url, headers={"Metadata-Flavor": "Google"}
      )
      with opener.open(request, timeout=_POLL_SECONDS + 10) as response:
        found = response.headers.get("ETag", "")
        value = response.read(_LONGEST_VALUE).decode(errors="replace")
      return value.strip(), found
    time.sleep(_RETRY_SECONDS)
