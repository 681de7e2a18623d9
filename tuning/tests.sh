#!/usr/bin/env bash
# tests.sh: the tests of this folder. Changes nothing outside a scratch folder, needs no privilege.
#
# usage: tuning/tests.sh
set -eEuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'echo "FAILED: ${BASH_SOURCE[0]##*/} line $LINENO: $BASH_COMMAND"' ERR
machine=$scratch/machine
output=''
declare -i passed=0 code=0

fail() {
  printf 'FAILED: %s\n' "$1"
  printf -- '---- output, exit code %d\n%s\n' "$code" "$output"
  exit 1
}

# run COMMAND...: its output and exit code in globals.
run() {
  code=0
  output=$("$@" 2>&1) || code=$?
}

expect_code() { [[ $code -eq $1 ]] || fail "expected exit code $1"; }
expect_line() { grep -qE -- "$1" <<<"$output" || fail "expected a line like: $1"; }
expect_no_line() { ! grep -qE -- "$1" <<<"$output" || fail "expected no line like: $1"; }
expect_file() { [[ $(<"$machine$1") == "$2" ]] || fail "$1 holds '$(<"$machine$1")', not '$2'"; }

# ---- a machine of plain files ----------------------------------------------------------------

put() {
  mkdir -p "$machine${1%/*}"
  printf '%s\n' "$2" >"$machine$1"
}

# Four cores, one network card with two queues, three interrupts. somaxconn is better than asked.
make_machine() {
  local cpu
  rm -rf "$machine"
  put /proc/sys/kernel/random/boot_id first-boot
  put /proc/sys/net/core/somaxconn 65535
  put /proc/sys/net/ipv4/tcp_max_syn_backlog 512
  put /proc/sys/net/core/netdev_max_backlog 1000
  put /proc/sys/vm/overcommit_memory 0
  put /proc/sys/vm/swappiness 60
  put /proc/sys/kernel/numa_balancing 1
  put /proc/sys/kernel/io_uring_disabled 2
  put /proc/sys/fs/file-max 9223372036854775807
  put /sys/kernel/mm/transparent_hugepage/enabled '[always] madvise never'
  put /sys/kernel/mm/transparent_hugepage/defrag 'always defer defer+madvise [madvise] never'
  put /sys/devices/system/cpu/online 0-3
  for cpu in 0 1 2 3; do
    put "/sys/devices/system/cpu/cpu$cpu/cpufreq/scaling_governor" powersave
  done
  put /proc/irq/default_smp_affinity f
  put /proc/irq/24/smp_affinity_list 0-3
  mkdir -p "$machine/proc/irq/24/eth0-rx-0"
  put /proc/irq/25/smp_affinity_list 1
  put /proc/irq/26/smp_affinity_list 3
  put /sys/class/net/eth0/queues/rx-0/rps_cpus 00000000
  put /sys/class/net/eth0/queues/rx-1/rps_cpus 00000003
  put /proc/cmdline 'quiet irqaffinity=0-1'
  put /proc/self/limits 'Max open files            1024                 4096                 files'
}

host() { run "$here/host.sh" --root "$machine" "$@"; }
snapshot() { (cd "$machine" && find . -type f ! -path './var/*' -exec sha256sum {} + | sort -k 2); }

# ---- tests -----------------------------------------------------------------------------------

test_scripts_parse() {
  local script
  for script in "$here"/*.sh "$here/../.ci/run"; do
    run bash -n "$script"
    expect_code 0
  done
  if command -v shellcheck >/dev/null; then
    run shellcheck --external-sources --source-path="$here" "$here"/*.sh "$here/../.ci/run"
    expect_code 0
  else
    echo "skipped shellcheck: not installed"
  fi
}

test_wrong_options_exit_2_with_one_line() {
  local options
  make_machine
  while read -r options; do
    # shellcheck disable=SC2086
    run "$here/host.sh" --root "$machine" $options
    expect_code 2
    [[ $(wc -l <<<"$output") -eq 1 && -n $output ]] || fail "expected one line for: $options"
  done <<'END'
--what
apply
--cores
--cores two
--cores 3-1
--cores 4
--cores 0-3
--cores 1,,2
--cores 99999999999999999999
--nic eth0
--nic eth7 --cores 1
--nic ../lo --cores 1
--only
--only nonsense
--only thp --skip irq
--apply --undo
--root /nowhere/at/all
END
  run "$here/flamegraph.sh" --frequency 3
  expect_code 2
  run "$here/flamegraph.sh"
  expect_code 2
  run "$here/test.sh" --only everything
  expect_code 2
  run "$here/suites.sh" --only redis-py,everything
  expect_code 2
}

test_help_names_each_option() {
  local option
  run "$here/host.sh" --help
  expect_code 0
  for option in --dry-run --apply --undo --show --cores --nic --only --skip --state --root; do
    expect_line "$option"
  done
  run "$here/flamegraph.sh" --help
  expect_code 0
  expect_line '--pid'
  run "$here/test.sh" --help
  expect_code 0
  run "$here/suites.sh" --help
  expect_code 0
}

test_readme_describes_each_knob() {
  local knob
  local -a knobs
  read -ra knobs <<<"$(sed -n '/^readonly KNOBS=/,/"$/p' "$here/host.sh" | tr -d '\\\n' |
    sed 's/.*="//; s/"//')"
  [[ ${#knobs[@]} -ge 14 ]] || fail "found ${#knobs[@]} knobs in host.sh"
  output=$(<"$here/README.md")
  for knob in "${knobs[@]}"; do expect_line "^#### .*\`$knob\`"; done
}

test_dry_run_prints_and_changes_nothing() {
  local before
  make_machine
  before=$(snapshot)
  host --cores 2-3 --nic eth0
  expect_code 0
  expect_line '^ok +net.core.somaxconn +65535$'
  expect_line '^change +net.ipv4.tcp_max_syn_backlog +512 -> 16384$'
  expect_line '^change +transparent_hugepage/enabled +always -> madvise$'
  expect_line '^change +transparent_hugepage/defrag +madvise -> defer$'
  expect_line '^change +kernel.io_uring_disabled +2 -> 0$'
  expect_line '^ok +fs.file-max '
  expect_line '^change +governor of core 2 +powersave -> performance$'
  expect_no_line 'governor of core 1'
  expect_line '^change +irq default +f -> 3$'
  expect_line '^change +irq 24 eth0-rx-0 +0-3 -> 0-1$'
  expect_line '^ok +irq 25 +1$'
  expect_line '^change +rps of eth0 rx-0 +00000000 -> 3$'
  expect_line '^ok +rps of eth0 rx-1 '
  expect_line '^advice +nofile +4096 -> 65536'
  expect_line 'command line: isolcpus=managed_irq,domain,2-3 nohz_full=2-3 rcu_nocbs=2-3$'
  expect_line '^dry run: 14 to change'
  [[ $(snapshot) == "$before" && ! -e $machine/var ]] || fail "the dry run changed something"
}

test_applying_twice_is_undone_once() {
  local before state=$machine/var/lib/cordis-tuning/state
  make_machine
  host --show --cores 2-3 --nic eth0
  before=$output
  host --apply --cores 2-3 --nic eth0
  expect_code 0
  expect_line '^14 changed, 0 refused'
  expect_file /proc/sys/net/core/somaxconn 65535
  expect_file /proc/sys/vm/swappiness 1
  expect_file /sys/kernel/mm/transparent_hugepage/enabled madvise
  expect_file /proc/irq/26/smp_affinity_list 0-1
  expect_file /sys/class/net/eth0/queues/rx-0/rps_cpus 3
  [[ $(wc -l <"$state") -eq 15 ]] || fail "the state should have a header and 14 lines"
  host --apply --cores 2-3 --nic eth0
  expect_code 0
  expect_line '^0 changed, 0 refused'
  # Changed by hand in between, set again: the value before the first run is the one to restore.
  put /proc/sys/vm/swappiness 30
  host --apply --only swappiness
  expect_line '^1 changed'
  host --undo
  expect_code 0
  expect_line '^14 restored, 0 refused'
  expect_file /proc/sys/vm/swappiness 60
  expect_file /proc/sys/net/ipv4/tcp_max_syn_backlog 512
  [[ ! -e $state ]] || fail "the state should be gone"
  host --show --cores 2-3 --nic eth0
  [[ $output == "$before" ]] || fail "after undo, not as before"
  host --undo
  expect_code 0
  expect_line '^nothing to undo'
}

test_undo_of_some_keeps_the_rest() {
  local state=$scratch/elsewhere/state
  make_machine
  host --apply --state "$state"
  expect_code 0
  host --undo --only swappiness,thp --state "$state"
  expect_code 0
  expect_line '^3 restored'
  expect_file /proc/sys/vm/swappiness 60
  expect_file /proc/sys/kernel/numa_balancing 0
  host --undo --state "$state"
  expect_code 0
  expect_file /proc/sys/kernel/numa_balancing 1
  [[ ! -e $state ]] || fail "the state should be gone"
}

test_only_and_skip_choose_knobs() {
  make_machine
  host --only swappiness,numa
  expect_line '^dry run: 2 to change'
  expect_no_line somaxconn
  host --skip swappiness,numa
  expect_no_line swappiness
  expect_line somaxconn
}

test_what_the_machine_lacks_is_absent() {
  rm -rf "$machine"
  mkdir -p "$machine"
  host
  expect_code 0
  expect_line '^absent +kernel.io_uring_disabled '
  expect_line '^absent +governor '
  expect_line '^dry run: 0 to change'
  host --apply
  expect_code 0
  expect_line '^0 changed, 0 refused'
  [[ ! -e $machine/var/lib/cordis-tuning/state ]] || fail "nothing changed, yet there is a state"
}

test_a_refused_change_is_told_and_not_saved() {
  make_machine
  # /proc/version can be read, and nobody can write it.
  rm "$machine/proc/sys/vm/swappiness" "$machine/proc/irq/24/smp_affinity_list"
  ln -s /proc/version "$machine/proc/sys/vm/swappiness"
  ln -s /proc/version "$machine/proc/irq/24/smp_affinity_list"
  host --apply --only swappiness,numa
  expect_code 1
  expect_line '^refused +vm.swappiness '
  expect_line '^1 changed, 1 refused'
  # Interrupts that the kernel keeps in place are its own business.
  host --apply --cores 2-3 --only irq
  expect_code 0
  expect_line '^fixed +irq 24 '
  host --undo
  expect_code 0
  expect_line '^3 restored, 0 refused'
}

test_a_state_of_another_boot_is_dropped() {
  make_machine
  host --apply --only numa
  put /proc/sys/kernel/random/boot_id second-boot
  put /proc/sys/kernel/numa_balancing 5
  host --undo
  expect_code 0
  expect_line '^nothing to undo: the machine was restarted'
  expect_file /proc/sys/kernel/numa_balancing 5
  host --apply --only numa
  put /proc/sys/kernel/random/boot_id third-boot
  put /proc/sys/kernel/numa_balancing 7
  host --apply --only numa
  expect_line '^note +the machine was restarted'
  host --undo
  expect_file /proc/sys/kernel/numa_balancing 7
}

test_lists_and_masks_of_many_cores() {
  # shellcheck source=lib.sh
  source "$here/lib.sh"
  local row list expanded mask
  while read -r row; do
    IFS='|' read -r list expanded mask <<<"$row"
    list_expand "$list"
    [[ $REPLY == "$expanded" ]] || fail "list_expand $list: $REPLY"
    list_pack "$expanded"
    [[ $REPLY == "$list" ]] || fail "list_pack $expanded: $REPLY"
    list_to_mask "$expanded"
    [[ $REPLY == "$mask" ]] || fail "list_to_mask $expanded: $REPLY"
    mask_to_list "$mask"
    [[ $REPLY == "$expanded" ]] || fail "mask_to_list $mask: $REPLY"
  done <<'END'
0|0|1
0-3|0 1 2 3|f
1,3|1 3|a
31|31|80000000
32|32|1,00000000
0,33,64-65|0 33 64 65|3,00000002,00000001
END
  list_expand 3,1-2,2
  [[ $REPLY == "1 2 3" ]] || fail "list_expand does not sort: $REPLY"
}

test_seccomp_profile() {
  local profile=$here/seccomp.json call
  run jq -e . "$profile"
  expect_code 0
  run jq -r '.defaultAction, (.syscalls[].action), (.syscalls[].names[])' "$profile"
  expect_code 0
  [[ $(head -n 1 <<<"$output") == SCMP_ACT_ERRNO ]] || fail "the default must be to refuse"
  for call in io_uring_setup io_uring_enter io_uring_register futex execve accept4 sendmsg; do
    expect_line "^$call\$"
  done
  # What a server never needs, and a way out of a container does.
  for call in mount ptrace bpf unshare setns kexec_load init_module clone3 userfaultfd keyctl \
    process_vm_writev perf_event_open open_by_handle_at; do
    expect_no_line "^$call\$"
  done
  expect_no_line SCMP_ACT_LOG
  run jq -e '[.syscalls[].names[]] | length == (unique | length)' "$profile"
  expect_code 0
  # clone without new namespaces: the mask holds all CLONE_NEW* flags of its argument.
  run jq -e '.syscalls[] | select(.names == ["clone"]).args[0]
    | .value == 2114060288 and .valueTwo == 0 and .op == "SCMP_CMP_MASKED_EQ"' "$profile"
  expect_code 0
}

test_units() {
  local unit
  for unit in "$here"/systemd/*.service; do
    # The programs need not be installed for the rest of a unit to be checked.
    sed -E 's#^(Exec(Start|Stop))=[^ ]+#\1=/bin/true#' "$unit" >"$scratch/${unit##*/}"
  done
  if ! command -v systemd-analyze >/dev/null; then
    echo "skipped systemd-analyze: not installed"
    return
  fi
  run systemd-analyze verify --man=no "$scratch"/cordis-{server@,proxy@,control,tuning}.service
  expect_no_line 'cordis-(server@|proxy@|control|tuning).*(Unknown|Failed|Invalid|nvalid argument|gnoring)'
}

main() {
  local test
  for test in $(declare -F | sed -n 's/^declare -f \(test_.*\)/\1/p'); do
    "$test"
    passed+=1
  done
  echo "$passed tests passed"
}

main
