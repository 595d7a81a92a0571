#!/usr/bin/env bash
# Runs on each host of a TPU slice; tpu_vm.sh copies it there and calls it.
#
#   worker.sh install EXTRA     makes ~/chain_jax_venv and installs the source
#   worker.sh mount BUCKET      mounts a bucket on ~/bucket
#   worker.sh start [FLAG...]   starts `python -m chain_jax.main FLAG...`, detached
#   worker.sh status            prints "chain_jax_worker HOST STATE"; STATE is one of
#                               running, not_started, lost, exited_CODE
#   worker.sh stop              asks the run to save and end (SIGTERM)
#   worker.sh idle              exits 2 where a run is under way
#
# Each may be repeated: what is done already is said and left alone.
set -euo pipefail

readonly SOURCE=$HOME/chain_jax_source
readonly VENV=$HOME/chain_jax_venv
readonly RUN=$HOME/chain_jax_run # log.txt, lock, pid, exit_code
readonly BUCKET_FOLDER=$HOME/bucket

fail() {
  echo "error: $*" >&2
  exit 2
}

# The Python that the package needs, with what makes environments.
find_python() {
  local name
  for name in python3.12 python3.11; do
    if "$name" -c 'import ensurepip, venv' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
}

make_venv() {
  if [[ -x $VENV/bin/pip ]]; then
    echo "$VENV is there already"
    return
  fi
  local python
  python=$(find_python)
  if [[ -n $python ]]; then
    "$python" -m venv "$VENV"
  else # The images of TPU VMs bring Python 3.10; uv fetches a newer one.
    python3 -m pip install --quiet --user uv
    python3 -m uv venv --quiet --seed --python 3.12 "$VENV"
  fi
}

install() {
  local extra=${1:?EXTRA is missing}
  make_venv
  # Editable, so that the files in configs/ lie beside the package.
  "$VENV/bin/pip" install --quiet --editable "${SOURCE}[$extra]"
  echo "installed ${SOURCE}[$extra]"
}

mount_bucket() {
  local bucket=${1:?BUCKET is missing}
  if mountpoint -q "$BUCKET_FOLDER"; then
    echo "$BUCKET_FOLDER is mounted already"
    return
  fi
  command -v gcsfuse >/dev/null ||
    fail "gcsfuse is not on $(hostname): install it in SETUP_COMMAND, or leave BUCKET empty"
  mkdir -p "$BUCKET_FOLDER"
  gcsfuse --implicit-dirs "$bucket" "$BUCKET_FOLDER"
}

# A lock that the run's processes hold while any of them lives: unlike a
# process id it survives no reboot and means no other process.
take_lock() {
  mkdir -p "$RUN"
  exec 9>"$RUN/lock"
  flock --nonblock 9
}

start() {
  if ! take_lock; then
    echo "a run is under way on $(hostname); left alone"
    return
  fi
  rm -f "$RUN/exit_code"
  touch "$RUN/started"
  # In a session of its own, so that it outlives the ssh connection.
  setsid nohup bash "$0" supervise "$@" </dev/null >/dev/null 2>&1 &
  echo "started on $(hostname), log in $RUN/log.txt"
}

# Not for hand use: runs the program and writes down how it ended.
supervise() {
  local code=0 child
  cd "$HOME" # What relative paths in the flags mean.
  {
    echo "--- $(date -u +%Y-%m-%dT%H:%M:%SZ) start: $*"
    "$VENV/bin/python" -m chain_jax.main "$@" &
    child=$!
    echo "$child" >"$RUN/pid"
    wait "$child" || code=$?
    echo "--- $(date -u +%Y-%m-%dT%H:%M:%SZ) exit code $code"
  } >>"$RUN/log.txt" 2>&1
  echo "$code" >"$RUN/exit_code.new"
  mv "$RUN/exit_code.new" "$RUN/exit_code"
}

state() {
  if ! take_lock; then
    echo running
  elif [[ -f $RUN/exit_code ]]; then
    echo "exited_$(<"$RUN/exit_code")"
  elif [[ -f $RUN/started ]]; then
    echo lost # Killed together with who would have written the code down.
  else
    echo not_started
  fi
}

stop() {
  if take_lock; then
    echo "nothing runs on $(hostname)"
  else
    kill -TERM "$(<"$RUN/pid")"
    echo "asked the run on $(hostname) to save and end"
  fi
}

idle() {
  take_lock || fail "a run is under way on $(hostname); stop it first"
}

main() {
  local command=${1:-}
  shift || true
  case $command in
    install | start | supervise | stop | idle) "$command" "$@" ;;
    mount) mount_bucket "$@" ;;
    status) echo "chain_jax_worker $(hostname) $(state)" ;;
    *) fail "unknown command '$command'; see the head of worker.sh" ;;
  esac
}

main "$@"
