#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# install-deps.sh SET...: installs what is missing of the named sets, and does nothing, silently and without any privilege,
# when nothing is. Sets:
#
#   build   compile everything (also what `make run` needs)
#   check   the tests, sanitizers and lints
#   vm      the machines of tests/vm
#   cross   the compiler for `make ARCH=ppc64el`; the libraries come with that (packaging/cross/sysroot.sh)
#   run     only run what was built elsewhere
#
# Without an argument: build check. With --list first: only says which packages the sets are, one a line.
set -euo pipefail

packages_build=(
        gcc libc6-dev make pkg-config binutils
        libgrpc-dev libprotobuf-c-dev protobuf-c-compiler
        libsystemd-dev libsqlite3-dev libseccomp-dev libinih-dev
        libbsd-dev uthash-dev
        libsmartcols-dev libjson-c-dev
)
packages_check=(
        libcmocka-dev
        clang g++               # the other compiler; headers as C++
        protobuf-compiler libprotobuf-dev       # the dispatch table is compared with what protoc says
        sqlite3                 # the ledger as others read it
        mandoc shellcheck
        spin                    # the formal models of tests/model
        systemd                 # systemd-analyze verify
)
packages_vm=(qemu-system-x86 busybox-static cpio kmod systemd udev)
packages_cross=(gcc-powerpc64le-linux-gnu)
packages_run=(
        libgrpc29 libprotobuf-c1 libsystemd0 libsqlite3-0 libseccomp2 libinih1 libbsd0 libsmartcols1 libjson-c5
        kmod systemd udev
)

die() {
        echo "install-deps.sh: $*" >&2
        exit 1
}

list=
if [ "${1:-}" = --list ]; then
        list=yes
        shift
fi
[ $# -gt 0 ] || set -- build check
wanted=()
for set in "$@"; do
        case $set in
        build) wanted+=("${packages_build[@]}") ;;
        check) wanted+=("${packages_check[@]}") ;;
        vm) wanted+=("${packages_vm[@]}") ;;
        cross) wanted+=("${packages_cross[@]}") ;;
        run) wanted+=("${packages_run[@]}") ;;
        *) die "there is no set '$set': build, check, vm, cross, run" ;;
        esac
done

if [ -n "$list" ]; then
        printf '%s\n' "${wanted[@]}"
        exit 0
fi

command -v dpkg-query > /dev/null || die "this knows Debian's packages only; install by hand what is the same as: ${wanted[*]}"

# One query for all. A package that dpkg has never heard of is told on its stderr and is missing too.
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2> /dev/null || true)
missing=()
for package in "${wanted[@]}"; do
        grep -qx "installed $package" <<< "$installed" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
        command -v sudo > /dev/null || die "as root: apt-get install ${missing[*]}"
        as_root=(sudo)
fi

# A dpkg that somebody else is running right now is waited for.
apt() {
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@"
}

echo "install-deps.sh: installing ${missing[*]}"
for try in 1 2 3; do
        apt update && break
        [ "$try" -lt 3 ] || die "the package lists cannot be fetched"
        sleep $((try * 5))
done
apt install -y --no-install-recommends "${missing[@]}"
