# Shared by the scripts of this folder; sourced, never run.
#
# Owns: messages and exit codes, packages on Debian, lists and masks of cores.
# Must not know: any knob, any stage. Functions that compute leave their result in REPLY, so that a
# plan over hundreds of interrupts starts no process.
# shellcheck shell=bash

program=${0##*/}

say() { printf '%s\n' "$*"; }
note() { printf '%s: %s\n' "$program" "$*" >&2; }

# The machine refuses or lacks something: exit 1.
die() {
  note "$*"
  exit 1
}

# The command line is wrong: one line, exit 2.
usage_error() {
  note "$*; see --help"
  exit 2
}

# Fails with a usage error unless an option that takes a value has one.
need_value() {
  [[ $# -ge 2 && -n $2 && $2 != --* ]] || usage_error "$1 needs a value"
}

# Prints the comment block at the top of the calling script: the help lives beside the code.
print_help() {
  local line
  while IFS= read -r line; do
    [[ $line == '#!'* ]] && continue
    [[ $line == '#'* ]] || break
    line=${line#\#}
    say "${line# }"
  done <"$0"
}

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command as root: directly, or through sudo.
as_root() {
  if [[ $EUID -eq 0 ]]; then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    die "must be root for: $* (no sudo on this machine)"
  fi
}

# Installs Debian packages. The package lists are refreshed only when they turn out to be too old.
apt_install() {
  have apt-get || die "needs the packages $* (this is not a Debian machine: install them by hand)"
  say "installing Debian packages: $*"
  local log
  log=$(mktemp)
  local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@")
  if ! as_root "${install[@]}" >"$log" 2>&1; then
    say "refreshing the package lists: apt-get update"
    if ! { as_root apt-get update && as_root "${install[@]}"; } >"$log" 2>&1; then
      cat "$log" >&2
      rm -f "$log"
      die "apt-get could not install $*"
    fi
  fi
  rm -f "$log"
}

# Rust tools live in the home folder more often than on the path of a service.
find_cargo() {
  PATH=$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin
  have cargo || die "cargo is missing: install Rust with rustup, then run this again"
}

# "0-2,5" -> REPLY="0 1 2 5", ascending and without duplicates. Fails on anything else.
list_expand() {
  local item from to cpu
  local -a items seen=()
  [[ $1 =~ ^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$ ]] || return 1
  IFS=, read -ra items <<<"$1"
  for item in "${items[@]}"; do
    [[ ${#item} -le 9 ]] || return 1
    from=$((10#${item%-*})) to=$((10#${item#*-}))
    ((from <= to && to < 8192)) || return 1
    for ((cpu = from; cpu <= to; cpu++)); do seen[cpu]=1; done
  done
  REPLY="${!seen[*]}"
}

# "0 1 2 5" -> REPLY="0-2,5". Expects ascending numbers.
list_pack() {
  local cpu first='' last=''
  REPLY=''
  for cpu in $1 end; do
    if [[ -n $last && $cpu == "$((last + 1))" ]]; then
      last=$cpu
      continue
    fi
    if [[ -n $first ]]; then
      REPLY+=${REPLY:+,}$first
      [[ $first == "$last" ]] || REPLY+=-$last
    fi
    first=$cpu last=$cpu
  done
}

# "0 33" -> REPLY="2,00000001": the kernel's mask, 32 bits to a group, highest group first.
list_to_mask() {
  local cpu word
  local -a words=()
  for cpu in $1; do words[cpu / 32]=$((${words[cpu / 32]:-0} | 1 << (cpu % 32))); done
  REPLY=''
  local -a used=("${!words[@]}")
  local top=0
  [[ ${#used[@]} -eq 0 ]] || top=${used[-1]}
  for ((word = top; word >= 0; word--)); do
    if [[ -z $REPLY ]]; then
      printf -v REPLY '%x' "${words[word]:-0}"
    else
      printf -v REPLY '%s,%08x' "$REPLY" "${words[word]:-0}"
    fi
  done
}

# "2,00000001" -> REPLY="0 33". Fails on anything that is no mask.
mask_to_list() {
  local hex=${1//,/} digit bit at cpu=0
  REPLY=''
  [[ $hex =~ ^[0-9a-fA-F]+$ ]] || return 1
  for ((at = ${#hex} - 1; at >= 0; at--)); do
    digit=$((16#${hex:at:1}))
    for ((bit = 0; bit < 4; bit++, cpu++)); do
      ((digit >> bit & 1)) && REPLY+=${REPLY:+ }$cpu
    done
  done
  return 0
}

# True if each number of list $1 is in list $2.
list_within() {
  local cpu
  for cpu in $1; do [[ " $2 " == *" $cpu "* ]] || return 1; done
}
