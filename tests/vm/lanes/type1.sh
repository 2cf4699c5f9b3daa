#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The main job on the kernel's VFIO type1: packaged units under the real systemd, a broker that is not root, clients that have
# no privilege at all, and a real device's DMA.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/agents.sh"
. "$(dirname "$0")/service.sh"

uname -r
alice=1001 bob=1002 nobody=65534

snapshot() {
  for what in status "device list" "domain list" "mapping list" "tenant list"; do
    # shellcheck disable=SC2086 # two words
    iommuctl --json $what >"$LAB_OUT/$1-${what// /-}.json"
  done
}

# charges_of TENANT: {"locked_bytes": 4096, ...}
charges_of() {
  iommuctl --json tenant list | jq -c --arg name "$1" '.tenants[] | select(.name == $name) | [.quotas[] | {(.resource): .used}] | add'
}
nothing_is_charged_to() { charges_of "$1" | jq -e 'add == 0'; }

# --- the service ---
service_begin
check "it runs as the user iommud" test "$(awk '/^Uid:/ { print $2 }' "/proc/$(broker_pid)/status")" = "$(id -u iommud)"
check "its only capability is to kill holders" grep -q "^CapEff:.*0000000000000020$" "/proc/$(broker_pid)/status"
check "the operator is answered" iommuctl status
check "the backend is type1" grep -q vfio-type1 <(iommuctl status)

# --- tenants, devices ---
check "a tenant is made" iommuctl tenant add alice --uid=$alice --locked-bytes=16M
check "another one" iommuctl tenant add bob --uid=$bob --locked-bytes=1M
check "the first device is bound to vfio-pci" iommuctl device bind "$dev"
check "the second one too" iommuctl device bind "$dev2"
group=$(group_of "$dev")
check "its node is there for iommud" eventually 10 test "$(stat -c %G "/dev/vfio/$group")" = iommud
for node in vfio "$group"; do
  refuses "a client gets EACCES on /dev/vfio/$node" as_uid $alice sh -c "exec 3<>/dev/vfio/$node"
done
refuses "nor may it talk to the operator's socket" as_uid $alice iommuctl status
refuses "nor is the ledger for it" as_uid $alice ls /var/lib/iommud

# --- the example, unchanged ---
export IOMMUD_DIR=$sockets
check "the example drives the real device" as_uid $alice "$LAB_BUILD/examples/drive_edu" "$dev"
check "afterwards no session is left" eventually 10 sessions_are 0
check "and the device is free" eventually 10 state_is "$dev" free
refuses "somebody who is no tenant is refused" as_uid $nobody "$LAB_BUILD/examples/map_minimal"
check "and told why" grep -q "no rule makes uid $nobody" <(as_uid $nobody "$LAB_BUILD/examples/map_minimal" 2>&1)

# --- DMA, and no DMA after unmap ---
agent a $alice
expect "alice connects" a ok connect $sockets
check "she has no capability" grep -q "^CapEff:.*0000000000000000$" "/proc/$(agent_pid a)/status"
holder=$(holder_of "$(agent_pid a)")
check "her holder has a uid of its own" test "$(awk '/^Uid:/ { print $2 }' "/proc/$holder/status")" -ge 2000000000
check "and no capability" grep -q "^CapEff:.*0000000000000000$" "/proc/$holder/status"
check "and a seccomp filter" grep -q "^Seccomp:.*2$" "/proc/$holder/status"
check "and is in her cgroup" test "$(cat "/proc/$holder/cgroup")" = "$(cat "/proc/$(agent_pid a)/cgroup")"
expect "a domain" a ok domain
expect "memory" a ok alloc 0x4000
expect "the device" a ok attach 0 "$dev"
expect "a mapping" a ok map 0 0x100000 0 0 0x2000 3
snapshot mapped
expect "memory has a pattern" a ok fill 0 90
expect "the device reads it" a ok dma 0 0x100000 from
expect "memory is wiped" a ok fill 0 0
expect "the device writes it back" a ok dma 0 0x101000 to
ask a peek 0
check "what it wrote is in a part of the memory" test "$answer" = "ok -1"
expect "unmapped" a ok unmap 0 0x100000 0x2000
expect "memory is wiped again" a ok fill 0 7
expect "the device tries once more" a ok dma 0 0x101000 to
expect "and nothing has changed" a "ok 7" peek 0

# --- the client is killed during a transfer ---
expect "mapped again" a ok map 0 0x100000 0 0 0x2000 3
expect "wiped" a ok fill 0 17
exec {kept}<"$(memfd_of "$(agent_pid a)")"
before=$(sum "$kept")
expect "a transfer begins" a ok start 0 0x100000 from
agent_kill a
check "the killed client's session ends" eventually 20 sessions_are 0
check "its device is free again" eventually 20 state_is "$dev" free
snapshot client-died
agent b $bob
expect "bob connects" b ok connect $sockets
expect "a domain of his" b ok domain
expect "memory of his" b ok alloc 0x2000
expect "he gets the device" b ok attach 0 "$dev"
expect "he aims at the old address" b ok dma 0 0x100000 to
expect "and at its second page" b ok dma 0 0x101000 to
check "nothing landed in the dead client's memory" test "$(sum "$kept")" = "$before"
exec {kept}<&-

# --- two tenants ---
agent a $alice
expect "alice is back" a ok connect $sockets
expect "a domain" a ok domain
expect "memory" a ok alloc 0x2000
expect "the device that bob has is refused to her" a "err 16" attach 0 "$dev"
expect "the other one is hers" a ok attach 0 "$dev2"
expect "the same address in her domain" a ok map 0 0x100000 0 0 0x2000 3
expect "and in his" b ok map 0 0x100000 0 0 0x2000 3
expect "hers has a pattern" a ok fill 0 170
expect "his another" b ok fill 0 85
expect "his device reads his" b ok dma 0 0x100000 from
expect "his is wiped" b ok fill 0 0
expect "and writes" b ok dma 0 0x100000 to
expect "hers is as it was" a "ok 170" peek 0
expect "he may register 2 MiB" b ok alloc 0x200000
expect "and not map them: his quota ends at 1 MiB" b "err 122" map 0 0x1000000 1 0 0x200000 3

# --- the broker is killed during a loop of transfers ---
expect "a loop of transfers" a ok loop 0 0x100000 0
ask a rounds
killed=$(broker_pid)
kill -9 "$killed"
ask a rounds
first=${answer#ok }
rounds_go_on() { ask a rounds && [ "${answer%% *}" = ok ] && [ "${answer#ok }" -gt $((first + 4)) ]; }
check "DMA goes on" eventually 20 rounds_go_on
check "a new broker takes over, with both sessions" eventually 60 service_has_recovered "$killed" 2
snapshot broker-died
expect "the client goes on with the same handles" a ok unmap 0 0x100000 0x2000
expect "its mapping came back with it" b ok unmap 0 0x100000 0x2000
expect "and maps" b ok map 0 0x200000 0 0 0x2000 3
check "ledger and holders agree" ledger_agrees

# --- the holder is killed ---
expect "bob's memory" b ok fill 0 33
exec {kept}<"$(memfd_of "$(agent_pid b)")"
before=$(sum "$kept")
kill -9 "$(holder_of "$(agent_pid b)")"
check "his session ends" eventually 30 sessions_are 1
snapshot holder-died
ask b dma 0 0x200000 to
check "his device, which he still has open, reaches nothing" test "$(sum "$kept")" = "$before"
exec {kept}<&-
check "it is named an orphan, not free" state_is "$dev" orphaned
expect "and not lent" a "err 16" attach 0 "$dev"
agent_end b
check "it is free when he lets go" eventually 20 state_is "$dev" free

# --- broker and holder are killed at once: nobody is left who could revoke (I12) ---
agent b $bob
expect "bob is back" b ok connect $sockets
expect "a domain" b ok domain
expect "memory" b ok alloc 0x2000
expect "the device" b ok attach 0 "$dev"
expect "a mapping" b ok map 0 0x200000 0 0 0x2000 3
bobs=$(charges_of bob)
killed=$(broker_pid)
kill -9 "$killed" "$(holder_of "$(agent_pid b)")"
serves_again() { iommuctl --json status | jq -e --argjson pid "$killed" '.state == "serving" and .pid != $pid'; }
check "a new broker takes over" eventually 60 serves_again
snapshot both-died
check "his device, which he still has open, is named an orphan" eventually 30 state_is "$dev" orphaned
expect "it is not lent" a "err 16" attach 0 "$dev"
expect "his memory has a pattern" b ok fill 0 44
expect "his device writes there" b ok dma 0 0x200000 to
ask b peek 0
check "which nobody can stop" test "$answer" = "ok -1"
check "so he is charged for what is mapped, as before" test "$(charges_of bob)" = "$bobs"
check "which is not nothing" test "$(jq .locked_bytes <<<"$bobs")" = $((0x2000))
check "the ledger agrees with itself and the holders" ledger_agrees
check "and the other session is as it was" state_is "$dev2" leased
agent_end b
check "when he lets go, his device is free" eventually 30 state_is "$dev" free
check "and his session ends" eventually 30 sessions_are 1
check "and he is charged for nothing" eventually 20 nothing_is_charged_to bob
expect "the device is lent again" a ok attach 0 "$dev"

# --- an operator takes it back ---
expect "alice maps for it" a ok map 0 0x300000 0 0 0x2000 3
expect "and has a pattern there" a ok fill 0 77
check "the operator takes the device back" iommuctl device release "$dev"
ask a dma 1 0x300000 to
expect "it reaches nothing, though she still has it open" a "ok 77" peek 0
check "and is named an orphan meanwhile" state_is "$dev" orphaned
check "her other device is still hers" state_is "$dev2" leased
agent_end a
check "it is free when she lets go" eventually 20 state_is "$dev" free
check "no session is left" eventually 20 sessions_are 0

# --- rules by cgroup, and a tenant with sockets of its own ---
cgroup=$(sed -n 's/^0:://p' /proc/self/cgroup)
check "a tenant by cgroup" iommuctl tenant add carol --cgroup="$cgroup"
agent c 1003
if [ "$(printf '6.5\n%s\n' "$(uname -r)" | sort -V | head -1)" = 6.5 ]; then
  expect "the kernel proves the cgroup: carol is in" c ok connect $sockets
else
  expect "this kernel cannot prove a cgroup: refused" c "err 13" connect $sockets
fi
agent_end c
check "carol leaves" eventually 20 iommuctl tenant remove carol
check "a tenant with sockets of its own" iommuctl tenant add dave --own-socket
mkdir -p /tmp/dave
check "its folder is mounted where it can reach it" mount --bind /run/iommud/tenants/dave /tmp/dave
refuses "in its own place it is closed to everybody" as_uid 1004 ls /run/iommud/tenants
agent d 1004
expect "whoever is there is dave" d ok connect /tmp/dave
expect "and works" d ok domain
check "status knows him" grep -q dave <(iommuctl --json status)
kill -9 "$(broker_pid)"
check "after a restart of the broker" eventually 30 sessions_are 1
expect "the mounted sockets are the same" d ok domain
agent_end d
check "no session is left" eventually 20 sessions_are 0

# --- the backend alone, and the end ---
check "the device goes back to its driver" iommuctl device unbind "$dev2"
service_end
export IOMMUD_TEST_VFIO_GROUP=$group IOMMUD_TEST_VFIO_DEVICE=$dev
check "the contract of the backends holds on type1" "$LAB_BUILD/tests/contract/test_backend_contract"
check "the kept container cuts off the device of a killed holder" "$LAB_BUILD/tests/contract/test_killed_holder"

finish
