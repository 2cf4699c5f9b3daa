# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The lanes on POWER: each of lanes/ppc64le-*.sh says what its machine is like and sources this. $host_page: what the kernel's
# page size must be; $window_levels: of how many levels a window's table may be; $contracts: which programs of
# tests/contract run, if not all. A section is a function section_NAME; all run in the order of $sections, or, with
# SECTIONS="NAME..." on the host, only those.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/agents.sh"
. "$(dirname "$0")/model.sh"
. "$(dirname "$0")/power_windows.sh"
. "$(dirname "$0")/power_ledger.sh"
. "$(dirname "$0")/power_reference.sh"

sections=(platform probe soft windows ledger contract reference)
[ -n "${contracts[*]:-}" ] || contracts=(windows_contract killed_holder backend_contract)

# What the rest relies on.
section_platform() {
  local bdf
  check "the host's page is $host_page" test "$(getconf PAGESIZE)" = "$host_page"
  load vfio-pci vfio_iommu_spapr_tce
  for bdf in "${edus[@]}"; do
    check "$bdf is edu" test "$(cat "/sys/bus/pci/devices/$bdf/vendor" "/sys/bus/pci/devices/$bdf/device" | tr '\n' ' ')" = "0x1234 0x11e8 "
    check "vfio-pci takes $bdf" bind "$bdf" vfio-pci
    # VFIO resets what it opens and what it closes. powernv has a reset, which takes five seconds each time: so only the latter.
    [ ! -e "/sys/bus/pci/devices/$bdf/reset_method" ] || echo >"/sys/bus/pci/devices/$bdf/reset_method"
    check "/dev/vfio has its group" eventually 10 test -c "/dev/vfio/$(group_of "$bdf")"
  done
  check "each has a group of its own" test "$(group_of "${edus[0]}")" != "$(group_of "${edus[1]}")"
}

# The kernel alone.
section_probe() {
  # With 64K pages plain ones will do; powernv has no others then.
  [ "$host_page" != 4096 ] || echo 8 >/proc/sys/vm/nr_hugepages
  collect "$LAB_BUILD/vm/probe_spapr" "${edus[0]}" "$window_levels"
  collect "$LAB_BUILD/vm/probe_spapr" "${edus[1]}" "$window_levels"
}

# --- the service, started by hand: there is no systemd in this guest ---------------------------------------------------
#
# Starting a program that is linked with gRPC takes seconds of an emulated processor. So what can be seen otherwise is not
# asked of iommuctl, and jq, which is as slow, is left out.

alice=1001 bob=1002
broker= # its process
patience=120 # seconds

# service_start NAME [LINE...]: with these lines as its configuration, which are in [limits] until there is a section, every folder
# where it is by default, and patience. Its log is NAME.log of the results.
service_start() {
  local name=$1
  shift
  rm -rf /run/iommud /var/lib/iommud
  printf '%s\n' "[limits]" "unclaimed_token_seconds = 300" "register_deadline_ms = 120000" "recover_seconds = 120" "$@" \
    >"/run/$name.conf"
  broker_start "$name"
  export IOMMUD_DIR=/run/iommud/client
  eventually "$patience" service_settled || true
  check "the service starts" service_listens
  service_listens || lab_show "$(tail -n 5 "$LAB_OUT/$name.log")"
}
broker_start() { # NAME
  "$LAB_BUILD/iommud" --config="/run/$1.conf" 2>>"$LAB_OUT/$1.log" &
  broker=$!
}
service_settled() { service_listens || ! kill -0 "$broker"; }
service_listens() { kill -0 "$broker" && [ -S /run/iommud/operator/operator.sock ]; }

# It must leave nothing charged, agree with what is there, end with 0, and leave no holder.
service_stop() {
  local status=0
  check "ledger and holders agree" iommuctl ledger check
  check "no balance is left" eventually "$patience" no_balance
  kill "$broker"
  wait "$broker" || status=$?
  check "the service stops cleanly" test "$status" = 0
  check "no holder is left" eventually "$patience" holders_are 0
}

iommuctl() { "$LAB_BUILD/iommuctl" "$@"; }
no_balance() {
  iommuctl --json tenant list >/run/tenants.json
  grep -q '"used": *0' /run/tenants.json
  ! grep '"used": *[1-9]' /run/tenants.json
}
holders_are() { [ "$(grep -sx iommud-holder /proc/[0-9]*/comm | wc -l)" = "$1" ]; }
# The real service, holder and SDK on the software IOMMU: architecture and page size are all that is special.
section_soft() {
  local pages=$((2 * host_page))

  service_start soft "[service]" "backend = soft" \
    "[tenant alice]" "rule = uid:$alice" "locked_bytes = 16M" \
    "[tenant bob]" "rule = uid:$bob" "locked_bytes = 1M"
  service_listens || return 0
  check "the operator is answered: the backend is the software IOMMU" grep -qx "backend  *soft" <(iommuctl status)
  check "the example drives the software device" as_uid $alice "$LAB_BUILD/examples/drive_edu" edu0
  check "afterwards its holder ends" eventually "$patience" holders_are 0

  agent a $alice
  expect "a client connects" a ok connect $IOMMUD_DIR
  expect "a domain" a ok domain
  expect "memory" a ok alloc $pages
  expect "the device" a ok attach 0 edu0
  expect "a mapping" a ok map 0 0x100000 0 0 $pages 3
  expect "memory has a pattern" a ok fill 0 90
  expect "the device reads it" a ok dma 0 0x100000 from
  expect "memory is wiped" a ok fill 0 0
  expect "the device writes it back" a ok dma 0 $((0x100000 + host_page)) to
  expect "what it wrote is in a part of the memory" a "ok -1" peek 0
  check "ledger and holders agree" iommuctl ledger check
  expect "unmapped" a ok unmap 0 0x100000 $pages
  expect "memory is wiped again" a ok fill 0 7
  expect "the device tries once more" a ok dma 0 $((0x100000 + host_page)) to
  expect "and nothing has changed" a "ok 7" peek 0

  # The software IOMMU's page is 4K, whatever the host's is.
  expect "one IOMMU page of the memory" a ok map 0 0x200000 0 4096 4096 3
  expect "the device writes into it" a ok dma 0 0x200000 to
  expect "that is there" a "ok -1" peek 0
  expect "memory is wiped" a ok fill 0 7
  expect "the device writes behind it" a ok dma 0 0x201000 to
  expect "that is not" a "ok 7" peek 0
  expect "a part of an IOMMU page is refused" a "err 22" map 0 0x300000 0 2048 2048 3

  agent b $bob
  expect "another tenant connects" b ok connect $IOMMUD_DIR
  expect "a domain" b ok domain
  expect "memory beyond the quota" b ok alloc 0x200000
  expect "does not map" b "err 122" map 0 0x1000000 0 0 0x200000 3
  expect "the device that is lent is refused" b "err 16" attach 0 edu0
  agent_kill a
  check "the killed client's holder ends" eventually "$patience" holders_are 1
  insist "its device goes to the other one" b ok attach 0 edu0
  expect "who aims at the old address" b ok dma 0 0x100000 from
  agent_end b
  check "no holder is left" eventually "$patience" holders_are 0
  service_stop
  check "the contract of the backends holds" "$LAB_BUILD/tests/contract/test_backend_contract"
}

# What the backend promises, with the kernel's own windows; and what is left to a device when its holder is killed.
section_contract() {
  local name
  # powernv with the hash MMU has none
  [ ! -e /proc/sys/vm/nr_hugepages ] || echo 16 >/proc/sys/vm/nr_hugepages
  for name in "${contracts[@]}"; do
    check "$name on sPAPR" contract_holds "$name"
  done
}

contract_holds() { # NAME
  IOMMUD_TEST_VFIO_ONLY=1 IOMMUD_TEST_VFIO_GROUP=$(group_of "${edus[0]}") IOMMUD_TEST_VFIO_DEVICE=${edus[0]} \
    "$LAB_BUILD/tests/contract/test_$1" >"$LAB_OUT/$1.log" 2>&1 || {
    grep -E 'FAILED|LINE|ERROR' "$LAB_OUT/$1.log"
    return 1
  }
}

# Not one of $sections, as it takes half an hour and more: the programs of `make check` (make ARCH=ppc64el tests) in the guest,
# those that match a pattern if SECTIONS="suite" has one: SECTIONS="suite:unit/test_holder_*".
section_suite() {
  local programs=()
  mapfile -t programs < <(cd "$LAB_BUILD/tests" && compgen -G "${1:-*/test_*}" | grep -v '\.')
  TEST_TIMEOUT=900 TEST_LOGS=$LAB_OUT/suite bash tests/run.sh "$LAB_BUILD" "${programs[@]/#/$LAB_BUILD/tests/}" || fail "the suite"
}

[ -z "${LAB_SECTIONS:-}" ] || IFS=, read -ra sections <<<"$LAB_SECTIONS"
uname -r
for section in "${sections[@]}"; do
  echo "-- $section"
  arguments=()
  [[ $section != *:* ]] || arguments=("${section#*:}")
  began=$SECONDS
  "section_${section%%:*}" "${arguments[@]}"
  echo "   $((SECONDS - began)) s"
done
finish
