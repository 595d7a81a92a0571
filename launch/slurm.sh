#!/usr/bin/env bash
# Runs chain_jax on several nodes with GPUs, through preemptions and time limits:
#
#   sbatch --nodes=4 launch/slurm.sh --config=configs/yt8m.py --workdir=DIR
#
# DIR and the data must be on a disk that all nodes share. Options of sbatch given
# on the command line win over those below. Settings, from the environment:
#   PYTHON         of the environment with chain_jax[cuda] [.venv/bin/python]
#   MAX_RESTARTS   requeues, for whatever reason [100]
#   MAX_FAILURES   of these: runs that ended with 1 or an unknown code [3]
#   RETRY_SECONDS  before scontrol is tried again, then twice that [10]
#   DRY_RUN        1: print the srun command, run nothing [0]
#
#SBATCH --job-name=chain_jax
#SBATCH --nodes=2
# One task for each GPU: so JAX counts its processes under Slurm. Every task sees
# all GPUs of its node and takes the one of its local number.
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# 90 s before the time limit all tasks (not this script) are told to save.
#SBATCH --signal=TERM@90
set -euo pipefail

readonly PYTHON=${PYTHON:-.venv/bin/python} DRY_RUN=${DRY_RUN:-0}
readonly MAX_RESTARTS=${MAX_RESTARTS:-100} MAX_FAILURES=${MAX_FAILURES:-3}
readonly RETRY_SECONDS=${RETRY_SECONDS:-10}

# What each task runs. srun reports only the greatest code of all tasks, and the
# 76 of those left behind is greater than the 1 or 2 of the one at fault: so a
# task writes down a code that is its own fault. The signal reaches python
# directly; the shell around it has to outlive it.
# shellcheck disable=SC2016 # The task's shell expands it.
readonly TASK='
trap : TERM
"$PYTHON" -m chain_jax.main "$@" &
child=$! code=0
wait "$child" || code=$?
while kill -0 "$child" 2>/dev/null; do code=0; wait "$child" || code=$?; done
case $code in 0 | 75 | 76) ;; *) echo "$code" >"$CODES/$SLURM_PROCID" ;; esac
exit "$code"
'

# Runs all tasks; prints what they come to: finished, refused, again or failed.
run_tasks() { # FLAG...
  local status=0
  # What is left of a run before this one, or of a task that was killed.
  rm -rf "$CODES" && mkdir -p "$CODES"
  # The tasks end each other, after saving; Slurm must not be quicker.
  srun --kill-on-bad-exit=0 --wait=0 --label bash -c "$TASK" chain_jax "$@" >&2 ||
    status=$?
  if grep -qx 2 "$CODES"/* 2>/dev/null; then
    echo refused
  elif ((status == 0)); then
    echo finished
  elif [[ -z $(ls -A "$CODES") ]] && ((status == 75 || status == 76)); then
    echo again
  else
    echo failed
  fi
}

# Counts the failures of this job, over its requeues.
count_failure() {
  local failures=0
  [[ ! -f $FOLDER/failures ]] || failures=$(<"$FOLDER/failures")
  echo $((failures + 1)) | tee "$FOLDER/failures"
}

requeue() {
  local attempt pause=$RETRY_SECONDS
  if ((${SLURM_RESTART_COUNT:-0} >= MAX_RESTARTS)); then
    echo "error: $MAX_RESTARTS requeues were not enough; see MAX_RESTARTS" >&2
    return 1
  fi
  for attempt in 1 2 3 4 5; do
    scontrol requeue "$SLURM_JOB_ID" && return 0
    echo "scontrol: attempt $attempt of 5 failed; again in $pause s" >&2
    sleep "$pause"
    pause=$((pause * 2))
  done
  echo "error: the job could not be requeued; submit the same command again" >&2
  return 1
}

main() {
  if (($# == 0)); then
    echo "error: no flags for the run: give them, such as --config=configs/yt8m.py" >&2
    exit 2
  elif [[ $DRY_RUN == 1 ]]; then
    echo "+ srun --kill-on-bad-exit=0 --wait=0 --label $PYTHON -m chain_jax.main $*"
    exit 0
  elif [[ -z ${SLURM_JOB_ID:-} ]]; then
    echo "error: this is a script for sbatch: sbatch launch/slurm.sh $*" >&2
    exit 2
  fi
  # On the disk that the nodes share, where the job was submitted.
  readonly FOLDER=${SLURM_SUBMIT_DIR:-$PWD}/.chain_jax_slurm/$SLURM_JOB_ID
  export PYTHON CODES=$FOLDER/codes
  case $(run_tasks "$@") in
    finished) rm -rf "$FOLDER" ;;
    refused)
      echo "error: the run refused its input; it is not repeated" >&2
      exit 2
      ;;
    again)
      requeue || exit 1
      exit 75
      ;;
    failed)
      if (($(count_failure) > MAX_FAILURES)); then
        echo "error: the run failed more than $MAX_FAILURES times" >&2
        exit 1
      fi
      requeue || exit 1
      exit 75
      ;;
  esac
}

main "$@"
