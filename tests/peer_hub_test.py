"""The hub takes a run's own processes, and strangers do it no harm."""

import contextlib
import gc
import json
import random
import socket
import threading
import time

import pytest

from chain_jax import errors, peer_hub, peer_messages, peers

_HELLO = {
    "process_id": 0,
    "num_processes": 2,
    "host": "a",
    "settings": {"--mode": "train"},
}


def _free_port():
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]


@pytest.fixture
def port():
  """Of a hub of two processes that knows the secret "s"."""
  found = _free_port()
  peer_hub.Hub(
      "127.0.0.1",
      found,
      secret="s",
      num_processes=2,
      start_timeout=60.0,
      hang_seconds=0.0,
  ).start()
  return found


@pytest.fixture
def said(capfd, caplog):
  """Returns what was printed or logged, also by the loop of the hub."""

  def read():
    gc.collect()  # Then the loop tells of what nobody has caught.
    return capfd.readouterr().err + caplog.text

  return read


class _Client:
  """A connection to the hub."""

  def __init__(self, port, **hello):
    self.socket = peer_messages.connect("127.0.0.1", port, timeout=10.0)
    self.socket.settimeout(10.0)
    self.lines = self.socket.makefile("rb")
    if hello:
      self.say("hello", **_HELLO | hello)

  def say(self, kind, **content):
    self.socket.sendall(peer_messages.encode(kind, **content))

  def hear(self, *kinds):
    """Returns the next message of these kinds; None where it hangs up."""
    deadline = time.monotonic() + 20
    with contextlib.suppress(ConnectionError):
      while line := self.lines.readline():
        assert time.monotonic() < deadline  # The hub says that it is alive.
        message = json.loads(line)
        if message["kind"] in kinds:
          return message
    return None

  def is_cut_off(self):
    return self.hear("none") is None

  def close(self):
    self.lines.close()
    self.socket.close()


@pytest.fixture
def client(port):
  """Makes connections to the hub, which end with the test."""
  made = []

  def make(**hello):
    made.append(_Client(port, **hello))
    return made[-1]

  yield make
  for one in made:
    one.close()


def _meet(client, ids=(0, 1)):
  """Two processes of the run, which have shown the secret."""
  members = [client(process_id=process_id) for process_id in ids]
  for process_id, member in zip(ids, members, strict=True):
    nonce = member.hear("start")["nonce"]
    member.say("proof", proof=peer_messages.proof("s", nonce, process_id))
  return members


def _assert_barrier_passes(members):
  for value, member in enumerate(members):
    member.say("barrier", name="here", value=value)
  for member in members:
    assert member.hear("pass", "lost")["value"] == 0


def test_the_hub_listens_at_the_coordinators_address_only(port):
  _Client(port).close()
  for other in ("127.0.0.2", "::1"):  # Both are this machine's too.
    with pytest.raises(OSError):
      socket.create_connection((other, port), timeout=5.0)


@pytest.mark.parametrize(
    ("host", "addresses", "is_everywhere"),
    [
        ("127.0.0.2", None, False),
        ("localhost", None, False),
        ("coordinator", ["127.0.0.2", "127.0.0.3"], True),  # Its own name.
        ("coordinator", ["192.0.2.1"], True),  # Behind a translator.
        ("192.0.2.1", None, True),
        ("coordinator", [], True),  # Not known here.
        ("coordinator", ["fe80::1"], True),
        ("x" * 70, None, True),  # No name at all.
    ],
)
def test_where_others_know_another_address_it_listens_at_all(
    host, addresses, is_everywhere, monkeypatch
):
  if addresses is not None:

    def resolve(*_, **__):
      if not addresses:
        raise socket.gaierror(socket.EAI_NONAME, "not known")
      return [
          (
              socket.AF_INET6 if ":" in address else socket.AF_INET,
              socket.SOCK_STREAM,
              6,
              "",
              (address, 0),
          )
          for address in addresses
      ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
  sockets = peer_messages.listen(host, 0)
  found = {one.getsockname()[0] for one in sockets}
  for one in sockets:
    one.close()
  assert (found <= {"::", "0.0.0.0"}) == is_everywhere
  assert is_everywhere or found <= {"127.0.0.2", "127.0.0.1", "::1"}


def test_the_secret_is_shown_and_not_said():
  # By hand: printf 'n 1' | openssl dgst -sha256 -hmac secret
  assert peer_messages.proof("secret", "n", 1) == (
      "7b17054f6df7a6dd35524be34384318bd0dc2b0c4de1187993d36efccd9e6019"
  )


def test_a_proof_of_another_process_or_of_another_connection_is_none(client):
  first, second = client(process_id=0), client(process_id=1)
  nonces = [one.hear("start")["nonce"] for one in (first, second)]
  assert nonces[0] != nonces[1]
  second.say("proof", proof=peer_messages.proof("s", nonces[0], 0))
  assert "did not show the secret" in first.hear("lost")["reason"]


def test_before_its_proof_a_process_passes_no_barrier(client):
  members = [client(process_id=process_id) for process_id in (0, 1)]
  for member in members:
    member.hear("start")
    member.say("barrier", name="here")
    member.socket.settimeout(0.5)
  with pytest.raises(TimeoutError):
    members[0].hear("pass")


@pytest.mark.parametrize(
    "odd", [-1, 2, 10**30, True, "1", 1.0, None, [1], float("nan")]
)
def test_a_process_of_no_number_of_the_run_is_cut_off(client, odd):
  assert client(process_id=odd).is_cut_off()
  _assert_barrier_passes(_meet(client))


@pytest.mark.parametrize(
    "odd",
    [
        {"num_processes": True},
        {"num_processes": "2"},
        {"num_processes": -2},
        {"settings": None},
        {"settings": [[1, 2]]},
    ],
)
def test_a_greeting_of_another_form_is_cut_off(client, odd):
  assert client(**odd).is_cut_off()
  _assert_barrier_passes(_meet(client))


def test_a_number_is_taken_while_its_process_is_there(client):
  first = client(process_id=1)
  first.close()
  time.sleep(0.3)
  second = client(process_id=1)  # It comes back.
  time.sleep(0.3)
  third = client(process_id=1)
  assert "must differ" in third.hear("refused")["reason"]
  assert "must differ" in second.hear("refused")["reason"]


def test_after_the_roll_nobody_is_taken_and_the_run_goes_on(client):
  members = _meet(client)
  members[0].say("barrier", name="before")
  for process_id in (0, 1):
    late = client(process_id=process_id)
    assert "needs no second" in late.hear("refused")["reason"]
    late.say("failed", reason="no")
    assert late.is_cut_off()
  late = client(num_processes=3)
  assert "must be the same" in late.hear("refused")["reason"]
  _assert_barrier_passes(members)


_ODD_LINES = [
    b'{"kind": "alive", "count": "x"}',
    b'{"kind": "alive", "count": {}}',
    b'{"kind": "alive", "count": 1e999}',
    b'{"kind": "alive", "count": %s}' % (b"9" * 5000),
    b'{"kind": "alive"}',
    b'{"kind": "barrier", "name": {"a": []}}',
    b'{"kind": "barrier"}',
    b'{"kind": "stop", "reason": "\\ud800\\u001b[2J"}',
    b'{"kind": "failed", "reason": []}',
    b'{"kind": "proof", "proof": "\\ud800"}',
    b'{"kind": "proof"}',
    b'{"kind": []}',
    b"[" * 60_000,
    b'{"a":' * 10_000,
    b"\xff\xfe\x00",
    b"",
    b"x" * 100_000,
]


@pytest.mark.parametrize("place", ["stranger", "roll", "member"])
@pytest.mark.parametrize("line", _ODD_LINES, ids=lambda line: line[:40])
def test_what_is_no_message_gives_no_traceback(client, said, place, line):
  members = _meet(client) if place == "member" else []
  odd = members[1] if members else client()
  if place == "roll":
    odd.say("hello", **_HELLO | {"process_id": 1})
  with contextlib.suppress(ConnectionError):
    odd.socket.sendall(line + b"\n")
  odd.close()
  time.sleep(0.05)
  if members:  # It ends the run at most.
    assert members[0].hear("lost", "failed", "stop")
  else:
    _assert_barrier_passes(_meet(client))
  assert said() == ""


def test_a_stranger_is_given_little_room_and_little_time(client, monkeypatch):
  monkeypatch.setattr(peer_hub, "_HELLO_SECONDS", 0.5)
  big, slow = client(), client()
  with pytest.raises(ConnectionError):
    for _ in range(1000):
      big.socket.sendall(b"x" * 2**16)
  start = time.monotonic()
  with pytest.raises(ConnectionError):
    while True:
      slow.socket.sendall(b" ")
      time.sleep(0.05)
      assert time.monotonic() < start + 5
  _assert_barrier_passes(_meet(client))


def test_any_number_of_idle_connections_keeps_nobody_out(
    client, port, monkeypatch
):
  monkeypatch.setattr(peer_hub, "_MOST_STRANGERS", 20)
  idle = [client() for _ in range(200)]
  _assert_barrier_passes(_meet(client))
  # The hub keeps the newest of them.
  assert all(one.is_cut_off() for one in idle[:100])
  idle[-1].socket.settimeout(0.2)
  with pytest.raises(TimeoutError):
    idle[-1].is_cut_off()


def _mutated(rng, message):
  """Bytes that are no message, or almost one."""
  if rng.random() < 0.3:
    return rng.randbytes(rng.choice([1, 10, 100, 70_000]))
  line = bytearray(message)
  for _ in range(rng.randint(1, 8)):
    place = rng.randrange(len(line))
    line[place : place + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
  return bytes(line) + b"\n" * rng.randint(0, 2)


def test_random_bytes_end_no_run(client, said, fuzz_seconds):
  rng = random.Random(0)
  hello = peer_messages.encode("hello", **_HELLO | {"num_processes": 99})
  # A changed number of processes would be a verdict of its own, so only junk.
  members = _meet(client)
  deadline = time.monotonic() + fuzz_seconds
  for _ in range(2000):
    if time.monotonic() > deadline:
      break
    stranger = client()
    with contextlib.suppress(ConnectionError):
      stranger.socket.sendall(_mutated(rng, hello))
    stranger.close()
    for member in members:
      member.say("alive", count=1)
  _assert_barrier_passes(members)
  assert said() == ""


def _serve(*answers):
  """A server of others at the coordinator's address; returns its port."""
  server = socket.create_server(("127.0.0.1", 0))

  def answer():
    with server, contextlib.suppress(OSError):
      near, _ = server.accept()
      with near:
        for one in answers:
          near.sendall(one)
        time.sleep(0.5)

  threading.Thread(target=answer, daemon=True).start()
  return server.getsockname()[1]


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], errors.RunError),
        ([b'{"kind": "start"}\n'], errors.RunError),
        ([b'{"kind": "start", "port": "x"}\n'], errors.RunError),
        ([b'{"kind": "start", "port": 99999}\n'], errors.RunError),
        ([b'{"kind": "refused"}\n'], errors.InputError),
        ([b'{"kind": "missing"}\n'], errors.RunError),
        ([b"x" * 2**16] * 1000, errors.RunError),
        ([b"[" * 60_000 + b"\n"], errors.RunError),
    ],
)
def test_a_server_that_is_no_hub_is_one_line(answers, kind):
  with pytest.raises(kind):
    peers.join(
        "127.0.0.1",
        _serve(*answers),
        process_id=1,
        num_processes=2,
        settings={},
        start_timeout=5.0,
    )


@pytest.mark.parametrize("name", [None, [], {}, 1])
def test_a_watch_outlives_odd_messages(name):
  with socket.socket() as unused:
    member = peers._Membership(unused, "a:1", 1)
    member._act({"kind": "pass", "name": name})
    member._act({"kind": "pass"})
  assert not member.finished
