#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The ledger's promises on the kernel's VFIO type1: partial and lazy unmapping under DMA, the IOMMU's budget, what mappings cost
# the kernel, whose memory it is, pages that mappings share, and all of them through the death of each party.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/agents.sh"
. "$(dirname "$0")/service.sh"

uname -r
alice=1001 bob=1002
page=$((0x1000)) mib=$((0x100000))
locked=1 tables=8                                       # iommud.h: enum iommud_resource
read=1 write=2 both=3 expose=1 merge=2 at_chunks=0 remap=1
partial_unmap=47 quota_exceeded=60 limit_exceeded=61 in_progress=63 in_use=62 not_mapped=46 overlap=6 holes=27
cgroup=/sys/fs/cgroup/lane-alice
entry_limit=/sys/module/vfio_iommu_type1/parameters/dma_entry_limit

# --- words ---------------------------------------------------------------------------------------------------------------

# load_device NAME A IOVA M OFFSET BYTE: the device's buffer is full of BYTE, which it has read at IOVA, behind which is OFFSET.
load_device() {
  ask "$1" fill-at "$4" "$5" 2048 "$6"
  expect "the device reads 0x$(printf %x "$3")" "$1" ok dma "$2" "$3" from
  loaded=$6
}
# What the device writes to IOVA arrives at OFFSET of M; or does not.
arrives() { dma_gives "$@" "$loaded"; }
blocked() { dma_gives "$@" 0; }
dma_gives() { # WHAT NAME A IOVA M OFFSET BYTE
  ask "$2" fill-at "$5" "$6" 2048 0
  ask "$2" dma "$3" "$4" to
  expect "$1" "$2" "ok $7" peek-at "$5" "$6" 2048
}

# info_has NAME D WORD...: words of the answer to domain-info.
info_has() {
  local name=$1 domain=$2 word
  shift 2
  ask "$name" domain-info "$domain"
  for word in "$@"; do
    [[ " $answer " == *" $word "* ]] || return 1
  done
}
# In a shell of its own the answers of agents would be lost: no check().
info() { # WHAT NAME D WORD...
  local what=$1
  shift
  if info_has "$@"; then ok "$what"; else fail "$what ($answer)"; fi
}
used() { # NAME RESOURCE: prints a number
  ask "$1" used "$2"
  answer=${answer#ok }
  answer=${answer% *}
}
says() { # WHAT PATTERN: what the last answer must have in it
  if [[ $answer == *$2* ]]; then ok "$1"; else fail "$1 ('$answer' has no '$2')"; fi
}
at_least() { # WHAT A B: A >= B
  if [ "$2" -ge "$3" ]; then ok "$1 ($2 >= $3)"; else fail "$1 ($2 is less than $3)"; fi
}

# soon WHAT SECONDS COMMAND...: as check() of eventually(), for a COMMAND that sets variables.
soon() {
  if eventually "${@:2}"; then ok "$1"; else fail "$1 (still not so after $2 s)"; fi
}

# loop_goes_on NAME N: N more rounds, of two transfers each.
loop_goes_on() {
  local name=$1 upto
  ask "$name" rounds
  upto=$((${answer#ok } + $2))
  loop_reaches() { ask "$name" rounds && [[ $answer == ok* ]] && [ "${answer#ok }" -ge "$upto" ]; }
  if eventually 60 loop_reaches; then ok "$((2 * $2)) more transfers of the loop arrive"; else fail "the loop goes on ($answer)"; fi
}

# After the end of all sessions (which are charged too).
nothing_is_left() { # AFTER-WHAT
  check "$1 nothing is charged" eventually 30 no_balance
  check "and ledger and holders agree" ledger_agrees
}

section() {
  echo "-- $1, after $SECONDS s"
  "section_$1"
}

devices_are_free() { state_is "$dev" free && state_is "$dev2" free; }

begin() {
  load vfio-pci vfio_iommu_type1
  # What is lazy waits until the lane says otherwise.
  sed -i 's/^\[limits\]$/&\nlazy_flush_ms = 60000\nlazy_flush_mappings = 100000/' /etc/iommud/iommud.conf
  service_begin
  check "a tenant is made" iommuctl tenant add alice --uid=$alice --locked-bytes=128M --table-bytes=64M --mappings=10000
  check "another one" iommuctl tenant add bob --uid=$bob --locked-bytes=1M
  check "the first device is bound to vfio-pci" iommuctl device bind "$dev"
  check "the second one too" iommuctl device bind "$dev2"
}

# --- the seed's case: of 8 MiB the last 3 go -------------------------------------------------------------------------------

section_partial() {
  local iova=$((0x1000000)) whole=$((0x4000000)) kept
  agent a $alice
  expect "alice connects" a ok connect $sockets
  expect "a domain" a ok domain
  expect "8 MiB" a ok alloc $((8 * mib))
  expect "a device" a ok attach 0 "$dev"
  expect "another one in the same domain" a ok attach 0 "$dev2"
  expect "8 MiB are mapped in chunks of 1 MiB" a "ok 0x1000000 1 $((8 * mib)) " map-with 0 $iova 0 0 $((8 * mib)) $both 0 $mib 0
  info "the IOMMU has eight" a 0 mappings=1 kernel=8
  expect "a loop of transfers" a ok loop 0 $iova 0
  loop_goes_on a 3
  expect "inside a chunk it is not cut" a "err 16 $partial_unmap" unmap-with 0 $((iova + 5 * mib + page)) $mib $at_chunks
  says "and the borders are named" "nearest borders are 0x1500000 and 0x1600000"
  expect "3 MiB at 5 MiB are unmapped" a "ok $((3 * mib))" unmap-with 0 $((iova + 5 * mib)) $((3 * mib)) $at_chunks
  info "five are left" a 0 mappings=1 kernel=5 bytes=$((5 * mib))
  expect "and five are paid for" a "ok $((5 * mib)) " used $locked
  load_device a 1 $((iova + 2 * mib)) 0 $((2 * mib)) 99
  arrives "the last kept page is reached" a 1 $((iova + 5 * mib - 2048)) 0 $((5 * mib - 2048))
  blocked "the first one behind it is not" a 1 $((iova + 5 * mib)) 0 $((5 * mib))
  blocked "nor the last of all" a 1 $((iova + 8 * mib - 2048)) 0 $((8 * mib - 2048))
  loop_goes_on a 25
  expect "a hole in the middle" a "ok $mib" unmap-with 0 $((iova + 2 * mib)) $mib $at_chunks
  info "makes two of it" a 0 mappings=2 kernel=4
  blocked "the hole is not reached" a 1 $((iova + 2 * mib)) 0 $((2 * mib))
  arrives "what is behind it is" a 1 $((iova + 3 * mib)) 0 $((3 * mib))

  expect "the same memory elsewhere, whole" a "ok 0x4000000 1 $((4 * mib)) " map-with 0 $whole 0 0 $((8 * mib)) $both 0 0 0
  expect "is not cut" a "err 16 $partial_unmap" unmap-with 0 $((whole + 5 * mib)) $((3 * mib)) $at_chunks
  says "only as a whole" "nearest borders are 0x4000000 and 0x4800000"
  expect "unless a moment without translation is fine" a "ok $((3 * mib))" unmap-with 0 $((whole + 5 * mib)) $((3 * mib)) $remap
  load_device a 1 $((whole + 2 * mib)) 0 $((2 * mib)) 55
  arrives "the rest is reached" a 1 $((whole + 5 * mib - 2048)) 0 $((5 * mib - 2048))
  blocked "what was cut off is not" a 1 $((whole + 5 * mib)) 0 $((5 * mib))
  loop_goes_on a 2

  service_kill 1
  check "ledger and holders agree about what was cut" ledger_agrees
  info "it is what it was" a 0 mappings=3 kernel=5 bytes=$((9 * mib))
  expect "and each page is paid for once" a "ok $((5 * mib)) " used $locked
  loop_goes_on a 2
  blocked "what was cut off is not reached" a 1 $((whole + 5 * mib)) 0 $((5 * mib))
  expect "and can be cut further" a "ok $mib" unmap-with 0 $((iova + 3 * mib)) $mib $at_chunks
  blocked "that neither" a 1 $((iova + 3 * mib)) 0 $((3 * mib))

  exec {kept}<"$(memfd_of "$(agent_pid a)")"
  agent_kill a
  nothing_is_left "after the client's death"
  intruder $kept $iova $((iova + 2 * mib)) $((iova + 5 * mib)) $((whole + 4 * mib))
}

# Another tenant's devices aim at IOVAs that were somebody's, whose memory must stay as it is.
intruder() { # FD IOVA...
  local kept=$1 iova before
  shift
  agent b $bob
  expect "bob connects" b ok connect $sockets
  expect "a domain of his" b ok domain
  expect "some memory" b ok alloc $page
  insist "he gets the device" b ok attach 0 "$dev"
  insist "and the other one" b ok attach 0 "$dev2"
  expect "a mapping of his own" b ok map 0 0xf0000000 0 0 $page $both
  load_device b 0 $((0xf0000000)) 0 0 66
  load_device b 1 $((0xf0000000)) 0 0 66
  before=$(sum "$kept")
  for iova in "$@"; do
    ask b dma 0 "$iova" to
    ask b dma 1 "$iova" to
  done
  check "nothing landed in the dead client's memory" test "$(sum "$kept")" = "$before"
  exec {kept}<&-
  agent_end b
}

# --- the IOMMU's budget ---------------------------------------------------------------------------------------------------

section_budget() {
  local iova=$((0x100000))
  echo 32 >$entry_limit
  mkdir $cgroup
  agent a $alice $cgroup
  insist "alice connects" a ok connect $sockets
  expect "a domain" a "ok 0 " domain
  expect "memory" a "ok 0 " alloc $((64 * page))
  expect "more than the IOMMU takes is mapped before there is one" a ok map-many 0 $iova 0 0 $page $both 0 33 $page $page
  insist "and the attachment refused" a "err 122 $limit_exceeded" attach 0 "$dev"
  says "with the number" "takes no more than 32"
  expect "one less" a ok unmap 0 $iova $page
  expect "and it is attached" a "ok 0 " attach 0 "$dev"
  info "the limit is known, and used up" a 0 limit=32 kernel=32
  expect "one more is refused" a "err 122 $limit_exceeded" map 0 $iova 0 0 $page $both
  says "with the numbers" "takes 32 mappings in a domain; 32 are there and 1 more"
  expect "all of it is unmapped" a ok unmap-many 0 $((iova + page)) $page 32 $page
  info "and nothing counted" a 0 kernel=0

  expect "a chunked mapping counts its pieces" a ok map-with 0 $iova 0 0 $((16 * page)) $both 0 $page 0
  info "sixteen" a 0 mappings=1 kernel=16
  expect "eight neighbours, merged" a "ok 1 " map-many 0 $((iova + 16 * page)) 0 $((16 * page)) $page $both $merge 8 $page $page
  info "count one" a 0 mappings=2 kernel=17
  expect "sixteen more are one too many" a "err 122 $limit_exceeded" map-many 0 $((2 * iova)) 0 0 $page $both 0 16 $page $page
  says "with the numbers" "takes 32 mappings in a domain; 17 are there and 16 more"
  info "and none is made" a 0 mappings=2 kernel=17
  expect "fifteen fit" a "ok 15 " map-many 0 $((2 * iova)) 0 0 $page $both 0 15 $page $page
  info "the budget is used up, and the kernel has taken all of it" a 0 kernel=32
  expect "two chunks go" a ok unmap-with 0 $((iova + 4 * page)) $((2 * page)) $at_chunks
  expect "two pages come" a "ok 2 " map-many 0 $((4 * iova)) 0 0 $page $both 0 2 $page $page
  info "and it is used up again" a 0 kernel=32
  load_device a 0 $iova 0 0 42
  arrives "the last one is reached" a 0 $((4 * iova + page)) 0 $page
  expect "a cut that needs one more" a "err 122 $limit_exceeded" unmap-with 0 $((iova + 18 * page)) $page $remap
  says "is refused with the numbers" "takes 32 mappings in a domain; 32 are there and 1 more"
  check "ledger and holders agree" ledger_agrees
  expect "the device is given back" a ok detach 0
  expect "the domain destroyed" a ok destroy 0
}

# --- what it costs the kernel -----------------------------------------------------------------------------------------------

# KiB that no line of /proc/meminfo explains: where this kernel counts page tables of an IOMMU nowhere, they are there.
unexplained() {
  echo 1 >/proc/sys/vm/stat_refresh
  awk '
    FILENAME ~ /zoneinfo/ { if ($1 == "count:") free += $2 * 4; next }
    { v[$1] = $2 }
    END {
      print v["MemTotal:"] - v["MemFree:"] - free - v["Buffers:"] - v["Cached:"] - v["SwapCached:"] - v["AnonPages:"] \
            - v["Slab:"] - v["PageTables:"] - v["SecPageTables:"] - v["KernelStack:"] - v["Percpu:"] - v["VmallocUsed:"] }
  ' /proc/zoneinfo /proc/meminfo
}
meminfo() { awk -v name="$1:" '$1 == name { kib = $2 } END { print kib + 0 }' /proc/meminfo; }
vmstat() { awk -v name="$1" '$1 == name { n = $2 } END { print n * 4 }' /proc/vmstat; }
slab() { [ ! -e /proc/slabinfo ] || awk -v name="$1" '$1 == name { n = $2 } END { print n + 0 }' /proc/slabinfo; }
stat_of() { awk -v name="$2" '$1 == name { n = $2 } END { print int(n / 1024) }' "$1/memory.stat"; }

# costs NAME CGROUP: sets $cost (KiB the kernel has more than at the last call) and prints what it counts.
costs() {
  local now
  now=("$(unexplained)" "$(meminfo SecPageTables)" "$(meminfo PageTables)" "$(vmstat nr_iommu_pages)"
    "$(stat_of "$2" sec_pagetables)" "$(stat_of "$2" kernel)" "$(slab kmalloc-96)" "$(slab kmalloc-128)")
  [ ${#before[@]} -gt 0 ] || before=("${now[@]}")
  # A kernel that counts its tables is believed; else what is in use and explained by nothing.
  cost=$((now[0] - before[0] + now[1] - before[1]))
  printf '    %s: unexplained %+d KiB, SecPageTables %+d, PageTables %+d, nr_iommu_pages %+d; her cgroup: sec_pagetables %+d, ' "$1" \
    $((now[0] - before[0])) $((now[1] - before[1])) $((now[2] - before[2])) $((now[3] - before[3])) $((now[4] - before[4]))
  printf 'kernel %+d; objects of kmalloc-96 %+d, of kmalloc-128 %+d\n' $((now[5] - before[5])) $((now[6] - before[6])) $((now[7] - before[7]))
  counted=$((now[3] - before[3])) in_cgroup=$((now[4] - before[4])) objects=$((now[6] - before[6] + now[7] - before[7]))
}

# Tables of 4 KiB for each 2 MiB, each GiB, each 512 GiB; 128 bytes for each mapping.
section_tables() {
  local n=8192 stride=$((2 * mib)) iova=$((0x100000000)) slack=3072
  local before=() first charge cost counted in_cgroup objects
  expect "a domain" a "ok 1 " domain
  insist "a device" a "ok 1 " attach 1 "$dev"
  expect "a mapping" a ok map 1 $page 0 0 $page $both
  used a $tables
  first=$answer
  costs "before" $cgroup
  expect "$n mappings of one page, 2 MiB apart" a "ok $n 0 " map-many 1 $iova 0 0 $page $both 0 $n $stride 0
  used a $tables
  charge=$((answer - first))
  costs "mapped" $cgroup
  echo "    the charge: $((charge / 1024)) KiB"
  # Those of higher levels are there since the first mapping.
  check "the charge is a table for each, one for each GiB, and the records" test "$charge" = $(((n + n / 512) * page + n * 128))
  at_least "it covers what the kernel took, KiB" $((charge / 1024 + slack)) "$cost"
  at_least "which is most of it, KiB" "$cost" $(((n * 4) * 3 / 4))
  # Which of them depends on the kernel; and whether it tells.
  [ ! -e /proc/slabinfo ] || at_least "each mapping has a record in the kernel" "$objects" $((n * 9 / 10))
  if [ "$(vmstat nr_iommu_pages)" -gt 0 ]; then
    at_least "this kernel counts the tables, KiB" "$counted" $((n * 4))
    at_least "and the charge covers them, KiB" $((charge / 1024)) "$counted"
    at_least "they are in her cgroup, KiB" "$in_cgroup" $((n * 4))
  else
    echo "    this kernel counts the tables nowhere, and in no cgroup"
    check "so they are in no cgroup" test "$in_cgroup" = 0
  fi

  check "her limit is lowered below that" iommuctl tenant set alice --table-bytes=16M
  expect "new tables are refused" a "err 122 $quota_exceeded" map 1 $((iova + n * stride)) 0 0 $page $both
  says "with the numbers" "may have 16"
  echo "    $answer"
  expect "all are unmapped" a "ok $((n * page))" unmap-many 1 $iova $page $n $stride
  costs "unmapped" $cgroup
  at_least "the kernel keeps the tables, KiB" "$cost" $((n * 4 * 3 / 4))
  used a $tables
  at_least "and so they stay charged, KiB" $((answer / 1024)) $(((n + n / 512) * 4))
  check "ledger and holders agree" ledger_agrees
  expect "the device is given back" a ok detach 1
  expect "the domain destroyed" a ok destroy 1
  expect "and with it the charge" a "ok 0 " used $tables
  tables_are_freed() { costs "destroyed" $cgroup && [ "$cost" -lt $((n * 4 / 4)) ]; }
  check "and the kernel's tables" eventually 20 tables_are_freed
}

# --- whose memory it is -----------------------------------------------------------------------------------------------------
#
# What the kernel says of shared memory, which is what tenants bring: in memory.stat whom it is charged to, in a process's smaps
# how much of one object is in swap. Both are exact, but for pages that each processor counts in advance, and for memory.stat,
# which is up to two seconds old. memory.current and memory.swap.current have much else in them that comes and goes.

# KiB; a slice without a process is not there.
shmem_of() { if [ -e "/sys/fs/cgroup/$1" ]; then stat_of "/sys/fs/cgroup/$1" shmem; else echo 0; fi; }
their_shmem() { shmem=("$(shmem_of lane-alice)" "$(shmem_of system.slice/iommud.service)" "$(shmem_of iommud-holders.slice)"); }
# From here on.
memory_begins() {
  their_shmem
  shmem_before=("${shmem[@]}")
}
# memory_is WHAT KIB: so much more is charged to her cgroup, and none of it to the service's or to its holders' slice. Those write
# to files of a tmpfs, too, but never that much.
memory_is() {
  soon "$1: her cgroup has all of it and no more" 20 her_memory_is "$2"
  echo "    more than before: hers ${more[0]} KiB of $2, the service's ${more[1]}, its holders' slice ${more[2]}"
  at_least "$1: not the service's, KiB" $((n * 1024 / 8)) "${more[1]}"
  at_least "$1: not its holders', KiB" $((n * 1024 / 8)) "${more[2]}"
}
her_memory_is() { # KIB
  local i
  their_shmem
  for i in 0 1 2; do more[i]=$((shmem[i] - shmem_before[i])); done
  [ "${more[0]}" -ge $(($1 - 1024)) ] && [ "${more[0]}" -le $(($1 + 1024)) ]
}

section_memory() {
  local n=32 holder shmem shmem_before more
  expect "a domain" a "ok 2 " domain
  insist "a device" a "ok 2 " attach 2 "$dev"
  expect "a page is mapped" a ok map 2 $page 0 0 $page $both
  holder=$(only_holder)
  check "her holder is in her cgroup" grep -qx 0::/lane-alice "/proc/$holder/cgroup"
  memory_begins
  expect "memory that nobody touched is refused" a "err 14 $holes" import $((n * mib))
  memory_is "refused" 0
  expect "unless the holder may populate it" a "ok 1 " import $((n * mib)) populate
  memory_is "populated" $((n * 1024))
  expect "it is mapped" a ok map 2 $((0x10000000)) 1 0 $((n * mib)) $both
  memory_is "mapped" $((n * 1024))
  expect "unmapped" a ok unmap 2 $((0x10000000)) $((n * mib))
  expect "and let go" a ok memory-close 1
  memory_is "let go" 0
  if swap_on; then
    section_swap
  else
    echo "    no swap in this machine: $swap_missing"
  fi
  agent_kill a
  nothing_is_left "after the client's death"
  check "her cgroup can be removed" rmdir $cgroup
}

# A swap file cannot be on tmpfs, and the guest has no disk: a RAM disk of Debian's kernel.
swap_on() {
  swap_missing="no brd module"
  modprobe brd rd_nr=1 rd_size=131072 2>/dev/null || return 1
  swap_missing="mkswap or swapon failed"
  eventually 10 test -b /dev/ram0 && mkswap -q /dev/ram0 >/dev/null 2>&1 && swapon /dev/ram0
}

# swapped: KiB of the object of $n MiB, which she has mapped, that are in swap; -1: it is not there.
swapped() {
  awk -v size=$((n * 1024)) '
    /^[0-9a-f]+-/ { ours = $6 ~ /^\/memfd:iommud/ }
    ours && $1 == "Size:" { ours = $2 == size }
    ours && $1 == "Swap:" { kib = $2; found = 1 }
    END { print found ? kib : -1 }' "/proc/$(agent_pid a)/smaps"
}
# The kernel takes what it likes, of all that is hers, and says EAGAIN when it has found less.
reclaim() { { echo $((2 * n * mib)) >/sys/fs/cgroup/lane-alice/memory.reclaim; } 2>/dev/null || true; }
most_is_swapped() {
  reclaim
  in_swap=$(swapped)
  [ "$in_swap" -ge $((n * 1024 * 3 / 4)) ]
}

section_swap() {
  local in_swap
  memory_begins
  expect "she has memory" a "ok 2 " alloc $((n * mib))
  memory_is "allocated" $((n * 1024))
  ask a fill 2 77
  soon "most of it is swapped out" 60 most_is_swapped
  echo "    $in_swap KiB of it"
  soon "and her cgroup has no more than the rest" 20 hers_is_at_most $((n * 1024 - in_swap))
  memory_begins
  expect "then mapped" a ok map 2 $((0x10000000)) 2 0 $((n * mib)) $both
  check "all of it is in memory" test "$(swapped)" = 0
  memory_is "what was in swap" "$in_swap"
  reclaim
  check "and stays, whatever the kernel needs: it is pinned" test "$(swapped)" = 0
  load_device a 2 $((0x10000000)) 2 0 78
  expect "it has kept its content" a "ok 77" peek-at 2 2048 $((n * mib - 2048))
  expect "unmapped" a ok unmap 2 $((0x10000000)) $((n * mib))
  soon "it can be swapped out again" 60 most_is_swapped
}
# Less, if other memory of hers was swapped out, too.
hers_is_at_most() {
  her_memory_is "$1" || [ "${more[0]}" -lt "$1" ]
}

# --- pages that are shared, mappings that were cut, unmaps that wait; and every party's death ----------------------------------

# One session for this and the next two: a domain with one device, a lazy one with the other.
two_domains() {
  agent a $alice
  insist "alice connects" a ok connect $sockets
  expect "a domain" a "ok 0 " domain
  expect "a lazy one" a "ok 1 " domain lazy
  expect "memory" a "ok 0 " alloc $((96 * page))
  insist "a device" a "ok 0 " attach 0 "$dev"
  insist "another one in the lazy domain" a "ok 1 " attach 1 "$dev2"
}

section_shared() {
  local iova=$((0x300000))
  two_domains
  expect "other memory" a "ok 1 " alloc $page
  expect "a page to read and write" a ok map 0 $((iova + page)) 0 $page $page $both
  load_device a 0 $((iova + page)) 0 $page 88
  expect "a part of a page is refused" a "err 22" map 0 $iova 0 0 $((0x400)) $read
  expect "unless all of it may be seen" a ok map-with 0 $iova 0 0 $((0x400)) $read $expose 0 0
  info "the page is counted" a 0 mappings=2 kernel=2 shared=1
  blocked "the device must not write to it" a 0 $((iova + 0x800)) 0 $((0x800))
  expect "other memory behind the same page is refused" a "err 17 $overlap" map-with 0 $((iova + 0x800)) 1 $((0x800)) $((0x100)) $read $expose 0 0
  says "with both named" "0x300800-0x3008ff and the mapping 0x300000-0x3003ff"
  expect "somebody who writes joins" a ok map-with 0 $((iova + 0x800)) 0 $((0x800)) $((0x400)) $write $expose 0 0
  info "it is still one page" a 0 mappings=3 kernel=2 shared=1
  expect "paid for once" a "ok $((2 * page)) " used $locked
  arrives "now the device writes" a 0 $((iova + 0x800)) 0 $((0x800))
  load_device a 0 $iova 0 0 89
  expect "and leaves" a ok unmap 0 $((iova + 0x800)) $((0x400))
  blocked "now it must not any more" a 0 $((iova + 0x800)) 0 $((0x800))
  load_device a 0 $iova 0 0 90
  arrives "what it read there it writes elsewhere" a 0 $((iova + page)) 0 $page
  expect "the last one leaves" a ok unmap 0 $iova $((0x400))
  info "and the page is gone" a 0 mappings=1 kernel=1 shared=0
  expect "and paid for no more" a "ok $page " used $locked
  ask a fill-at 0 0 2048 91
  ask a dma 0 $iova from
  ask a fill-at 0 $page 2048 0
  ask a dma 0 $((iova + page)) to
  ask a peek-at 0 $page 2048
  if [ "$answer" != "ok 91" ]; then ok "the device does not read it"; else fail "the device reads it"; fi
  expect "the other page too" a ok unmap 0 $((iova + page)) $page
}

section_lazy() {
  local iova=$((0x400000))
  expect "two mappings" a ok map-many 1 $iova 0 0 $((4 * page)) $both 0 2 $((4 * page)) $((4 * page))
  load_device a 1 $((iova + 4 * page)) 0 $((4 * page)) 33
  expect "one is unmapped" a ok unmap 1 $iova $((4 * page))
  info "and waits" a 1 deferred=1 kernel=2
  arrives "the device still reaches it" a 1 $iova 0 0
  expect "it is still paid for" a "ok $((8 * page)) " used $locked
  expect "its range is not used again" a "err 11 $in_progress" map 1 $iova 0 0 $page $both
  expect "it is not unmapped twice" a "err 2 $not_mapped" unmap 1 $iova $((4 * page))
  expect "its memory is not let go" a "err 16 $in_use" memory-close 0
  expect "until it is flushed" a "ok $((4 * page))" sync 1
  blocked "now the device does not reach it" a 1 $iova 0 0
  arrives "what was not unmapped it does" a 1 $((iova + 4 * page)) 0 $((4 * page))
  info "nothing waits" a 1 deferred=0 kernel=1
  expect "nor is paid for" a "ok $((4 * page)) " used $locked
  expect "the range is free" a ok map 1 $iova 0 0 $page $both
  arrives "and in use again" a 1 $iova 0 0
  expect "both are unmapped" a ok unmap 1 $iova $page
  expect "both" a ok unmap 1 $((iova + 4 * page)) $((4 * page))
  expect "and flushed together" a "ok $((5 * page))" sync 1
}

# What the death of each party must not hurt: cut at chunks (a hole at 0x102000) and elsewhere (0x201000), two mappings in one page
# (0x300000), one unmapped lazily that waits (0x400000) and one that is there (0x500000), in memory 0 at the offset of the
# IOVA without its highest digit times 16 pages.
everything() {
  expect "a chunked mapping" a ok map-with 0 $((0x100000)) 0 $((16 * page)) $((8 * page)) $both 0 $page 0
  expect "with a hole" a ok unmap-with 0 $((0x102000)) 0x1000 $at_chunks
  expect "a whole one" a ok map-with 0 $((0x200000)) 0 $((32 * page)) $((4 * page)) $both 0 0 0
  expect "with a hole" a ok unmap-with 0 $((0x201000)) 0x1000 $remap
  expect "a part of a page, to read" a ok map-with 0 $((0x300000)) 0 $((48 * page)) 0x400 $read $expose 0 0
  expect "another one, to write" a ok map-with 0 $((0x300800)) 0 $((48 * page + 0x800)) 0x400 $write $expose 0 0
  expect "mappings in the lazy domain" a ok map 1 $((0x400000)) 0 $((64 * page)) $((2 * page)) $both
  expect "two" a ok map 1 $((0x500000)) 0 $((80 * page)) $page $both
  load_device a 0 $((0x100000)) 0 $((16 * page)) 21
  load_device a 1 $((0x500000)) 0 $((80 * page)) 21
  expect "one is unmapped" a ok unmap 1 $((0x400000)) $((2 * page))
  info "and waits" a 1 deferred=1 kernel=2
  info "the other domain has what it should" a 0 mappings=6 kernel=10 shared=1
  expect "and what it has is paid for" a "ok $(((7 + 3 + 1 + 2 + 1) * page)) " used $locked
}

# Every IOVA of everything(), by the device that could reach it: no change in the memory.
reaches_nothing() { # WHAT
  local iova
  ask a fill 0 7
  for iova in 0x100000 0x101000 0x102000 0x200000 0x201000 0x300000; do ask a dma 0 $iova to; done
  for iova in 0x400000 0x500000; do ask a dma 1 $iova to; done
  expect "$1" a "ok 7" peek 0
}

section_deaths() {
  local kept
  everything
  service_kill 1
  check "ledger and holders agree after the broker's death" ledger_agrees
  info "the next one knows what was cut and shared" a 0 mappings=6 kernel=10 shared=1 limit=64
  expect "and what the IOMMU takes" a "err 122 $limit_exceeded" map-many 0 $((0x600000)) 0 0 $page $both 0 60 $page $page
  says "and has" "takes 64 mappings in a domain; 10 are there and 60 more"
  info "what was acknowledged waits again" a 1 deferred=1 kernel=2
  expect "and is still paid for" a "ok $(((7 + 3 + 1 + 3) * page)) " used $locked
  expect "it is flushed when that is asked for" a ok sync 1
  info "and is gone" a 1 deferred=0 kernel=1
  expect "and given back" a "ok $(((7 + 3 + 1 + 1) * page)) " used $locked
  arrives "before the hole" a 0 $((0x101000)) 0 $((17 * page))
  blocked "in it" a 0 $((0x102000)) 0 $((18 * page))
  arrives "behind it" a 0 $((0x103000)) 0 $((19 * page))
  blocked "in the other hole" a 0 $((0x201000)) 0 $((33 * page))
  arrives "behind that" a 0 $((0x203000)) 0 $((35 * page))
  arrives "the shared page" a 0 $((0x300400)) 0 $((48 * page + 0x400))
  blocked "what was unmapped lazily" a 1 $((0x400000)) 0 $((64 * page))
  arrives "beside it" a 1 $((0x500000)) 0 $((80 * page))
  expect "it is a lazy domain" a ok unmap 1 $((0x500000)) $page
  info "still" a 1 deferred=1

  expect "her memory has a pattern" a ok fill 0 7
  exec {kept}<"$(memfd_of "$(agent_pid a)")"
  agent_kill a
  nothing_is_left "after the client's death"
  intruder $kept $((0x100000)) $((0x103000)) $((0x203000)) $((0x300000)) $((0x400000)) $((0x500000))

  two_domains
  everything
  kill -9 "$(only_holder)"
  nothing_is_left "after the holder's death"
  reaches_nothing "the devices, which she still has open, reach nothing"
  agent_end a
}

# --- the lane -----------------------------------------------------------------------------------------------------------------

begin
section partial
default=$(cat $entry_limit)
echo 64 >$entry_limit
section shared
section lazy
section deaths
section budget
echo "$default" >$entry_limit
section tables
section memory
echo "-- the end, after $SECONDS s"
check "both devices are free" eventually 20 devices_are_free
service_end
finish
