#!/usr/bin/env bash
# suites.sh: public test suites of clients, run against a server.
#
# usage: tuning/suites.sh [--only SUITES] [--tests EXPRESSION] [--seed N] [--logs DIR] [SERVER]
#
#   SERVER               the program (target/release/cordis-server, which is built); redis-server
#                        shows what the suites themselves are worth
#   --only SUITES        some of: redis-py fakeredis models, separated by commas
#   --tests EXPRESSION   only tests that pytest's -k selects
#   --seed N             of the random calls of `models` (the date)
#   --logs DIR           keep all that was printed
#   --help               this text
#
# redis-py: the tests of the client redis-py, in RESP2 and RESP3. fakeredis: the tests of a model of
# Redis, of which those for a real server are run. models: its tests by random calls, to which server
# and model must give the same replies. The suites are what PyPI has in the source archives of two
# packages; they come into a temporary folder, with a Python environment of their own.
# What is left out stands in suites/*.txt, with the reason. Everything else must pass.
# Takes about 20 minutes. Exit code: 0, 1 if a test failed, or 2 on a wrong option.
set -euo pipefail

# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

readonly SUITES="redis-py fakeredis models"
readonly REDIS_PY=7.4.1
readonly FAKEREDIS=2.36.2
# The port that the tests of fakeredis have written in them.
readonly FAKEREDIS_PORT=6390

only='' tests='' seed='' logs='' server=''
work='' server_pid='' suite_pid='' port='' failed=''

parse_options() {
  local suite
  local -a suites
  while [[ $# -gt 0 ]]; do
    case $1 in
      --only | --tests | --seed | --logs)
        need_value "$@"
        printf -v "${1#--}" '%s' "$2"
        shift 2
        ;;
      --help | -h)
        print_help
        exit 0
        ;;
      -*) usage_error "unknown option '$1'" ;;
      *)
        [[ -z $server ]] || usage_error "one server only, and there are '$server' and '$1'"
        server=$1
        shift
        ;;
    esac
  done
  IFS=, read -ra suites <<<"$only"
  for suite in "${suites[@]}"; do
    [[ -n $suite && " $SUITES " == *" $suite "* ]] || usage_error "--only: no suite '$suite'"
  done
  [[ -n $seed ]] || seed=$(date +%Y%m%d)
  [[ $seed =~ ^[0-9]{1,18}$ ]] || usage_error "--seed: '$seed' is no number"
}

# ---- what is run -----------------------------------------------------------------------------

find_server() {
  if [[ -z $server ]]; then
    find_cargo
    say "building cordis-server"
    (cd "$tree" && cargo build --quiet --release -p cordis-server)
    server=${CARGO_TARGET_DIR:-$tree/target}/release/cordis-server
  fi
  have "$server" || die "there is no program '$server'"
  server=$(command -v "$server")
  [[ $server == /* ]] || server=$PWD/$server
}

# A Python environment with both packages, and their sources unpacked.
fetch() {
  local pip="$work/python/bin/pip" package name
  if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
    apt_install python3 python3-venv
  fi
  python3 -m venv "$work/python"
  "$pip" install --quiet --disable-pip-version-check "redis==$REDIS_PY" "fakeredis==$FAKEREDIS" \
    --requirement "$tree/tuning/suites/requirements.txt"
  for package in "redis==$REDIS_PY" "fakeredis==$FAKEREDIS"; do
    "$pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
      --dest "$work" "$package"
    name=${package/==/-}
    tar -xzf "$work/$name.tar.gz" -C "$work"
    mv "$work/$name" "$work/${package%%==*}"
  done
  write_settings redis auto
  write_settings fakeredis strict
}

# Our settings for pytest, in place of those of the packages, which ask for further packages.
write_settings() {
  local folder=$1 mode=$2
  printf '[pytest]\nasyncio_mode = %s\nasyncio_default_fixture_loop_scope = function\n' "$mode" \
    >"$work/$folder/pytest.ini"
}

# ---- the server ------------------------------------------------------------------------------

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A port that nobody uses -> port. The tests of fakeredis have theirs written in them.
choose_port() {
  while answers "${port:=$((20000 + RANDOM % 12000))}"; do port=''; done
  grep -rlw "$FAKEREDIS_PORT" "$work/fakeredis/test" |
    xargs sed -i "s/\\b$FAKEREDIS_PORT\\b/$port/g"
}

# Starts the server with an empty folder.
start_server() {
  local folder tries
  folder=$(mktemp -d "$work/server.XXXXXX")
  "$server" --port "$port" --bind 127.0.0.1 --dir "$folder" --save '' >>"$logs/server.log" 2>&1 &
  server_pid=$!
  for ((tries = 0; tries < 100; tries++)); do
    kill -0 "$server_pid" 2>/dev/null || break
    answers "$port" && return
    sleep 0.1
  done
  tail -n 20 "$logs/server.log" >&2
  die "$server does not start"
}

# Fails if it is gone already: the worst that a test can do to it.
stop_server() {
  local code=0
  [[ -n $server_pid ]] || return 0
  kill "$server_pid" 2>/dev/null || code=1
  wait "$server_pid" 2>/dev/null || true
  server_pid=''
  return "$code"
}

clean_up() {
  [[ -z $suite_pid ]] || kill "$suite_pid" 2>/dev/null || true
  stop_server || true
  [[ -z $work ]] || rm -rf "$work"
}

# ---- running ---------------------------------------------------------------------------------

# run_pytest NAME FOLDER LIST ARGUMENT...: with a list of what is left out.
run_pytest() {
  local folder=$2 list=$3
  shift 3
  [[ -z $tests ]] || set -- "$@" -k "$tests"
  cd "$work/$folder"
  export LEFT_OUT="$tree/tuning/suites/$list.txt" LEFT_OUT_PART=$tests
  export SERVER_PORT=$port PYTHONPATH="$tree/tuning/suites" PYTHONDONTWRITEBYTECODE=1
  exec "$work/python/bin/python" -m pytest -q -p left_out -p no:cacheprovider -p no:warnings \
    --tb=short -rfE "$@"
}

# As run_pytest, on a fresh server; prints what came of it.
run() {
  local name=$1 log="$logs/$1.log" code=0 start=$SECONDS counts
  start_server
  # Beside this shell, which would otherwise not hear a signal until it ends.
  run_pytest "$@" >"$log" 2>&1 </dev/null &
  suite_pid=$!
  wait "$suite_pid" || code=$?
  suite_pid=''
  counts=$(grep -E '^[0-9]+ [a-z]+.* in [0-9.]+s' "$log" | tail -n 1) || true
  printf '%-14s %s, %s s\n' "$name" "${counts% in *}" "$((SECONDS - start))"
  grep -E '^left out by the list|names nothing$' "$log" | sed 's/^/               /' || true
  # With --tests nothing may be left of a suite: pytest's 5.
  if [[ $code -ne 0 && ! (-n $tests && $code -eq 5) ]]; then
    failed=1
    grep -E '^(FAILED|ERROR) ' "$log" || tail -n 40 "$log"
    note "$name failed (exit code $code)"
  fi
  if ! stop_server; then
    failed=1
    tail -n 20 "$logs/server.log"
    note "$name: the server died"
  fi
}

suite_redis-py() {
  local protocol
  for protocol in 2 3; do
    run "redis-py-resp$protocol" redis redis-py --timeout 60 tests --protocol "$protocol" \
      --redis-url "redis://localhost:$port/0" -m 'not onlycluster and not redismod and not ssl'
  done
}

suite_fakeredis() {
  run fakeredis fakeredis fakeredis --timeout 60 -m 'not fake' \
    --ignore test/test_hypothesis test
}

suite_models() {
  run models fakeredis models -p model_of_7_0 --timeout 900 --hypothesis-seed "$seed" \
    test/test_hypothesis
}

main() {
  local suite
  parse_options "$@"
  work=$(mktemp -d)
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  if [[ -n $logs ]]; then
    mkdir -p "$logs"
    logs=$(cd "$logs" && pwd)
  else
    logs=$work
  fi
  find_server
  fetch
  choose_port
  say "server     $("$server" --version | head -n 1), seed $seed"
  for suite in $SUITES; do
    [[ -n $only && ,$only, != *,$suite,* ]] || "suite_$suite"
  done
  [[ -z $failed ]] || exit 1
  say "all well   $SECONDS s"
}

main "$@"
