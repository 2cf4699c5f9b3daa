# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154 # $host_page is the lane's, $edus lib.sh's
# Sourced by power.sh: the service with backend = vfio-spapr, on the kernel's own windows. An agent's memory 0 is of plain
# pages. Its memory 1 is of pages that are large enough for windows of 64K: plain ones where the host's are, else huge ones.

mib=$((1 << 20)) gib=$((1 << 30))
page64=65536
memory_size=$((4 * page64)) # of which memory 0 has at least 2M, memory 1 at least this
huge_page=0 # of 2M, if the machine has some
locked_bytes=1 mappings=2 sessions=6 windows=9 # the resources, as iommud.h counts them
large=0     # memory 1: its size and its pages
large_pages=

huge_pages_reserve() {
  [ -e /proc/sys/vm/nr_hugepages ] || return 0
  echo 20 >/proc/sys/vm/nr_hugepages
  ! grep -qx 'Hugepagesize: *2048 kB' /proc/meminfo || grep -qx 'HugePages_Total: *0' /proc/meminfo || huge_page=$((2 * mib))
}

spapr_service_start() { # NAME [LIMIT...]
  local name=$1
  shift
  huge_pages_reserve
  large=$memory_size large_pages=
  [ "$huge_page" = 0 ] || large=$((2 * huge_page)) large_pages=$huge_page
  service_start "$name" "$@" "[service]" "backend = vfio-spapr" "holder_group = 2000" \
    "[tenant alice]" "rule = uid:$alice" "locked_bytes = 64M" "windows = 2" \
    "[tenant bob]" "rule = uid:$bob" "locked_bytes = 64M" "windows = 0"
  service_listens
}

# client AGENT UID DEVICE [lazy]: with a domain, both memories, and the device, for which it waits.
client() {
  agent "$1" "$2"
  expect "$1 connects" "$1" ok connect "$IOMMUD_DIR"
  expect "$1 has a domain" "$1" ok domain "${4:-}"
  domain_id=${answer##* }
  expect "$1 has memory" "$1" "ok 0" alloc $((2 * mib))
  expect "$1 has memory for large pages" "$1" "ok 1" alloc "$large" "$large_pages"
  insist "$1 has $3" "$1" ok attach 0 "$3"
  [[ $answer = ok* ]]
}

# By the descriptor of its client that each has.
holder_of() { # PID
  local holder
  for holder in $(grep -lsx iommud-holder /proc/[0-9]*/comm); do
    ! grep -qsx "Pid:[[:space:]]*$1" "${holder%/comm}"/fdinfo/* || basename "${holder%/comm}"
  done
}
# What its memory holds, looked at by root through a descriptor that outlives the agent.
memfd_of() { # PID
  local fd
  for fd in "/proc/$1/fd"/*; do
    case $(readlink "$fd") in /memfd:iommud*) echo "$fd" && return ;; esac
  done
  return 1
}
sum_of() { sha256sum <"/proc/self/fd/$1"; }

# window_new WHAT AGENT DOMAIN LENGTH PAGE-SHIFT LEVELS QUOTA: it is $window, begins at $start and ends before $end.
window_new() {
  local what=$1 name=$2
  shift 2
  expect "$what" "$name" ok window-create "$@"
  start=0 length=0
  [[ $answer != ok* ]] || read -r _ window start length _ <<<"$answer"
  end=$(printf '0x%x' $((start + length)))
}

# default_window AGENT: it is $window, and ends before $end.
default_window() {
  local word
  ask "$1" window-query 0
  window=0 end=0
  for word in $answer; do
    [[ $word == *:0x0:* ]] || continue
    window=${word%%:*} end=$(cut -d: -f3 <<<"$word")
  done
}

answer_has() { grep -Eq -- "$1" <<<"$answer"; }
hex() { printf '0x%x' "$1"; }

# --- the parts ----------------------------------------------------------------------------------------------------------

windows_default() {
  default_window a
  check "there is the default window" test "$window" != 0
  default_end=$end
  expect "one more can be made" a "ok 1 1 " window-query 0
  expect "a mapping in it" a ok map 0 0x100000 0 0 $page64 3
  expect "DMA both ways" a "ok both" reach 0 0x100000 0 0
  expect "one at its end" a ok map 0 "$(hex $((end - page64)))" 0 $page64 $page64 3
  expect "DMA there too" a "ok both" reach 0 "$(hex $((end - 2048)))" 0 $((2 * page64 - 2048))
  expect "unmapped" a ok unmap 0 "$(hex $((end - page64)))" $page64
  expect "no DMA there any more" a "ok no-write" reach 0 "$(hex $((end - 2048)))" 0 $((2 * page64 - 2048))
  expect "memory that devices only read" a ok map 0 0x200000 0 $page64 $page64 1
  expect "is not written" a "ok no-write" reach 0 0x200000 0 $page64
}

windows_second() {
  window_new "a second window, with pages of 64K" a 0 $gib 16 0 0
  second=$window
  expect "a mapping at its beginning" a ok map 0 "$start" 1 0 $page64 3
  expect "one at its end" a ok map 0 "$(hex $((end - page64)))" 1 $page64 $page64 3
  expect "DMA at its first bytes" a "ok both" reach 0 "$start" 1 0
  expect "DMA at its last ones" a "ok both" reach 0 "$(hex $((end - 2048)))" 1 $((2 * page64 - 2048))
  expect "the service chooses a place in it" a "ok " map-with 0 0 1 $((2 * page64)) $page64 3 8 0 "$second"
  placed=0
  [[ $answer != ok* ]] || read -r _ placed _ <<<"$answer"
  check "which is inside" test $((placed - start)) -ge $page64 -a $((end - placed)) -ge $((2 * page64))
  expect "DMA there" a "ok both" reach 0 "$placed" 1 $((2 * page64))
  expect "it has three mappings" a "ok 2 0 " window-query 0
  check "which are counted" answer_has " $second:$start:0x40000000:16:3:$((3 * page64))"
  windows_listed
}

# What an operator sees of it, in both forms among the results.
windows_listed() {
  iommuctl window list "$domain_id" >"$LAB_OUT/windows.txt" || true
  iommuctl --json window list "$domain_id" | tee "$LAB_OUT/windows.json" | tr -d ' \n' >/run/windows.json || true
  check "an operator sees it" grep -Eq "^ *$second +$start +0x[0-9a-f]+ +1G +64K +[0-9]+ +3 .* no +live" "$LAB_OUT/windows.txt"
  check "and that no more can be made" grep -Eq "^can be created +0" "$LAB_OUT/windows.txt"
  check "the same in JSON" grep -q '"page_shift":16,"levels":[0-9]*,"mappings":3,' /run/windows.json
  check "with what can be made" grep -q '"can_create":0' /run/windows.json
}

windows_refused() {
  local inside
  inside=$(hex $((end - page64)))
  expect "a third one is refused" a "err 28 104 " window-create 0 $gib 16 0 0
  check "with the number" answer_has "has 2 windows.* no more than 2 "
  expect "a size that is no power of two" a "err 7 101 " window-create 0 $((3 * mib)) 16 0 0
  check "with the next powers" answer_has "the next ones are 2M and 4M"
  expect "size 0" a "err 7 101 " window-create 0 0 16 0 0
  expect "more than there can be" a "err 7 101 " window-create 0 0x1000000000000000 16 0 0
  expect "pages that the IOMMU has not" a "err 22 102 " window-create 0 $gib 13 0 0
  expect "too many levels" a "err 22 103 " window-create 0 $gib 16 9 0
  expect "a mapping across its end" a "err 34 100 " map 0 "$inside" 1 0 $((2 * page64)) 3
  expect "one that begins before it" a "err 34 100 " map 0 "$(hex $((start - page64)))" 1 0 $((2 * page64)) 3
  expect "one across the end of the default one" a "err 34 100 " map 0 "$(hex $((default_end - page64)))" 0 0 $((2 * page64)) 3
  expect "one in no window" a "err 34 100 " map 0 0x400000000000 0 0 $page64 3
  expect "one beside its pages" a "err 22 2 " map 0 "$(hex $((start + 4 * page64 + 4096)))" 1 0 $page64 3
  expect "a window that is not there" a "err 2 105 " window-remove 0 999999 0
  [ "$host_page" = 65536 ] ||
    expect "memory of smaller pages than the window's" a "err 22 106 " map 0 "$(hex $((start + 4 * page64)))" 0 0 $page64 3
  expect "nothing of that has left anything" a "ok 2 0 " window-query 0
  check "in the window" answer_has " $second:$start:0x40000000:16:3:"
}

windows_removed() {
  expect "with mappings it is not removed" a "err 16 62 " window-remove 0 "$second" 0
  expect "unless forced" a ok window-remove 0 "$second" 1
  expect "no DMA at its beginning any more" a "ok no-write" reach 0 "$start" 1 0
  expect "nor at its end" a "ok no-write" reach 0 "$(hex $((end - 2048)))" 1 $((2 * page64 - 2048))
  expect "the default one works as before" a "ok both" reach 0 0x100000 0 0
  expect "it is not removed twice" a "err 2 105 " window-remove 0 "$second" 1
  expect "a mapping there is refused" a "err 34 100 " map 0 "$start" 1 0 $page64 3
}

windows_quota() {
  window_new "a window with a quota of its own" a 0 $((256 * mib)) 16 0 $page64
  expect "what it allows" a ok map 0 "$start" 1 0 $page64 3
  expect "more is refused" a "err 122 60 " map 0 "$(hex $((start + page64)))" 1 $page64 $page64 3
  expect "unmapped" a ok unmap 0 "$start" $page64
  expect "empty it is removed without force" a ok window-remove 0 "$window" 0
  expect "the tenant's quota of windows" b "err 122 60 " window-create 0 $gib 16 0 0
}

windows_huge() {
  [ "$huge_page" != 0 ] || return 0
  window_new "a window with pages of 2M" a 0 $((8 * gib)) 21 0 0
  expect "memory of smaller pages is refused there" a "err 22 106 " map 0 "$start" 0 0 $huge_page 3
  expect "a part of a page is" a "err 22 2 " map 0 "$start" 1 0 $page64 3
  expect "a mapping at its beginning" a ok map 0 "$start" 1 0 $huge_page 3
  expect "one at its end" a ok map 0 "$(hex $((end - huge_page)))" 1 $huge_page $huge_page 3
  expect "DMA at its first bytes" a "ok both" reach 0 "$start" 1 0
  expect "DMA at its last ones" a "ok both" reach 0 "$(hex $((end - 2048)))" 1 $((2 * huge_page - 2048))
  expect "removed by force" a ok window-remove 0 "$window" 1
  expect "no DMA at its last bytes" a "ok no-write" reach 0 "$(hex $((end - 2048)))" 1 $((2 * huge_page - 2048))
}

windows_reset() {
  default_window a
  expect "the default window is removed" a ok window-remove 0 "$window" 1
  expect "which stops its DMA" a "ok no-write" reach 0 0x100000 0 0
  expect "none is left" a "ok 0 2 " window-query 0
  window_new "a window without it" a 0 $gib 16 0 0
  expect "a mapping in that" a ok map 0 "$start" 1 0 $page64 3
  expect "DMA" a "ok both" reach 0 "$start" 1 0
  expect "reset" a ok window-reset 0
  expect "which stops that" a "ok no-write" reach 0 "$start" 1 0
  default_window a
  check "the default window is back where it was" test "$end" = "$default_end"
  expect "and alone" a "ok 1 1 " window-query 0
  expect "a mapping in it" a ok map 0 0x100000 0 0 $page64 3
  expect "DMA" a "ok both" reach 0 0x100000 0 0
}

# Of one domain's windows another one has nothing.
windows_of_two() {
  expect "the same address in both" b ok map 0 0x100000 0 0 $page64 3
  expect "his device reaches his memory" b "ok both" reach 0 0x100000 0 0
  expect "hers has a pattern" a ok fill 0 170
  expect "his device writes" b ok dma 0 0x100000 to
  expect "hers is as it was" a "ok 170" peek 0
  window_new "a window of hers" a 0 $gib 16 0 0
  expect "mapped" a ok map 0 "$start" 1 0 $page64 3
  expect "is none for his device" b "ok no-write" reach 0 "$start" 0 0
  expect "the device that she has is refused to him" b "err 16" attach 0 "${edus[0]}"
}

# The windows of windows_of_two are in place. The next broker knows them from the ledger and from the holders.
windows_broker_killed() {
  expect "DMA in her window" a "ok both" reach 0 "$start" 1 0
  expect "what she has" a ok window-query 0
  local before=$answer
  kill -9 "$broker"
  wait "$broker" 2>/dev/null || true
  expect "without the broker DMA goes on" a "ok both" reach 0 "$start" 1 0
  broker_start windows
  insist "a new broker takes over; the windows are as they were" a "$before" window-query 0
  insist "the other client's is" b "ok 1 " window-query 0
  check "both holders are" holders_are 2
  check "ledger and holders agree" iommuctl ledger check
  expect "DMA in the second window" a "ok both" reach 0 "$start" 1 0
  expect "DMA in the default one" b "ok both" reach 0 0x100000 0 0
  expect "a mapping goes" a ok unmap 0 "$start" $page64
  expect "which stops its DMA" a "ok no-write" reach 0 "$start" 1 0
  expect "the window goes" a ok window-remove 0 "$window" 0
  window_new "another one is made" a 0 $((512 * mib)) 16 0 0
  expect "a mapping in it" a ok map 0 "$start" 1 0 $page64 3
  expect "DMA" a "ok both" reach 0 "$start" 1 0
}

# Her second window has a mapping, her default one too; the client dies during a transfer.
windows_client_killed() {
  expect "memory has a pattern" a ok fill 0 17
  exec {kept}<"$(memfd_of "$(agent_pid a)")"
  local before
  before=$(sum_of "$kept")
  expect "a transfer begins" a ok start 0 0x100000 from
  agent_kill a
  check "the killed client's holder ends" eventually "$patience" holders_are 1
  check "and its revoker" eventually "$patience" revokers_are 1
  client c $alice "${edus[0]}" || return 0
  expect "of the tenant's sessions the new one is left" c "ok 1 " used $sessions
  expect "and no mapping" c "ok 0 " used $mappings
  expect "the device has the default window alone" c "ok 1 1 " window-query 0
  expect "it aims at the old address" c "ok no-write" reach 0 0x100000 0 0
  expect "and at that in the window which is gone" c "ok no-write" reach 0 "$start" 0 0
  check "nothing landed in the dead client's memory" test "$(sum_of "$kept")" = "$before"
  exec {kept}<&-
  expect "a mapping of its own" c ok map 0 0x100000 0 0 $page64 3
  expect "DMA" c "ok both" reach 0 0x100000 0 0
}

# The holder dies while the client lives, and has the device open: what is left to it is what the revoker leaves.
windows_holder_killed() {
  window_new "a second window" c 0 $gib 16 0 0
  expect "a mapping in it" c ok map 0 "$start" 1 0 $page64 3
  expect "DMA" c "ok both" reach 0 "$start" 1 0
  kill -9 "$(holder_of "$(agent_pid c)")" || fail "there is no holder of c"
  agent d $alice
  expect "somebody else of the tenant connects" d ok connect "$IOMMUD_DIR"
  insist "the session of the killed holder ends" d "ok 1 " used $sessions
  check "the revoker ended before it" eventually "$patience" revokers_are 1
  expect "the device is still the client's, and writes no more into the second window" c "ok no-write" reach 0 "$start" 1 0
  expect "nor into the default one" c "ok no-write" reach 0 0x100000 0 0
  expect "no memory is charged for it" d "ok 0 " used $locked_bytes
  expect "no window" d "ok 0 " used $windows
  expect "a domain" d ok domain
  expect "the device is an orphan meanwhile" d "err 16 65 " attach 0 "${edus[0]}"
  expect "the other client goes on" b "ok both" reach 0 0x100000 0 0
  agent_end c
  insist "when it is closed it is free, and somebody else's" d ok attach 0 "${edus[0]}"
  agent_end d
}

revokers_are() { [ "$(grep -lsx iommud-revoker /proc/[0-9]*/comm | wc -l)" = "$1" ]; }

section_windows() {
  spapr_service_start windows || return 0
  ! client a $alice "${edus[0]}" || windows_with_clients
  service_stop
}

# From windows_of_two on each is where the one before has left it.
windows_with_clients() {
  local part alices=$domain_id
  client b $bob "${edus[1]}" || return 0
  domain_id=$alices
  for part in default second refused removed quota huge reset of_two broker_killed client_killed holder_killed; do
    "windows_$part"
  done
  agent_end b
  check "no holder is left" eventually "$patience" holders_are 0
  check "no revoker is" eventually "$patience" revokers_are 0
}
