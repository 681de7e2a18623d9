#!/usr/bin/env bash
# flamegraph.sh: where a process spends its CPU time, as an SVG to open in a browser.
#
# usage: tuning/flamegraph.sh --pid PID [options]
#        tuning/flamegraph.sh --run [options]
#
#   --pid PID           sample this process
#   --run               start a server and load it, sample it, stop both
#   --seconds N         how long to sample (10)
#   --out FILE          the SVG (target/flamegraph.svg)
#   --call-graph HOW    fp: frame pointers (the default), or dwarf: for binaries without them
#
# With --run:
#   --binary PATH       server to start (default: cordis-server, built with frame pointers)
#   --server-args TEXT  more arguments for it, split at spaces
#   --port N            its port on loopback (16379)
#   --load TEXT         arguments of redis-benchmark, split at spaces
#                       (-c 50 -P 16 -t set,get -r 100000 -d 64)
#
# Samples with the timer of the kernel, so that it works in virtual machines without hardware
# counters. Installs what is missing, and says so: perf and redis-tools from Debian, inferno by cargo.
set -euo pipefail

# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

pid='' run='' seconds=10 out='' call_graph=fp binary='' server_args='' port=16379
load='-c 50 -P 16 -t set,get -r 100000 -d 64'
scratch='' server='' client=''

parse_options() {
  while [[ $# -gt 0 ]]; do
    case $1 in
      --run) run=1 && shift ;;
      --server-args | --load)
        # These values begin with a dash as a rule.
        [[ $# -ge 2 ]] || usage_error "$1 needs a value"
        if [[ $1 == --load ]]; then load=$2; else server_args=$2; fi
        shift 2
        ;;
      --pid | --seconds | --out | --call-graph | --binary | --port)
        need_value "$@"
        local name=${1#--}
        printf -v "${name//-/_}" '%s' "$2"
        shift 2
        ;;
      --help | -h)
        print_help
        exit 0
        ;;
      *) usage_error "unknown option '$1'" ;;
    esac
  done
  [[ -n $pid || -n $run ]] || usage_error "needs --pid or --run"
  [[ -z $pid || -z $run ]] || usage_error "--pid and --run exclude each other"
  [[ $seconds =~ ^[1-9][0-9]{0,4}$ ]] || usage_error "--seconds: '$seconds' is no number of seconds"
  [[ $port =~ ^[1-9][0-9]{0,4}$ && $port -le 65535 ]] || usage_error "--port: '$port' is no port"
  [[ $call_graph == fp || $call_graph == dwarf ]] || usage_error "--call-graph: fp or dwarf"
  [[ -z $pid || ($pid =~ ^[1-9][0-9]*$ && -d /proc/$pid) ]] ||
    usage_error "--pid: there is no process '$pid'"
  out=${out:-$tree/target/flamegraph.svg}
}

install_tools() {
  have perf || apt_install linux-perf
  [[ -z $run ]] || have redis-benchmark || apt_install redis-tools
  if ! have inferno-flamegraph; then
    find_cargo
    if ! have inferno-flamegraph; then
      have cc || apt_install gcc libc6-dev
      say "installing inferno with cargo (once, about a minute)"
      cargo install --quiet --locked inferno
    fi
  fi
}

stop_what_we_started() {
  local process
  for process in $client $server; do
    kill "$process" 2>/dev/null || true
    wait "$process" 2>/dev/null || true
  done
  [[ -z $scratch ]] || as_root rm -rf "$scratch"
}

answers() { [[ $(redis-cli -h 127.0.0.1 -p "$port" ping 2>/dev/null) == PONG ]]; }

start_server_and_load() {
  local waited
  local -a extra
  answers && die "something answers on port $port already: choose another --port"
  if [[ -z $binary ]]; then
    find_cargo
    # A folder of its own: other flags would rebuild, and be rebuilt by, every ordinary build.
    local folder=$tree/target/flamegraph
    say "building cordis-server with frame pointers"
    (cd "$tree" && RUSTFLAGS="${RUSTFLAGS:-} -C force-frame-pointers=yes" \
      cargo build --quiet --release -p cordis-server --target-dir "$folder")
    binary=$folder/release/cordis-server
  fi
  have "$binary" || die "--binary: cannot run '$binary'"
  read -ra extra <<<"$server_args"
  "$binary" --port "$port" --bind 127.0.0.1 --dir "$scratch" --save "" "${extra[@]}" \
    >"$scratch/server.log" 2>&1 &
  server=$!
  for ((waited = 0; waited < 100; waited++)); do
    answers && break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  answers || {
    tail -n 20 "$scratch/server.log" >&2
    die "the server did not come up on port $port"
  }
  read -ra extra <<<"$load"
  # More requests than any --seconds can see; the load ends with the sampling.
  redis-benchmark -h 127.0.0.1 -p "$port" -q -l "${extra[@]}" >"$scratch/load.log" 2>&1 &
  client=$!
  sleep 1
  kill -0 "$client" 2>/dev/null || {
    tail -n 20 "$scratch/load.log" >&2
    die "redis-benchmark did not keep running"
  }
  pid=$server
}

sample() {
  local name cpu_ms record=(-g)
  [[ $call_graph == fp ]] || record=(--call-graph "dwarf,16384")
  name=$(cat "/proc/$pid/comm")
  say "sampling $name ($pid) for $seconds s"
  as_root perf record -q -e cpu-clock -F 997 "${record[@]}" -p "$pid" -o "$scratch/perf.data" \
    -- sleep "$seconds" >"$scratch/record.log" 2>&1 || {
    cat "$scratch/record.log" >&2
    die "perf could not sample process $pid"
  }
  # Without inlined frames: resolving them takes minutes, and line tables of optimised code guess.
  as_root perf script --no-inline --force -i "$scratch/perf.data" \
    >"$scratch/stacks" 2>"$scratch/script.log" || {
    cat "$scratch/script.log" >&2
    die "perf could not read its samples"
  }
  inferno-collapse-perf "$scratch/stacks" >"$scratch/folded" 2>"$scratch/collapse.log" || true
  [[ -s $scratch/folded ]] || die "no samples: the process used no CPU in these $seconds s"
  # Each sample weighs the nanoseconds of CPU time that it stands for.
  cpu_ms=$(awk '{ sum += $NF } END { printf "%d", sum / 1e6 }' "$scratch/folded")
  mkdir -p "$(dirname "$out")"
  inferno-flamegraph --title "$name: $cpu_ms ms of CPU time in $seconds s" --countname ns \
    "$scratch/folded" >"$scratch/graph.svg"
  cp "$scratch/graph.svg" "$out"
  say "$cpu_ms ms of CPU time in $(wc -l <"$scratch/folded") stacks: $out"
}

main() {
  parse_options "$@"
  install_tools
  scratch=$(mktemp -d)
  trap stop_what_we_started EXIT
  trap 'exit 130' INT TERM
  [[ -z $run ]] || start_server_and_load
  sample
}

main "$@"
