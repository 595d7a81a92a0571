"""A process of a run without JAX: python peer_program.py JSON, for the tests."""

import json
import sys
import time

from chain_jax import errors, peer_hub, peer_messages, peers, stop_notice


def main(settings):
  peer_messages.ALIVE_SECONDS = 0.2
  peer_messages.SILENCE_SECONDS = settings["silence_seconds"]
  process_id, num_processes = settings["process_id"], settings["num_processes"]
  if process_id == 0:
    hub = peer_hub.Hub(
        "localhost",
        settings["port"],
        secret=settings["secret"],
        num_processes=num_processes,
        start_timeout=settings["start_timeout"],
        hang_seconds=settings["hang_seconds"],
    )
    hub.start()
  peers.join(
      "localhost",
      settings["port"],
      process_id=process_id,
      num_processes=num_processes,
      settings=settings["settings"],
      start_timeout=settings["start_timeout"],
  )
  print("joined", flush=True)
  with peers.told():
    if settings["secret"] is not None:
      peers.prove(settings["secret"])
    for action in settings["actions"]:
      act(*action)
    peers.leave()


def act(name, value=None):
  if name == "sleep":
    time.sleep(value)
  elif name == "progress":
    peers.progress()
  elif name == "barrier":
    print("told", peers.barrier("here", value), flush=True)
  elif name == "fail":
    raise {"input": errors.InputError, "run": errors.RunError}[value](value)
  elif name == "work":
    while True:
      peers.progress()
      time.sleep(0.05)


if __name__ == "__main__":
  stop_notice.install()
  sys.exit(errors.run_command(lambda: main(json.loads(sys.argv[1]))))
