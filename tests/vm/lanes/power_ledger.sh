# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154 # what power.sh and power_windows.sh have
# Sourced by power.sh: what the ledger does with ranges that are not whole IOMMU pages, or not those that were mapped, on the
# kernel's own windows. Most of all for a host with pages of 64K: its IOMMU pages are smaller in the default window.

used_by_alice() { # RESOURCE
  iommuctl --json tenant list | jq --arg what "$1" '.tenants[] | select(.name == "alice").quotas[] | select(.resource == $what).used'
}
used_is() { [ "$(used_by_alice "$1")" = "$2" ]; }
of_domain() { iommuctl --json domain show "$domain_id" | jq "[.. | objects | select(has(\"$1\"))][0].$1"; } # FIELD
domain_has() { [ "$(of_domain "$1" | tr -d '"')" = "$2" ]; }

# part OFFSET LENGTH ACCESS: the arguments that map this part of memory 1 to the same place of the window, its page exposed.
part() { echo "map-with 0 $(hex $((start + $1))) 1 $(hex "$1") $(hex "$2") $3 1 0 0"; }
at() { hex $((start + $1)); }

ledger_consent() {
  expect "a part of an IOMMU page without consent" a "err 22 2 " map 0 "$(at 0x1000)" 1 0x1000 0x1000 3
  check "with the page size" answer_has 0x10000
  expect "with consent" a ok $(part 0x1000 0x1000 3)
  local locked
  locked=$(used_by_alice locked_bytes)
  expect "another part of the same page" a ok $(part 0x2000 0x800 3)
  expect "and one more" a ok $(part 0xf000 0x1000 3)
  check "which are one page" domain_has shared_pages 1
  check "once in the IOMMU" domain_has kernel_mappings 1
  check "charged once" used_is locked_bytes "$locked"
  check "of three mappings" used_is mappings 3
  expect "all of it is exposed: that was consented to" a "ok both" reach 0 "$(at 0x8000)" 1 0x8000
  expect "the next page is not" a "ok no-write" reach 0 "$(at $page64)" 1 $page64
  expect "the first part goes" a ok unmap 0 "$(at 0x1000)" 0x1000
  expect "the last one goes" a ok unmap 0 "$(at 0xf000)" 0x1000
  expect "the page stays with the one that is left" a "ok both" reach 0 "$(at 0)" 1 0
  expect "that goes" a ok unmap 0 "$(at 0x2000)" 0x800
  expect "and the page with it" a "ok no-write" reach 0 "$(at 0)" 1 0
  check "nothing is charged" used_is locked_bytes 0
}

ledger_access() {
  expect "a part for reading" a ok $(part 0 0x1000 1)
  expect "is not written" a "ok no-write" reach 0 "$(at 0)" 1 0
  expect "another part for writing" a ok $(part 0x1000 0x1000 2)
  expect "devices may do what both together ask for" a "ok both" reach 0 "$(at 0)" 1 0
  expect "the writing one goes" a ok unmap 0 "$(at 0x1000)" 0x1000
  expect "and writing with it" a "ok no-write" reach 0 "$(at 0)" 1 0
  expect "another page of the memory behind the same IOMMU page" a "err 17 6 " map-with 0 "$(at 0x1000)" 1 0x11000 0x1000 1 1 0 0
  check "with the mapping that disagrees" answer_has "$(at 0)-$(at 0xfff)"
  expect "another memory behind it" a "err " map-with 0 "$(at 0x1000)" 0 0x1000 0x1000 1 1 0 0
  expect "another place in the page" a "err 22 2 " map-with 0 "$(at 0x1000)" 1 0x2000 0x1000 1 1 0 0
  check "one mapping is left" used_is mappings 1
  expect "unmapped" a ok unmap 0 "$(at 0)" 0x1000
}

# Head and tail are shared, the body is its own.
ledger_long() {
  expect "a range over three pages" a ok $(part 0x8000 0x20000 3)
  expect "a part of the first page" a ok $(part 0 0x1000 3)
  check "two pages are shared" domain_has shared_pages 2
  expect "the long one goes" a ok unmap 0 "$(at 0x8000)" 0x20000
  expect "the first page stays" a "ok both" reach 0 "$(at 0x9000)" 1 0x9000
  expect "the others do not" a "ok no-write" reach 0 "$(at $page64)" 1 $page64
  expect "unmapped" a ok unmap 0 "$(at 0)" 0x1000
}

ledger_cut() {
  expect "four chunks of 64K" a ok map-with 0 "$(at 0x100000)" 1 0 $memory_size 3 0 $page64 0
  expect "not cut inside a chunk" a "err 16 47 " unmap-with 0 "$(at 0x118000)" $page64 0
  expect "two of them are unmapped" a "ok $((2 * page64))" unmap-with 0 "$(at 0x110000)" $((2 * page64)) 0
  expect "the first one works" a "ok both" reach 0 "$(at 0x100000)" 1 0
  expect "the second one does not" a "ok no-write" reach 0 "$(at 0x110000)" 1 0x10000
  expect "the last one does" a "ok both" reach 0 "$(at 0x130000)" 1 0x30000
  expect "a hole is filled" a ok map-with 0 "$(at 0x110000)" 1 0x10000 $((2 * page64)) 3 0 0 0
  expect "and cut only with consent" a "err 16 47 " unmap-with 0 "$(at 0x110000)" $page64 0
  expect "to a moment without translation" a "ok $page64" unmap-with 0 "$(at 0x110000)" $page64 1
  expect "the rest of it works" a "ok both" reach 0 "$(at 0x120000)" 1 0x20000
  expect "what was cut off does not" a "ok no-write" reach 0 "$(at 0x110000)" 1 0x10000
  check "ledger and holders agree" iommuctl ledger check
  expect "the first one goes" a "ok $page64" unmap-with 0 "$(at 0x100000)" $page64 0
  expect "the others too" a "ok $((2 * page64))" unmap-with 0 "$(at 0x120000)" $((2 * page64)) 0
}

# In the default window the IOMMU's page has 4K, whatever the host's.
ledger_default_window() {
  expect "4K of the memory" a ok map 0 0x100000 0 0x1000 0x1000 3
  expect "is what the device has" a "ok both" reach 0 0x100000 0 0x1000
  expect "the 4K behind it is not" a "ok no-write" reach 0 0x101000 0 0x2000
  expect "the next 4K of the memory elsewhere" a ok map 0 0x200000 0 0x2000 0x1000 3
  expect "the same 4K once more" a ok map 0 0x300000 0 0x1000 0x1000 3
  expect "is the same memory" a "ok both" reach 0 0x300000 0 0x1000
  expect "the first one goes" a ok unmap 0 0x100000 0x1000
  expect "and with it its DMA" a "ok no-write" reach 0 0x100000 0 0x1000
  expect "the alias stays" a "ok both" reach 0 0x300000 0 0x1000
  expect "and the neighbour" a "ok both" reach 0 0x200000 0 0x2000
  expect "a part of 4K is refused" a "err 22 2 " map 0 0x400000 0 0x800 0x800 3
  check "ledger and holders agree" iommuctl ledger check
  expect "the alias goes" a ok unmap 0 0x300000 0x1000
  expect "the neighbour too" a ok unmap 0 0x200000 0x1000
  check "nothing is charged" used_is locked_bytes 0
}

ledger_lazy() {
  expect "mapped in a lazy domain" b ok map 0 0x100000 0 0 $page64 3
  expect "unmapped, which is answered before the IOMMU has heard of it" b ok unmap 0 0x100000 $page64
  expect "until the flush it is translated: that is the bargain" b "ok both" reach 0 0x100000 0 0
  expect "the place is not given to others" b "err 11 63 " map 0 0x100000 0 $page64 $page64 3
  expect "a sync" b "ok $page64" sync 0
  expect "ends that" b "ok no-write" reach 0 0x100000 0 0
  expect "mapped again" b ok map 0 0x100000 0 $page64 $page64 3
  expect "it is the other memory" b "ok both" reach 0 0x100000 0 $page64
}

section_ledger() {
  spapr_service_start ledger "lazy_flush_ms = 60000" || return 0
  ! client a $alice "${edus[0]}" || ledger_with_client
  service_stop
}

ledger_with_client() {
  ledger_default_window
  window_new "a window with pages of 64K" a 0 $((256 * mib)) 16 0 0
  ledger_consent
  ledger_access
  ledger_long
  ledger_cut
  client b $bob "${edus[1]}" lazy || return 0
  ledger_lazy
  agent_end a
  agent_end b
  check "no session is left" eventually 30 sessions_are 0
}
