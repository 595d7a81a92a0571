#!/usr/bin/env bash
# Runs chain_jax on GKE as a JobSet, through preemptions; see --help.
set -euo pipefail

usage() {
  cat <<'HELP'
launch/gke.sh COMMAND [FLAG...]

  render FLAG...  prints the manifest for a run of
                  `python -m chain_jax.main FLAG...`
  apply FLAG...   gives it to the cluster
  status          state of the JobSet and of its pods
  logs            log of host WORKER; FOLLOW=1 stays with it
  delete          deletes the JobSet

Each may be repeated. The cluster itself starts hosts again on exit codes 75 and
76 and after preemptions; it starts all again on 1, MAX_FAILURES times, and gives
up at once on 2.

Settings, from the environment:
  IMAGE              made with launch/Dockerfile; required
  BUCKET             mounted on /bucket of every host; required
  DEVICE             tpu or gpu [tpu]
  NAME               of the JobSet [chain-jax]
  ACCELERATOR        [tpu-v5-lite-podslice, or nvidia-h100-80gb]
  TOPOLOGY           of the TPU slice [4x4]
  HOSTS              nodes with GPUs [2]; counted for TPUs
  CHIPS_PER_HOST     [4 TPU chips, or 8 GPUs]
  SPOT               1: on spot nodes [0]
  QUEUE              queue of Kueue; without one the JobSet starts at once []
  SERVICE_ACCOUNT    of Kubernetes, with rights to the bucket [default]
  MAX_FAILURES       restarts after exit code 1 [3]
  NAMESPACE          [default]
  WORKER             host whose log is shown [0]
  FOLLOW             1: logs goes on as the log grows [0]
  DRY_RUN            1: print every command, run none [0]
  RETRIES            attempts of a call that fails for a passing reason [5]
  RETRY_SECONDS      before the second attempt, then twice that, ... [10]

Example:
  export BUCKET=my-bucket IMAGE=us-docker.pkg.dev/my-project/images/chain-jax:tpu
  launch/gke.sh apply --config=configs/yt8m.py --workdir=/bucket/runs/yt8m
HELP
}

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
# shellcheck source=launch/retrying.sh
source "$ROOT/launch/retrying.sh"
# shellcheck disable=SC2034 # Read by `need`.
declare -rA EXAMPLES=(
  [IMAGE]=us-docker.pkg.dev/my-project/images/chain-jax:tpu [BUCKET]=my-bucket
)

readonly DEVICE=${DEVICE:-tpu} NAME=${NAME:-chain-jax} NAMESPACE=${NAMESPACE:-default}
readonly QUEUE=${QUEUE:-} SPOT=${SPOT:-0} TOPOLOGY=${TOPOLOGY:-4x4}
readonly SERVICE_ACCOUNT=${SERVICE_ACCOUNT:-default} MAX_FAILURES=${MAX_FAILURES:-3}
readonly WORKER=${WORKER:-0} FOLLOW=${FOLLOW:-0}

case $DEVICE in
  tpu)
    ACCELERATOR=${ACCELERATOR:-tpu-v5-lite-podslice}
    CHIPS_PER_HOST=${CHIPS_PER_HOST:-4}
    JOB=slice
    ;;
  gpu)
    ACCELERATOR=${ACCELERATOR:-nvidia-h100-80gb}
    CHIPS_PER_HOST=${CHIPS_PER_HOST:-8}
    HOSTS=${HOSTS:-2}
    JOB=node
    ;;
  *) fail "DEVICE must be tpu or gpu, got '$DEVICE'" ;;
esac

# Hosts of a TPU slice: its chips, by those of a host.
count_hosts() {
  local side chips=1
  [[ $TOPOLOGY =~ ^[0-9]+(x[0-9]+)+$ ]] ||
    fail "TOPOLOGY must be lengths such as 4x4, got '$TOPOLOGY'"
  for side in ${TOPOLOGY//x/ }; do chips=$((chips * side)); done
  ((chips % CHIPS_PER_HOST == 0)) ||
    fail "TOPOLOGY $TOPOLOGY has $chips chips, no multiple of CHIPS_PER_HOST=$CHIPS_PER_HOST"
  echo $((chips / CHIPS_PER_HOST))
}

# Writes one flag as a string of YAML, on a line of its own.
yaml_item() { # INDENT FLAG
  local text=${2//\\/\\\\}
  printf '%s- "%s"\n' "$1" "${text//\"/\\\"}"
}

# Leaves out what does not fit a cluster without Kueue or nodes that are not spot.
fits() { # LINE; reads AFTER_SPOT, the lines still to leave out.
  [[ $1 != *kueue.x-k8s.io/queue-name* || -n $QUEUE ]] || return 1
  [[ $SPOT != 1 ]] || return 0
  [[ $1 != *'- key: cloud.google.com/gke-spot'* ]] || AFTER_SPOT=4
  ((AFTER_SPOT == 0)) || { AFTER_SPOT=$((AFTER_SPOT - 1)) && return 1; }
  [[ $1 != *'cloud.google.com/gke-spot: "true"'* ]]
}

render() { # FLAG...
  local line name flag AFTER_SPOT=0
  while IFS= read -r line; do
    fits "$line" || continue
    if [[ $line == *'- @FLAGS@' ]]; then
      for flag in "$@"; do yaml_item "${line%%-*}" "$flag"; done
      continue
    fi
    for name in NAME QUEUE MAX_FAILURES HOSTS SERVICE_ACCOUNT ACCELERATOR TOPOLOGY \
      IMAGE CHIPS_PER_HOST BUCKET; do
      line=${line//"@$name@"/"${!name}"}
    done
    printf '%s\n' "$line"
  done <"$ROOT/launch/gke/jobset_$DEVICE.yaml"
}

check() { # FLAG...
  need IMAGE BUCKET
  need_number MAX_FAILURES CHIPS_PER_HOST
  (($#)) || fail "no flags for the run: give them, such as --config=configs/yt8m.py"
  [[ $DEVICE == gpu ]] || HOSTS=$(count_hosts) || exit 2
  need_number HOSTS
}

cluster() { # WORD...
  retry kubectl --namespace="$NAMESPACE" "$@"
}

apply() { # FLAG...
  render "$@" >"$SCRATCH/jobset.yaml"
  cluster apply --filename="$SCRATCH/jobset.yaml"
}

status() {
  cluster get jobset "$NAME"
  cluster get pods --selector="jobset.sigs.k8s.io/jobset-name=$NAME"
}

# Of the newest pod of that host: it may have been started again.
logs() {
  local words=(--container=chain-jax --tail=100 --prefix)
  [[ $FOLLOW != 1 ]] || words+=(--follow)
  cluster logs "${words[@]}" --selector="jobset.sigs.k8s.io/jobset-name=$NAME,jobset.sigs.k8s.io/replicatedjob-name=$JOB,batch.kubernetes.io/job-completion-index=$WORKER"
}

delete() {
  cluster delete jobset "$NAME" --ignore-not-found
}

main() {
  local command=${1:-}
  shift || true
  case $command in
    -h | --help | help) usage ;;
    render | apply)
      check "$@"
      "$command" "$@"
      ;;
    status | logs | delete) "$command" ;;
    *) fail "COMMAND must be one of render, apply, status, logs, delete, got '$command'; see --help" ;;
  esac
}

main "$@"
