#!/usr/bin/env bash
# test.sh: everything that is checked before a change goes in, in one command.
#
# usage: tuning/test.sh [--only STAGES] [--minutes N]
#
#   --only STAGES   some of: packages fmt shell clippy test doc, separated by commas
#   --minutes N     give up when this much time has passed (25)
#   --help          this text
#
# Installs the Debian packages that the tests use if they are missing, as root or through sudo.
# Stops at the first stage that fails, and shows what it printed. Exit code: 0, 1, or 2 on a wrong
# option.
set -euo pipefail

# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Cheap ones first: a stage that fails in a second must not wait for one that takes minutes.
readonly STAGES="packages fmt shell clippy test doc"
# The tests of 10,000 connections hold both ends of each in one process, and some files beside.
readonly FILES_WANTED=32768
readonly MEMLOCK_WANTED=$((64 << 20))

only='' minutes=25
log='' stage_pid=''

parse_options() {
  local stage
  local -a stages
  while [[ $# -gt 0 ]]; do
    case $1 in
      --only | --minutes)
        need_value "$@"
        printf -v "${1#--}" '%s' "$2"
        shift 2
        ;;
      --help | -h)
        print_help
        exit 0
        ;;
      *) usage_error "unknown option '$1'" ;;
    esac
  done
  [[ $minutes =~ ^[1-9][0-9]{0,3}$ ]] || usage_error "--minutes: '$minutes' is no number of minutes"
  IFS=, read -ra stages <<<"$only"
  for stage in "${stages[@]}"; do
    [[ -n $stage && " $STAGES " == *" $stage "* ]] || usage_error "--only: no stage '$stage'"
  done
}

# ---- stages ----------------------------------------------------------------------------------

# What the tests run, and the Debian package it comes in.
stage_packages() {
  local pair redis_missing=''
  local -a missing=()
  for pair in redis-server:redis-server redis-cli:redis-tools redis-benchmark:redis-tools bc:bc \
    jq:jq cc:gcc make:make; do
    have "${pair%:*}" || [[ " ${missing[*]} " == *" ${pair#*:} "* ]] || missing+=("${pair#*:}")
  done
  have cc || missing+=(libc6-dev)
  if [[ ${#missing[@]} -gt 0 ]]; then
    [[ " ${missing[*]} " != *" redis-server "* ]] || redis_missing=1
    apt_install "${missing[@]}"
  fi
  # Debian starts what it installs. A server that was here before is none of our business.
  [[ -z $redis_missing ]] || stop_redis_service
  if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
    have rustup || die "cargo fmt or cargo clippy is missing: install rustfmt and clippy"
    rustup component add rustfmt clippy
  fi
}

stop_redis_service() {
  say "stopping the Redis service that the package started"
  if [[ -d /run/systemd/system ]]; then
    as_root systemctl disable --now redis-server
  elif [[ -x /etc/init.d/redis-server ]]; then
    as_root /etc/init.d/redis-server stop || true
  fi
}

stage_fmt() { cargo fmt --all --check; }
stage_shell() { "$tree/tuning/tests.sh"; }
stage_clippy() { cargo clippy --workspace --all-targets -- -D warnings; }
stage_test() { cargo test --workspace; }
stage_doc() { RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps; }

# ---- running them ----------------------------------------------------------------------------

# Raises a limit as far as this user may: past the hard limit if root, to it otherwise.
# raise FLAG NAME WANTED, in the units of prlimit
raise_limit() {
  local flag=$1 name=$2 wanted=$3 hard soft
  read -r soft hard < <(prlimit --pid $$ "--$name" --output SOFT,HARD --noheadings)
  [[ $soft != unlimited && $soft -lt $wanted ]] || return 0
  if [[ $hard != unlimited && $hard -lt $wanted ]]; then
    if [[ $EUID -eq 0 ]]; then
      prlimit --pid $$ "--$name=$wanted:$wanted" 2>/dev/null && return
    elif have sudo && sudo -n true 2>/dev/null; then
      sudo -n prlimit --pid $$ "--$name=$wanted:$wanted" 2>/dev/null && return
    fi
  fi
  ulimit -S "$flag" hard
}

stop_stage() {
  [[ -z $stage_pid ]] || kill -- "-$stage_pid" 2>/dev/null || true
  [[ -z $log ]] || rm -f "$log"
}

now_ms() { REPLY=${EPOCHREALTIME/[.,]/} REPLY=${REPLY::-3}; }

run_stage() {
  local name=$1 start took code=0
  now_ms && start=$REPLY
  printf '%-10s' "$name"
  # A process group of its own, so that whatever a stage leaves behind can be stopped with it.
  set -m
  "stage_$name" >"$log" 2>&1 </dev/null &
  stage_pid=$!
  set +m
  (
    # Ends with the stage, or ends the stage.
    while kill -0 "$stage_pid" 2>/dev/null; do
      if ((SECONDS >= minutes * 60)); then
        printf 'out of time: %s minutes since the start\n' "$minutes" >>"$log"
        kill -- "-$stage_pid"
        break
      fi
      sleep 0.2
    done
  ) 2>/dev/null &
  local watch=$!
  wait "$stage_pid" || code=$?
  kill "$watch" 2>/dev/null || true
  wait "$watch" 2>/dev/null || true
  kill -- "-$stage_pid" 2>/dev/null || true
  stage_pid=''
  now_ms && took=$((REPLY - start))
  printf '%s %6d.%d s\n' "$([[ $code -eq 0 ]] && echo ok || echo FAILED)" \
    $((took / 1000)) $((took % 1000 / 100))
  [[ $code -eq 0 ]] || {
    cat "$log"
    note "stage $name failed (exit code $code)"
    exit 1
  }
  # What a good stage has to say beyond its name: what it installed, what it skipped.
  grep -E '^(installing|refreshing|stopping|skipped) ' "$log" | sed 's/^/          /' || true
}

main() {
  local stage
  parse_options "$@"
  cd "$tree"
  find_cargo
  export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
  raise_limit -n nofile "$FILES_WANTED"
  raise_limit -l memlock "$MEMLOCK_WANTED"
  say "limits    $(ulimit -n) open files, $(ulimit -l) KiB locked memory, $(nproc) cores"
  log=$(mktemp)
  trap stop_stage EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  # A password for sudo is asked for here, where there is a terminal.
  [[ $EUID -eq 0 ]] || ! have sudo || [[ ! -t 0 ]] || have redis-server || sudo -v
  for stage in $STAGES; do
    [[ -z $only || ,$only, == *,$stage,* ]] || continue
    run_stage "$stage"
  done
  say "all well  $SECONDS s"
}

main "$@"
