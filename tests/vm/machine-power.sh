# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by run.sh: POWER machines, whose IOMMU has windows. The guest is a part of Debian's own userland for ppc64el, with the
# programs that `make ARCH=ppc64el` built, all in memory: no systemd, no root over 9p. Without KVM each would cost more
# than what a lane does.
#
# SECTIONS="name ..." runs only these sections of the lane. A lane's name is ppc64le-MACHINE[-PAGES]: pseries is a guest of a hypervisor, which owns the tables of the IOMMU; powernv is
# the bare machine, which has the tables itself.

arch=ppc64el
# A stable release, newer than the host's: the kernel of Debian 12 does not bind vfio-pci to anything on POWER.
kernel_release=trixie
memory=${MEMORY:-2048}
build=$native_build-$arch
tag=$lane
case $like in
  *-4k) kernel=4k ;;
  *) kernel=64k ;;
esac

machine_require() {
  require_tools qemu-system-ppc64 powerpc64le-linux-gnu-gcc cpio depmod modprobe xz flock
  mkdir -p "$build"
}

machine_prepare() {
  kernel_dir=$vm/kernel-$arch-$kernel
  guest_root=$vm/root-$arch
  prepare_power_kernel
  prepare_guest_root
  prepare_base
  make_programs ARCH=$arch CC="${CC:-gcc}" SANITIZE= COVERAGE= all vm-programs
  prepare_initramfs
}

private_apt() { # FUNCTION ARGUMENT...
  # shellcheck source=packaging/cross/private-apt.sh
  (. "$repo/packaging/cross/private-apt.sh" && "private_apt_$1" "${@:2}")
}

# What a lane may need of the modules in Debian's package.
power_modules=(
  'kernel/drivers/vfio/*'
  'kernel/fs/9p/*' 'kernel/fs/netfs/*' 'kernel/fs/overlayfs/*'
  'kernel/net/9p/*'
)

# The newest kernel of the flavour that can be had. A mirror's lists can be ahead of its files.
fetch_power_kernel() { # DIRECTORY
  local dir=$1 suffix='' package
  [ "$kernel" = 4k ] || suffix=-$kernel
  private_apt open "$dir" $arch $kernel_release || return
  for package in $(private_apt query "$dir" pkgnames linux-image- | grep -Ex "linux-image-[0-9][^-]*-powerpc64le$suffix" | sort -rV); do
    ! private_apt get "$dir" "$package" 2>>"$dir/errors" || return 0
  done
  cat "$dir/errors" >&2
  return 1
}

prepare_power_kernel() {
  local new=$kernel_dir.new version pattern
  [ ! -e "$kernel_dir/vmlinux" ] || return 0
  say "fetching the kernel of Debian $kernel_release for $arch, $kernel pages"
  rm -rf "$kernel_dir" "$new"
  mkdir -p "$new/package"
  fetch_power_kernel "$new/apt" || skip "cannot fetch the kernel of Debian $kernel_release for $arch"
  pattern=("${power_modules[@]/#/./usr/lib/modules/*/}")
  dpkg-deb --fsys-tarfile "$new"/apt/debs/linux-image-*.deb |
    tar -x -C "$new/package" --wildcards './boot/vmlinu[xz]-*' './usr/lib/modules/*/modules.*' "${pattern[@]}"
  version=$(basename "$new"/package/usr/lib/modules/*)
  find "$new/package/usr/lib/modules" -name '*.ko.xz' -exec xz -d {} +
  depmod -b "$new/package/usr" "$version"
  echo "$version" >"$new/version"
  mv "$new/package/usr/lib/modules/$version" "$new/modules"
  mv "$new/package/boot"/vmlinu[xz]-"$version" "$new/vmlinux"
  rm -rf "$new/package" "$new/apt"
  mv "$new" "$kernel_dir"
}

# Debian's own userland: what the programs are linked with, and what a lane's words need.
guest_packages=(bash dash mount libc-bin coreutils grep sed mawk jq util-linux busybox-static libcmocka0)

prepare_guest_root() {
  local packages key
  mapfile -t packages < <("$repo/packaging/install-deps.sh" --list run | grep -Evx 'systemd|udev')
  packages+=("${guest_packages[@]}")
  key=$(cat "$here/machine-power.sh" "$repo"/packaging/cross/*.sh <(echo "${packages[@]}") | sha256sum)
  [ "$(cat "$guest_root.key" 2>/dev/null)" != "$key" ] || return 0
  say "fetching Debian's userland for $arch"
  "$repo/packaging/cross/sysroot.sh" $arch "$guest_root" "${packages[@]}" || skip "cannot fetch Debian's packages for $arch"
  # What the packages' own scripts would have made.
  ln -sf mawk "$guest_root/usr/bin/awk"
  [ -e "$guest_root/usr/bin/sh" ] || ln -s dash "$guest_root/usr/bin/sh"
  printf '%s\n' root:x:0:0::/root:/bin/bash nobody:x:65534:65534::/:/bin/false >"$guest_root/etc/passwd"
  printf '%s\n' root:x:0: nogroup:x:65534: >"$guest_root/etc/group"
  mkdir -p "$guest_root"/{dev,proc,sys,run,tmp,root,var/tmp}
  chmod 1777 "$guest_root/tmp"
  # What nothing here needs, and would only have to be unpacked each time.
  rm -rf "$guest_root/usr/share" "$guest_root"/usr/lib/*/{gconv,libgrpc_unsecure.so.*,libgrpc_plugin_support.so.*,libprotoc.so.*}
  echo "$key" >"$guest_root.key"
}

pack() { # DIRECTORY ARCHIVE [FIND-ARGUMENT...]
  local dir=$1 archive=$2
  shift 2
  # Not compressed: QEMU loads it faster than the guest would unpack it.
  (cd "$dir" && find . "$@" | cpio -o -H newc -R 0:0 --quiet) >"$archive.new"
  mv "$archive.new" "$archive"
}

# Userland and modules, as an archive.
prepare_base() {
  local key layer version
  version=$(cat "$kernel_dir/version")
  key=$(cat "$here/machine-power.sh" "$here/guest/init-power" "$kernel_dir/version" "$guest_root.key" | sha256sum | cut -c 1-16)
  base=$vm/base-$arch-$kernel-$key
  [ ! -e "$base" ] || return 0
  rm -f "$vm/base-$arch-$kernel-"*
  layer=$vm/base.new
  rm -rf "$layer"
  mkdir -p "$layer/usr/lib/modules"
  cp -r "$kernel_dir/modules" "$layer/usr/lib/modules/$version"
  cp "$here/guest/init-power" "$layer/init"
  pack "$guest_root" "$base.1"
  pack "$layer" "$base.2"
  cat "$base.1" "$base.2" >"$base"
  rm -rf "$layer" "$base".[12]
}

# What was built, at the path that it has on the host. The kernel takes one archive after the other.
prepare_initramfs() {
  local what='./iommud ./iommud-holder ./iommud-bind ./iommuctl ./libiommud.so* ./tests/client_agent ./tests/contract ./tests/reference ./examples ./vm'
  [[ ${SECTIONS:-} != *suite* ]] || what+=' ./tests'
  initramfs=$vm/$tag.initramfs
  rm -rf "$initramfs.dir"
  mkdir -p "$initramfs.dir/$build"
  # shellcheck disable=SC2086 # patterns
  (cd "$build" && cp -a --parents $what "$initramfs.dir/$build/")
  pack "$initramfs.dir" "$initramfs.programs"
  cat "$base" "$initramfs.programs" >"$initramfs"
  rm -rf "$initramfs.dir" "$initramfs.programs"
}

# --- the machine -----------------------------------------------------------------------------------------------------

machine_virtio() { # DEVICE
  machine+=(-device "$1$(virtio_place)")
  n_virtio=$((n_virtio + 1))
}

# Not into the groups of the edu devices. The bare machine has one slot behind each of its host bridges: there the virtio
# devices are functions of one.
virtio_place() {
  case $like in
    ppc64le-pseries*) echo ",bus=pci.0" ;;
    *) echo ",bus=pcie.2,addr=0.$n_virtio$([ "$n_virtio" -gt 0 ] || echo ",multifunction=on")" ;;
  esac
}

# Two host bridges with an edu each: on POWER a group is what is behind a bridge, and each group has its windows.
describe_platform() {
  local mask=dma_mask=0xffffffffffffffff
  # shellcheck disable=SC2054 # the commas are QEMU's
  case $like in
    ppc64le-pseries*)
      # Without the firmware, which would take longer than the kernel; nobody tries speculation on us.
      machine+=(-machine "pseries,x-vof=on,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off" -cpu power9
        -device spapr-pci-host-bridge,index=1,id=bridge1 -device spapr-pci-host-bridge,index=2,id=bridge2
        -device "edu,bus=bridge1.0,addr=1,$mask" -device "edu,bus=bridge2.0,addr=1,$mask")
      edus=0001:00:01.0,0002:00:01.0
      ;;
    ppc64le-powernv*)
      machine+=(-machine powernv9 -net none
        -device "edu,bus=pcie.0,addr=0,$mask" -device "edu,bus=pcie.1,addr=0,$mask")
      edus=0000:01:00.0,0001:01:00.0
      ;;
    *) die "there is no machine for $like: ppc64le-pseries-4k, ppc64le-pseries-64k, ppc64le-powernv" ;;
  esac
}

machine_describe() { # CHARDEV for the lane's output
  local edus command_line n_virtio=0
  machine=(qemu-system-ppc64 -no-user-config)
  describe_platform
  command_line=(
    console=hvc0 panic=-1 oops=panic mitigations=off
    lab.lane="$lane" lab.kernel="$kernel" lab.repo="$repo" lab.build="$build" lab.edus="$edus" ${SECTIONS:+lab.sections=${SECTIONS// /,}}
    "${test_variables[@]}"
  )
  [[ $like != ppc64le-pseries* ]] || machine+=(-nodefaults)
  # One processor: two, on a host that has other things to do, spend their time waiting for each other.
  # shellcheck disable=SC2054 # the commas are QEMU's
  machine+=(
    -accel tcg -smp 1 -m "$memory"
    -display none -monitor none -no-reboot
    -kernel "$kernel_dir/vmlinux" -initrd "$initramfs" -append "${command_line[*]}"
    -chardev "file,id=console,path=$console" -serial chardev:console
    -chardev "$1,id=lane"
  )
  machine_virtio virtio-serial-pci
  machine+=(-device virtserialport,chardev=lane,name=lab.lane)
  share repo "$repo" readonly=on
  share out "$out"
}
