# shellcheck shell=bash
# Sourced by the launchers: settings, DRY_RUN, and commands that are retried.

fail() {
  echo "error: $*" >&2
  exit 2
}

# macOS still brings 3.2, which has no associative arrays.
((BASH_VERSINFO[0] >= 5)) || fail "bash 5 or later is needed, this is $BASH_VERSION"

# Refuses to go on where a setting has no value.
need() {
  local name
  for name in "$@"; do
    [[ -n ${!name:-} ]] || fail "$name must be set, such as $name=${EXAMPLES[$name]}; see --help"
  done
}

# Refuses a setting that is no whole number.
need_number() {
  local name
  for name in "$@"; do
    [[ ${!name} =~ ^[0-9]+$ ]] || fail "$name must be a whole number, got '${!name}'"
  done
}

# Shows a command as one could type it.
show() {
  local line
  printf -v line '%q ' "$@"
  echo "+ ${line% }"
}

# Runs a command, or only prints it where DRY_RUN=1.
run() {
  if [[ $DRY_RUN == 1 ]]; then
    show "$@"
  else
    show "$@" >&2
    "$@"
  fi
}

# What no repetition cures, by the names that Google Cloud gives its errors.
readonly PERMANENT='NOT_FOUND|ALREADY_EXISTS|PERMISSION_DENIED|UNAUTHENTICATED|INVALID_ARGUMENT|FAILED_PRECONDITION|unrecognized arguments'

# As `run`, up to RETRIES times in all, with a pause that doubles. A usage error
# (exit code 2) and a permanent error end it at once. ERROR_FILE keeps what the
# last attempt said.
retry() {
  local attempt pause=$RETRY_SECONDS status
  for ((attempt = 1; ; attempt++)); do
    status=0
    run "$@" 2>"$ERROR_FILE" || status=$?
    cat "$ERROR_FILE" >&2
    ((status != 0)) || return 0
    if ((status == 2 || attempt >= RETRIES)) || grep -qE "$PERMANENT" "$ERROR_FILE"; then
      return "$status"
    fi
    echo "attempt $attempt of $RETRIES failed with $status; again in $pause s" >&2
    sleep "$pause"
    pause=$((pause * 2))
  done
}

DRY_RUN=${DRY_RUN:-0}
RETRIES=${RETRIES:-5}
RETRY_SECONDS=${RETRY_SECONDS:-10}
ERROR_FILE=$(mktemp)
SCRATCH=$(mktemp -d)
readonly DRY_RUN RETRIES RETRY_SECONDS ERROR_FILE SCRATCH
trap 'rm -rf "$ERROR_FILE" "$SCRATCH"' EXIT
need_number DRY_RUN RETRIES RETRY_SECONDS
