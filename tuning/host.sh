#!/usr/bin/env bash
# host.sh: sets a machine up for Cordis, shows what differs, and takes every change back.
#
# usage: tuning/host.sh [--dry-run | --apply | --undo | --show] [options]
#
#   --dry-run      print each knob as "current -> wanted" and change nothing (the default)
#   --apply        make the changes, and save each former value first
#   --undo         put the saved values back
#   --show         print the current values, and whether there is something to undo
#
#   --cores LIST   cores that serve data, as in 2-7 or 1,3: interrupts move to the others
#   --nic NAME     network card whose packets the other cores process (needs --cores)
#   --only NAMES   these knobs alone, separated by commas
#   --skip NAMES   all knobs but these
#   --state FILE   where former values are kept (/var/lib/cordis-tuning/state)
#   --root DIR     look for /proc, /sys and /var under DIR, for tests
#   --help         this text
#
# Knobs: somaxconn syn-backlog netdev-backlog thp overcommit swappiness numa io-uring file-max
#        governor irq rps; advice only: nofile memlock isolation
#
# A change lasts until the next start of the machine. A knob that this machine lacks is reported as
# absent. Exit code: 0, or 1 if the kernel refused a change, or 2 on a wrong option.
# README.md tells for each knob why, what it costs, and how to undo it by hand.
set -euo pipefail

# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

readonly KNOBS="somaxconn syn-backlog netdev-backlog thp overcommit swappiness numa io-uring \
file-max governor irq rps nofile memlock isolation"

mode='' root='' state='' cores='' nic='' only='' skip=''
data='' housekeeping=''
declare -i changes=0 refused=0

# ---- options ---------------------------------------------------------------------------------

check_names() {
  local name
  local -a names
  IFS=, read -ra names <<<"$2"
  for name in "${names[@]}"; do
    [[ -n $name && " $KNOBS " == *" $name "* ]] || usage_error "$1: no knob is called '$name'"
  done
}

parse_options() {
  while [[ $# -gt 0 ]]; do
    case $1 in
      --dry-run | --apply | --undo | --show)
        [[ -z $mode || $mode == "$1" ]] || usage_error "$mode and $1 exclude each other"
        mode=$1
        shift
        ;;
      --cores | --nic | --only | --skip | --state | --root)
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
  mode=${mode:---dry-run}
  [[ -z $only || -z $skip ]] || usage_error "--only and --skip exclude each other"
  [[ -z $only ]] || check_names --only "$only"
  [[ -z $skip ]] || check_names --skip "$skip"
  [[ -z $root || -d $root ]] || usage_error "--root: '$root' is no folder"
  root=${root%/}
  state=${state:-$root/var/lib/cordis-tuning/state}
}

# Splits the cores that are online into those that serve data and those that do everything else.
parse_cores() {
  local online cpu
  read_value /sys/devices/system/cpu/online || REPLY=0
  list_expand "$REPLY" || die "cannot read the list of cores that are online: '$REPLY'"
  online=$REPLY
  if [[ -n $nic ]]; then
    [[ -n $cores ]] || usage_error "--nic needs --cores"
    [[ $nic =~ ^[A-Za-z0-9_.:@-]+$ && $nic != . && $nic != .. && -e $root/sys/class/net/$nic ]] ||
      usage_error "--nic: no network card is called '$nic'"
  fi
  [[ -n $cores ]] || return 0
  list_expand "$cores" || usage_error "--cores: '$cores' is no list of cores such as 2-7 or 1,3"
  data=$REPLY
  for cpu in $data; do
    list_within "$cpu" "$online" || usage_error "--cores: core $cpu is not online"
  done
  for cpu in $online; do
    list_within "$cpu" "$data" || housekeeping+=${housekeeping:+ }$cpu
  done
  [[ -n $housekeeping ]] || usage_error "--cores: leave one core for interrupts and everything else"
}

selected() {
  if [[ -n $only ]]; then
    [[ ,$only, == *,$1,* ]]
  else
    [[ ,$skip, != *,$1,* ]]
  fi
}

# ---- values ----------------------------------------------------------------------------------

# First line of a file of /proc or /sys in REPLY; of a choice such as "always [madvise] never", the
# word in force. Fails if the file is not there or cannot be read.
read_value() {
  REPLY=''
  [[ -f $root$1 && -r $root$1 ]] || return 1
  { IFS= read -r REPLY <"$root$1"; } 2>/dev/null || [[ -n $REPLY ]] || return 1
  if [[ $REPLY =~ \[([^]]+)\] ]]; then REPLY=${BASH_REMATCH[1]}; fi
}

write_value() { { printf '%s\n' "$2" >"$root$1"; } 2>/dev/null; }

is_number() { [[ $1 =~ ^-?[0-9]+$ ]]; }

# satisfied RULE CURRENT WANTED
#   is      the same word            least, most   a floor, a ceiling: better values stay
#   mask    the same cores as a mask
#   within, within-mask   only cores that WANTED has, so that a finer placement stays
satisfied() {
  local current
  case $1 in
    is) [[ $2 == "$3" ]] ;;
    least) is_number "$2" && (($2 >= $3)) ;;
    most) is_number "$2" && (($2 <= $3)) ;;
    mask)
      mask_to_list "$2" || return 1
      current=$REPLY
      mask_to_list "$3" && [[ $current == "$REPLY" ]]
      ;;
    within)
      list_expand "$2" || return 1
      current=$REPLY
      list_expand "$3" && list_within "$current" "$REPLY"
      ;;
    within-mask)
      mask_to_list "$2" || return 1
      current=$REPLY
      mask_to_list "$3" && [[ -n $current ]] && list_within "$current" "$REPLY"
      ;;
  esac
}

# ---- former values ---------------------------------------------------------------------------

# The state file: a header with the boot it belongs to, then "knob TAB path TAB former value". The
# kernel forgets every change at a restart, so a state of another boot describes nothing any more.
boot_id() { read_value /proc/sys/kernel/random/boot_id || REPLY=unknown; }

state_is_current() {
  local header
  IFS= read -r header <"$state" || return 1
  boot_id
  [[ $header == "cordis-tuning 1 boot=$REPLY" ]]
}

open_state() {
  local folder
  folder=$(dirname "$state")
  mkdir -p "$folder" 2>/dev/null || die "cannot make the folder $folder"
  # Two runs at once would save each other's values as the former ones.
  exec 9<"$folder"
  flock 9
  if [[ -e $state ]] && ! state_is_current; then
    say "note     the machine was restarted since $state was saved: starting a new one"
    rm -f "$state"
  fi
  if [[ ! -e $state ]]; then
    boot_id
    (umask 077 && printf 'cordis-tuning 1 boot=%s\n' "$REPLY" >"$state") 2>/dev/null ||
      die "cannot write $state"
  fi
}

saved() {
  local knob path former
  while IFS=$'\t' read -r knob path former; do [[ $path != "$1" ]] || return 0; done <"$state"
  return 1
}

forget() {
  local knob path former
  while IFS=$'\t' read -r knob path former; do
    [[ $path == "$1" ]] || printf '%s\n' "$knob${path:+$'\t'$path$'\t'$former}"
  done <"$state" >"$state.new"
  mv "$state.new" "$state"
}

# ---- one knob --------------------------------------------------------------------------------

report() { printf '%-8s %-42s %s\n' "$1" "$2" "$3"; }

# knob NAME LABEL PATH RULE WANTED [FIXED]
# FIXED: the kernel may keep this one where it is, which is no failure of the run.
knob() {
  local name=$1 label=$2 path=$3 rule=$4 wanted=$5 fixed=${6:-} current new=''
  if ! read_value "$path"; then
    report absent "$label" "this machine has no $path"
    return
  fi
  current=$REPLY
  if [[ $mode == --show ]]; then
    report value "$label" "$current"
  elif satisfied "$rule" "$current" "$wanted"; then
    report ok "$label" "$current"
  elif [[ $mode == --dry-run ]]; then
    report change "$label" "$current -> $wanted"
    changes+=1
  else
    # The former value is on disk before the knob turns: a run cut short can still be undone.
    if ! saved "$path"; then
      printf '%s\t%s\t%s\n' "$name" "$path" "$current" >>"$state"
      new=1
    fi
    if write_value "$path" "$wanted" && read_value "$path" && satisfied "$rule" "$REPLY" "$wanted"
    then
      report changed "$label" "$current -> $wanted"
      changes+=1
    else
      [[ -z $new ]] || forget "$path"
      if [[ -n $fixed ]]; then
        report fixed "$label" "$current (the kernel keeps it there)"
      else
        report refused "$label" "$current -> $wanted: the kernel said no"
        refused+=1
      fi
    fi
  fi
}

sysctl_knob() { knob "$1" "$2" "/proc/sys/${2//.//}" "$3" "$4"; }

# Advice is about files of the administrator: it is printed, never carried out.
advice() {
  if [[ $mode == --show ]]; then report value "$1" "$2"; else report advice "$1" "$2 -> $3"; fi
}

# ---- the knobs -------------------------------------------------------------------------------

# Values and reasons: README.md, "Knobs".
knobs_of_kernel() {
  ! selected somaxconn || sysctl_knob somaxconn net.core.somaxconn least 16384
  ! selected syn-backlog || sysctl_knob syn-backlog net.ipv4.tcp_max_syn_backlog least 16384
  ! selected netdev-backlog || sysctl_knob netdev-backlog net.core.netdev_max_backlog least 16384
  if selected thp; then
    local thp=/sys/kernel/mm/transparent_hugepage
    knob thp transparent_hugepage/enabled $thp/enabled is madvise
    knob thp transparent_hugepage/defrag $thp/defrag is defer
  fi
  ! selected overcommit || sysctl_knob overcommit vm.overcommit_memory is 1
  ! selected swappiness || sysctl_knob swappiness vm.swappiness most 1
  ! selected numa || sysctl_knob numa kernel.numa_balancing is 0
  ! selected io-uring || sysctl_knob io-uring kernel.io_uring_disabled is 0
  ! selected file-max || sysctl_knob file-max fs.file-max least 2097152
}

knobs_of_governor() {
  local path cpu found=''
  for path in "$root"/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor; do
    [[ -e $path ]] || continue
    cpu=${path#"$root"/sys/devices/system/cpu/cpu}
    cpu=${cpu%%/*}
    [[ -z $data ]] || list_within "$cpu" "$data" || continue
    found=1
    knob governor "governor of core $cpu" "${path#"$root"}" is performance
  done
  [[ -n $found ]] || report absent governor "this machine does not let the kernel choose frequencies"
}

knobs_of_interrupts() {
  local list mask path number handler
  list_to_mask "$housekeeping" && mask=$REPLY
  list_pack "$housekeeping" && list=$REPLY
  knob irq "irq default" /proc/irq/default_smp_affinity within-mask "$mask"
  for path in "$root"/proc/irq/[0-9]*/smp_affinity_list; do
    [[ -e $path ]] || continue
    number=${path%/*} number=${number##*/}
    handler=''
    for handler in "$root/proc/irq/$number"/*/; do
      handler=${handler%/} handler=${handler##*/}
      [[ $handler != '*' ]] || handler=''
      break
    done
    knob irq "irq $number${handler:+ $handler}" "${path#"$root"}" within "$list" fixed
  done
  if [[ -z $root ]] && have pgrep && pgrep -x irqbalance >/dev/null; then
    list_pack "$data"
    advice irqbalance "runs, and moves interrupts back" "IRQBALANCE_BANNED_CPULIST=$REPLY for it"
  fi
}

knobs_of_packets() {
  local mask path found='' queue
  list_to_mask "$housekeeping" && mask=$REPLY
  for path in "$root/sys/class/net/$nic"/queues/rx-*/rps_cpus; do
    [[ -e $path ]] || continue
    found=1
    queue=${path%/*}
    knob rps "rps of $nic ${queue##*/}" "${path#"$root"}" mask "$mask"
  done
  [[ -n $found ]] || report absent rps "$nic has no receive queues"
}

# limit NAME "Max ..." WANTED HOW
advise_limit() {
  local line hard=''
  if [[ -r $root/proc/self/limits ]]; then
    while IFS= read -r line; do
      [[ $line =~ ^"$2"\ +[^\ ]+\ +([^\ ]+) ]] && hard=${BASH_REMATCH[1]}
    done <"$root/proc/self/limits"
  fi
  if [[ -z $hard ]]; then
    report absent "$1" "this machine does not tell its limits"
  elif [[ $mode != --show && ($hard == unlimited || $hard -ge $3) ]]; then
    report ok "$1" "$hard"
  else
    advice "$1" "$hard" "$3 or more, by $4"
  fi
}

advise_isolation() {
  local list rest option line missing=''
  if ! read_value /proc/cmdline; then
    report absent isolation "this machine has no /proc/cmdline"
    return
  fi
  # The line may name folders in brackets, which read_value takes for a choice: read it plainly.
  IFS= read -r line <"$root/proc/cmdline" || true
  if [[ $mode == --show ]]; then
    for option in $line; do
      case $option in isolcpus=* | nohz_full=* | rcu_nocbs=* | irqaffinity=*) missing+="$option " ;; esac
    done
    report value isolation "${missing:-none}"
    return
  fi
  list_pack "$data" && list=$REPLY
  list_pack "$housekeeping" && rest=$REPLY
  for option in "isolcpus=managed_irq,domain,$list" "nohz_full=$list" "rcu_nocbs=$list" \
    "irqaffinity=$rest"; do
    [[ " $line " == *" $option "* ]] || missing+=${missing:+ }$option
  done
  if [[ -z $missing ]]; then
    report ok isolation "on the kernel command line"
  else
    report advice isolation "add to the kernel command line: $missing"
  fi
}

all_knobs() {
  knobs_of_kernel
  ! selected governor || knobs_of_governor
  if [[ -n $data ]]; then
    ! selected irq || knobs_of_interrupts
  elif selected irq; then
    report skipped irq "needs --cores"
  fi
  if [[ -n $nic ]]; then
    ! selected rps || knobs_of_packets
  elif selected rps; then
    report skipped rps "needs --cores and --nic"
  fi
  ! selected nofile || advise_limit nofile "Max open files" 65536 \
    "LimitNOFILE= in the unit or limits.conf"
  ! selected memlock || advise_limit memlock "Max locked memory" 67108864 \
    "LimitMEMLOCK= in the unit or limits.conf"
  if selected isolation; then
    if [[ -n $data || $mode == --show ]]; then
      advise_isolation
    else
      report skipped isolation "needs --cores"
    fi
  fi
}

# ---- modes -----------------------------------------------------------------------------------

need_root() {
  [[ -n $root || $EUID -eq 0 ]] || die "$mode must be run as root"
}

run_undo() {
  local knob path former current
  local -i at
  local -a lines
  if [[ ! -e $state ]]; then
    say "nothing to undo: there is no $state"
    return
  fi
  exec 9<"$(dirname "$state")"
  flock 9
  if ! state_is_current; then
    rm -f "$state"
    say "nothing to undo: the machine was restarted since, and the kernel forgot the changes"
    return
  fi
  mapfile -t lines < <(tail -n +2 "$state")
  for ((at = ${#lines[@]} - 1; at >= 0; at--)); do
    IFS=$'\t' read -r knob path former <<<"${lines[at]}"
    selected "$knob" || continue
    if ! read_value "$path"; then
      report absent "$path" "gone since"
    elif current=$REPLY && [[ $current == "$former" ]]; then
      report ok "$path" "$current"
    elif write_value "$path" "$former"; then
      report restored "$path" "$current -> $former"
      changes+=1
    else
      report refused "$path" "$current -> $former: the kernel said no"
      refused+=1
      continue
    fi
    forget "$path"
  done
  # Lines that are left were refused or not selected; without any, the state has served.
  [[ $(wc -l <"$state") -gt 1 ]] || rm -f "$state"
  say "$changes restored, $refused refused"
}

main() {
  parse_options "$@"
  parse_cores
  case $mode in
    --dry-run)
      all_knobs
      say "dry run: $changes to change, nothing was changed; --apply does it"
      ;;
    --show)
      all_knobs
      if [[ -e $state ]]; then
        say "applied: $(($(wc -l <"$state") - 1)) former values in $state"
      else
        say "not applied: there is no $state"
      fi
      ;;
    --apply)
      need_root
      open_state
      all_knobs
      [[ $(wc -l <"$state") -gt 1 ]] || rm -f "$state"
      say "$changes changed, $refused refused; --undo takes it back"
      ;;
    --undo)
      need_root
      run_undo
      ;;
  esac
  [[ $refused -eq 0 ]] || exit 1
}

main "$@"
