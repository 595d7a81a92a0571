# shellcheck shell=bash
# Sourced by tpu_vm.sh: looks at a run and decides what to do about it.

# "lost" where the VM is gone though its queued resource may not know it yet.
lost_or_present() {
  case $(vm_state) in
    PREEMPTED | TERMINATED | ABSENT | STOPPED) echo lost ;;
    *) echo present ;;
  esac
}

# Says in one word what the hosts' states come to. A host whose own fault ended
# the run leaves 76 on the others, so the worst state of any host decides, and
# only once none runs any more.
verdict() { # STATE...
  local state running=0 missing=0 refused=0 failed=0 again=0
  for state in "$@"; do
    case $state in
      running) running=1 ;;
      not_started) missing=1 ;;
      exited_0) ;;
      exited_75 | exited_76 | lost) again=1 ;;
      exited_2) refused=1 ;;
      *) failed=1 ;;
    esac
  done
  if (($# == 0)); then
    echo unreachable
  elif ((running)); then
    if ((missing)); then echo incomplete; else echo running; fi
  elif ((refused)); then
    echo refused
  elif ((failed)); then
    echo failed
  elif ((again || missing)); then
    echo again
  else
    echo finished
  fi
}

# What one look finds: a verdict, or gone or waiting where there is no VM.
look() {
  local state hosts
  state=$(queue_state ACTIVE) || { echo unreachable && return; }
  case $state in
    ACTIVE) ;;
    SUSPENDING | SUSPENDED | FAILED | DELETING | ABSENT) echo gone && return ;;
    *) echo waiting && return ;;
  esac
  hosts=$(worker status) || { echo unreachable && return; }
  # shellcheck disable=SC2046 # One word a host.
  verdict $(grep -oE 'chain_jax_worker [^ ]+ [a-z_0-9]+' <<<"$hosts" | cut -d' ' -f3)
}

# Does what a look calls for. Sets RESTARTS, FAILURES, UNREACHABLE.
act() { # SEEN
  case $1 in
    running) UNREACHABLE=0 ;;
    # Where nothing runs all is set up again: a setup may have failed, and a
    # VM that was booted anew has lost its mounts.
    waiting | gone | again) restart resume present ;;
    incomplete) restart worker start "${FLAGS[@]}" ;;
    failed)
      FAILURES=$((FAILURES + 1))
      restart resume present
      ;;
    unreachable) reach ;;
  esac
}

restart() { # WORD...
  RESTARTS=$((RESTARTS + 1)) UNREACHABLE=0
  ((RESTARTS <= MAX_RESTARTS && FAILURES <= MAX_FAILURES)) || return 0
  echo "restart $RESTARTS of at most $MAX_RESTARTS" >&2
  "$@"
}

reach() {
  UNREACHABLE=$((UNREACHABLE + 1))
  if [[ $(lost_or_present) == lost ]] || ((UNREACHABLE >= MAX_UNREACHABLE)); then
    restart resume lost
  fi
}

# Looks and acts until the run is done, is refused, or fails too often.
watch() {
  local seen
  RESTARTS=0 FAILURES=0 UNREACHABLE=0
  if [[ $DRY_RUN == 1 ]]; then
    status && resume present
    return
  fi
  while true; do
    seen=$(look)
    echo "$(date -u +%H:%M:%S) $NAME: $seen" >&2
    case $seen in
      finished) echo "the run on $NAME is done" && return 0 ;;
      refused) fail "the run refused its input; see: launch/tpu_vm.sh logs" ;;
    esac
    act "$seen" || echo "that failed; looking again in $POLL_SECONDS s" >&2
    if ((FAILURES > MAX_FAILURES)); then
      echo "error: the run failed $FAILURES times; see: launch/tpu_vm.sh logs" >&2
      return 1
    elif ((RESTARTS > MAX_RESTARTS)); then
      echo "error: $MAX_RESTARTS restarts were not enough; see MAX_RESTARTS" >&2
      return 1
    fi
    sleep "$POLL_SECONDS"
  done
}
