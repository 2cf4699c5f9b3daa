# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154 # what power.sh and power_windows.sh have
# Sourced by power.sh: what the ledger does with ranges that are not whole IOMMU pages, or not those that were mapped, on the
# kernel's own windows. Most of all for a host with pages of 64K: its IOMMU pages are smaller in the default window.

# has WHAT FIELD=NUMBER...: of a's domain, in the order of its domain-info.
has() {
  local what=$1 wanted=$2
  ask a domain-info 0
  check "$what" answer_has " ${wanted// / .*}( |$)"
}

# map_part WHAT OFFSET LENGTH ACCESS: this part of memory 1, at the same place of the window, its page exposed.
map_part() { expect "$1" a ok map-with 0 "$(at "$2")" 1 "$2" "$3" "$4" 1 0 0; }
at() { hex $((start + $1)); }

ledger_consent() {
  expect "a part of an IOMMU page without consent" a "err 22 2 " map 0 "$(at 0x1000)" 1 0x1000 0x1000 3
  check "with the page size" answer_has 0x10000
  map_part "with consent" 0x1000 0x1000 3
  local charged
  ask a used $locked_bytes
  charged=$answer
  map_part "another part of the same page" 0x2000 0x800 3
  map_part "and one more" 0xf000 0x1000 3
  has "three mappings are one shared page, once in the IOMMU" "mappings=3 kernel=1 shared=1"
  expect "charged once" a "$charged" used $locked_bytes
  expect "all of it is exposed: that was consented to" a "ok both" reach 0 "$(at 0x8000)" 1 0x8000
  expect "the next page is not" a "ok no-write" reach 0 "$(at $page64)" 1 $page64
  expect "the first part goes" a ok unmap 0 "$(at 0x1000)" 0x1000
  expect "the last one goes" a ok unmap 0 "$(at 0xf000)" 0x1000
  expect "the page stays with the one that is left" a "ok both" reach 0 "$(at 0)" 1 0
  expect "that goes" a ok unmap 0 "$(at 0x2000)" 0x800
  expect "and the page with it" a "ok no-write" reach 0 "$(at 0)" 1 0
  expect "nothing is charged" a "ok 0 " used $locked_bytes
}

ledger_access() {
  map_part "a part for reading" 0 0x1000 1
  expect "is not written" a "ok no-write" reach 0 "$(at 0)" 1 0
  map_part "another part for writing" 0x1000 0x1000 2
  expect "devices may do what both together ask for" a "ok both" reach 0 "$(at 0)" 1 0
  expect "the writing one goes" a ok unmap 0 "$(at 0x1000)" 0x1000
  expect "and writing with it" a "ok no-write" reach 0 "$(at 0)" 1 0
  expect "another page of the memory behind the same IOMMU page" a "err 17 6 " map-with 0 "$(at 0x1000)" 1 0x11000 0x1000 1 1 0 0
  check "with the mapping that disagrees" answer_has "$(at 0)-$(at 0xfff)"
  expect "another memory behind it" a "err " map-with 0 "$(at 0x1000)" 0 0x1000 0x1000 1 1 0 0
  expect "another place in the page" a "err 22 2 " map-with 0 "$(at 0x1000)" 1 0x2000 0x1000 1 1 0 0
  has "one mapping is left" "mappings=1 kernel=1"
  expect "unmapped" a ok unmap 0 "$(at 0)" 0x1000
}

# Head and tail are shared, the body is its own.
ledger_long() {
  map_part "a range over three pages" 0x8000 0x20000 3
  map_part "a part of the first page" 0 0x1000 3
  has "two pages are shared, three are mapped" "mappings=2 kernel=3 shared=2"
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
  expect "the alias goes" a ok unmap 0 0x300000 0x1000
  expect "the neighbour too" a ok unmap 0 0x200000 0x1000
  expect "nothing is charged" a "ok 0 " used $locked_bytes
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
  check "ledger and holders agree" iommuctl ledger check
  ! client b $bob "${edus[1]}" lazy || ledger_lazy
  agent_end a
  agent_end b
  check "no holder is left" eventually "$patience" holders_are 0
}
