#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# sysroot.sh ARCH DIR [PACKAGE...]: makes DIR a tree of this Debian release's packages for another architecture: those named and
# everything that they need. Without names: the headers and libraries that the build and the tests need. Nothing is
# installed on the host.
set -euo pipefail
umask 022
here=$(cd "$(dirname "$0")" && pwd -P)
# shellcheck source=packaging/cross/private-apt.sh
. "$here/private-apt.sh"

arch=$1 root=$2
shift 2
packages=("$@")
[ $# -gt 0 ] || mapfile -t packages < <("$here/../install-deps.sh" --list build check | grep -e '-dev$')

new=$root.new
trap 'rm -rf "$new" "$new.apt"' EXIT
rm -rf "$new"
mkdir -p "$new"
private_apt_open "$new.apt" "$arch" "$(. /etc/os-release && echo "$VERSION_CODENAME")"
private_apt_closure "$new.apt" "${packages[@]}"
private_apt_unpack "$new.apt" "$new"
rm -rf "$root"
mv "$new" "$root"
