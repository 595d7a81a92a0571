#!/usr/bin/env bash
# Runs chain_jax on a Cloud TPU slice, through preemptions; see --help.
set -euo pipefail

usage() {
  cat <<'HELP'
launch/tpu_vm.sh COMMAND [FLAG...]

  create          asks for a TPU slice as a queued resource
  setup           waits for it, then installs this checkout's commit on all hosts
  run FLAG...     starts `python -m chain_jax.main FLAG...` on all hosts, detached
  status          state of the queued resource and of the run on every host
  logs            end of the log of host WORKER; FOLLOW=1 stays with it
  stop            asks the run to save and end (exit code 75)
  resume          brings back what preemption took: deletes a SUSPENDED or FAILED
                  queued resource, creates it again, setup, the same run
  watch [FLAG...] start or resume, again and again, until the run ends with 0
  delete          deletes the queued resource and its VMs

Each may be repeated: what is done already is said and left alone.

Settings, from the environment:
  PROJECT            Google Cloud project; required
  ZONE               such as us-west4-a; required
  ACCELERATOR_TYPE   such as v5litepod-16 or v4-32; required to create
  NAME               of the queued resource and its TPU VM [chain-jax]
  SPOT               1: cheaper and preemptible [0]
  RUNTIME_VERSION    VM image [by the generation of ACCELERATOR_TYPE]
  CREATE_FLAGS       more words for `queued-resources create` []
  SSH_FLAGS          more words for ssh and scp, such as --internal-ip []
  EXTRA              of the package [tpu,gcs]
  BUCKET             mounted with gcsfuse on ~/bucket of every host []
  SETUP_COMMAND      run on every host at the end of setup []
  WORKER             host whose log is shown [0]
  FOLLOW             1: logs goes on as the log grows [0]
  STATE_FOLDER       keeps the flags of `run` [~/.local/state/chain_jax]
  DRY_RUN            1: print every command, run none [0]
  RETRIES            attempts of a call that fails for a passing reason [5]
  RETRY_SECONDS      before the second attempt, then twice that, ... [10]
  POLL_SECONDS       between two looks at a state [30]
  WAIT_SECONDS       for the queued resource to become ACTIVE [86400]
  MAX_RESTARTS       of watch, for whatever reason [100]
  MAX_FAILURES       of these: runs that ended with 1 or an unknown code [3]

Exit codes: 0 done; 1 the run or a call failed; 2 a setting, a flag or the run's
input is wrong.

Example:
  export PROJECT=my-project ZONE=us-west4-a ACCELERATOR_TYPE=v5litepod-16 SPOT=1
  launch/tpu_vm.sh create
  launch/tpu_vm.sh setup
  launch/tpu_vm.sh watch --config=configs/yt8m.py --workdir=bucket/runs/yt8m
HELP
}

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
# shellcheck source=launch/retrying.sh
source "$ROOT/launch/retrying.sh"
# shellcheck disable=SC2034 # Read by `need`.
declare -rA EXAMPLES=(
  [PROJECT]=my-project [ZONE]=us-west4-a [ACCELERATOR_TYPE]=v5litepod-16
)

readonly NAME=${NAME:-chain-jax} SPOT=${SPOT:-0} EXTRA=${EXTRA:-tpu,gcs}
readonly BUCKET=${BUCKET:-} SETUP_COMMAND=${SETUP_COMMAND:-}
readonly WORKER=${WORKER:-0} FOLLOW=${FOLLOW:-0}
readonly STATE_FOLDER=${STATE_FOLDER:-$HOME/.local/state/chain_jax}
readonly POLL_SECONDS=${POLL_SECONDS:-30} WAIT_SECONDS=${WAIT_SECONDS:-86400}
readonly MAX_RESTARTS=${MAX_RESTARTS:-100} MAX_FAILURES=${MAX_FAILURES:-3}
# Looks in a row that find a READY VM out of reach, before it is given up.
readonly MAX_UNREACHABLE=10
read -ra CREATE_WORDS <<<"${CREATE_FLAGS:-}"
read -ra SSH_WORDS <<<"${SSH_FLAGS:-}"

# cloud.google.com/tpu/docs/runtimes, "PyTorch and JAX".
runtime_version() {
  case $ACCELERATOR_TYPE in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v[234]-*) echo tpu-ubuntu2204-base ;;
    *) fail "ACCELERATOR_TYPE $ACCELERATOR_TYPE is of no known generation; set RUNTIME_VERSION, or try v5litepod-16" ;;
  esac
}

queue() { # VERB [WORD...]
  retry gcloud compute tpus queued-resources "$1" "$NAME" \
    --project="$PROJECT" --zone="$ZONE" "${@:2}"
}

on_hosts() { # WHICH COMMAND
  retry gcloud compute tpus tpu-vm ssh "$NAME" --project="$PROJECT" \
    --zone="$ZONE" --worker="$1" --quiet "${SSH_WORDS[@]}" --command="$2"
}

on_all_hosts() { # WORD...
  local line
  printf -v line '%q ' "$@"
  on_hosts all "${line% }"
}

worker() { # WORD...
  on_all_hosts bash chain_jax_source/launch/worker.sh "$@"
}

# Prints what a `describe` says, or ABSENT. A dry run takes the first word for it.
described() { # ASSUMED GCLOUD-WORD...
  local answer status=0
  if [[ $DRY_RUN == 1 ]]; then
    show "${@:2}" >&2
    echo "$1"
    return
  fi
  answer=$(retry "${@:2}" 2>"$SCRATCH/describe") || status=$?
  if ((status == 0)); then
    echo "$answer"
  elif grep -q NOT_FOUND "$SCRATCH/describe"; then
    echo ABSENT
  else
    cat "$SCRATCH/describe" >&2
    return 1
  fi
}

queue_state() { # ASSUMED
  described "$1" gcloud compute tpus queued-resources describe "$NAME" \
    --project="$PROJECT" --zone="$ZONE" '--format=value(state.state)'
}

vm_state() {
  described READY gcloud compute tpus tpu-vm describe "$NAME" \
    --project="$PROJECT" --zone="$ZONE" '--format=value(state)'
}

create() {
  need ACCELERATOR_TYPE
  local state image status=0
  image=${RUNTIME_VERSION:-$(runtime_version)} || exit 2
  state=$(queue_state ABSENT) || return 1
  if [[ $state != ABSENT ]]; then
    echo "queued resource $NAME is there already, $state"
    return
  fi
  local words=("--node-id=$NAME" "--accelerator-type=$ACCELERATOR_TYPE"
    "--runtime-version=$image" --quiet)
  [[ $SPOT != 1 ]] || words+=(--spot)
  queue create "${words[@]}" "${CREATE_WORDS[@]}" || status=$?
  # An attempt whose answer was lost may have been the one that did it.
  ((status == 0)) || grep -q ALREADY_EXISTS "$ERROR_FILE" || return "$status"
}

delete() {
  local state
  state=$(queue_state ACTIVE) || return 1
  if [[ $state == ABSENT ]]; then
    echo "there is no queued resource $NAME"
  else
    queue delete --force --quiet || grep -q NOT_FOUND "$ERROR_FILE"
  fi
}

wait_active() {
  local state waited=0
  while state=$(queue_state ACTIVE) && [[ $state != ACTIVE ]]; do
    case $state in
      ABSENT | SUSPENDED | FAILED)
        echo "error: queued resource $NAME is $state; create or resume it" >&2
        return 1
        ;;
    esac
    if ((waited >= WAIT_SECONDS)); then
      echo "error: queued resource $NAME is still $state after $waited s; see WAIT_SECONDS" >&2
      return 1
    fi
    echo "queued resource $NAME is $state; looking again in $POLL_SECONDS s" >&2
    sleep "$POLL_SECONDS"
    waited=$((waited + POLL_SECONDS))
  done
  [[ $state == ACTIVE ]]
}

# A host that runs keeps its files: worker.sh of the last setup says so.
# shellcheck disable=SC2016 # The host expands it.
readonly UNPACK='old=chain_jax_source/launch/worker.sh
if [ -f $old ]; then bash $old idle || exit 2; fi
rm -rf chain_jax_source && mkdir chain_jax_source &&
tar -xzf chain_jax.tar.gz -C chain_jax_source'

setup() {
  wait_active || return 1
  if [[ -n $(git -C "$ROOT" status --porcelain) ]]; then
    echo "note: changes that are not committed stay here" >&2
  fi
  local archive=$SCRATCH/chain_jax.tar.gz
  run git -C "$ROOT" archive --format=tar.gz --output="$archive" HEAD || return 1
  retry gcloud compute tpus tpu-vm scp "$archive" "$NAME:chain_jax.tar.gz" \
    --project="$PROJECT" --zone="$ZONE" --worker=all --quiet "${SSH_WORDS[@]}" || return
  on_hosts all "$UNPACK" || return
  worker install "$EXTRA" || return
  [[ -z $BUCKET ]] || worker mount "$BUCKET" || return
  [[ -z $SETUP_COMMAND ]] || on_hosts all "$SETUP_COMMAND"
}

# Keeps the flags of the run here: a VM that is preempted forgets them.
remember() { # FLAG...
  [[ $DRY_RUN != 1 ]] || return 0
  mkdir -p "$STATE_FOLDER"
  printf '%s\0' "$@" >"$STATE_FOLDER/$NAME.flags"
}

# Sets FLAGS to those given, or else to those of the last run.
recall() { # [FLAG...]
  FLAGS=("$@")
  if (($# == 0)) && [[ -f $STATE_FOLDER/$NAME.flags ]]; then
    mapfile -d '' -t FLAGS <"$STATE_FOLDER/$NAME.flags"
  fi
  ((${#FLAGS[@]})) || fail "no flags for the run: give them, such as --config=configs/yt8m.py"
  remember "${FLAGS[@]}"
}

status() {
  local state
  state=$(queue_state ACTIVE) || return 1
  echo "queued resource $NAME: $state"
  [[ $state != ACTIVE ]] || worker status
}

logs() {
  local command='tail -n 100 chain_jax_run/log.txt'
  [[ $FOLLOW != 1 ]] || command='tail -n 100 -F chain_jax_run/log.txt'
  on_hosts "$WORKER" "$command"
}

# Gets a VM that can be set up: waits out a deletion, replaces what is lost.
replace() {
  local state waited=0
  while state=$(queue_state SUSPENDED) && [[ $state == SUSPENDING || $state == DELETING ]] &&
    ((waited < WAIT_SECONDS)); do
    sleep "$POLL_SECONDS"
    waited=$((waited + POLL_SECONDS))
  done
  case $state in
    SUSPENDED | FAILED) queue delete --force --quiet && create ;;
    ABSENT) create ;;
    ACTIVE) [[ $1 != lost ]] || { queue delete --force --quiet && create; } ;;
    '') return 1 ;;
  esac
}

resume() { # present|lost
  replace "$1" && setup && worker start "${FLAGS[@]}"
}

# shellcheck source=launch/tpu_watch.sh
source "$ROOT/launch/tpu_watch.sh"

main() {
  local command=${1:-}
  shift || true
  case $command in
    -h | --help | help) usage && exit 0 ;;
    create | setup | run | status | logs | stop | resume | watch | delete) ;;
    *) fail "COMMAND must be one of create, setup, run, status, logs, stop, resume, watch, delete, got '$command'; see --help" ;;
  esac
  need PROJECT ZONE
  need_number POLL_SECONDS WAIT_SECONDS MAX_RESTARTS MAX_FAILURES
  case $command in
    run) recall "$@" && worker start "${FLAGS[@]}" ;;
    stop) worker stop ;;
    resume) need ACCELERATOR_TYPE && recall "$@" && resume "$(lost_or_present)" ;;
    watch) need ACCELERATOR_TYPE && recall "$@" && watch ;;
    *) "$command" ;;
  esac
}

main "$@"
