#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# deps.sh: installs what the lab needs on the host and does not find there. Does nothing, and needs no
# privilege, when everything is present.
#
# The guest boots the host's own userland, so systemd, udev and kmod are needed on the host's disk even where
# they do not run (a container).
set -euo pipefail

packages=(
  qemu-system-x86 # the machine, its IOMMU and its edu devices
  qemu-system-ppc # the POWER machines
  gcc-powerpc64le-linux-gnu # what runs in them
  xz-utils        # their kernel modules
  busybox-static  # the initramfs
  cpio            # packs it
  kmod            # depmod here, modprobe in the guest
  systemd         # pid 1 of the guest, journald, sysusers, tmpfiles
  udev            # applies the rules for /dev/vfio in the guest
  gcc libc6-dev   # the DMA probe
  make            # stages the install tree
  jq              # lanes read iommuctl --json
)

missing=()
for package in "${packages[@]}"; do
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || {
    echo "deps.sh: run as root: apt-get install ${missing[*]}" >&2
    exit 1
  }
  as_root=(sudo)
fi

install() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends "${missing[@]}"
}

echo "deps.sh: installing ${missing[*]}"
# The package lists of a fresh machine are absent or name files that are gone: then, and only then, renew them.
install || { "${as_root[@]}" apt-get update -q && install; }
