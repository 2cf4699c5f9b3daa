#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run.sh LANE | run.sh --shell
#
# Boots a virtual machine with an IOMMU and two edu devices, runs tests/vm/lanes/LANE.sh in it under the real
# systemd, and exits with the lane's status. Needs no KVM. 77 means that the lane cannot run here.
#
#   BUILD=dir       cache, logs and results go to BUILD/vm (default: build)
#   KERNEL=lab      the newer kernel of the shared lab instead of Debian's own (default: debian)
#   TIMEOUT=900     seconds until the machine is stopped and the lane has failed
#   STAGE=dir       an install tree to lay over the guest's root instead of a fresh `make install`
#   MEMORY=3072     MiB
#   IOMMU=device    another QEMU IOMMU device with its options
set -euo pipefail
umask 022

usage="usage: tests/vm/run.sh LANE | --shell"
lane=${1:?$usage}
[ "$lane" != --shell ] || lane=shell

here=$(cd "$(dirname "$0")" && pwd -P)
repo=$(cd "$here/../.." && pwd -P)
kernel=${KERNEL:-debian}
timeout=${TIMEOUT:-900}
memory=${MEMORY:-3072}
# With the default of 39 bits the highest IOVA would be 512 GiB, less than what real machines offer.
iommu=${IOMMU:-intel-iommu,intremap=on,caching-mode=on,aw-bits=48}

cd "$repo"
mkdir -p "${BUILD:-build}/vm"
build=$(cd "${BUILD:-build}" && pwd -P)
vm=$build/vm

tag=$lane
[ "$kernel" = debian ] || tag=$lane@$kernel
out=$vm/out/$tag
console=$vm/$tag.console.log
journal=$vm/$tag.journal.log
log=$vm/$tag.log

say() { echo "vm: $*" >&2; }

die() {
  say "$*"
  exit 1
}

skip() {
  echo "SKIPPED: $*"
  exit 77
}

# --- preparation: cached in $vm, done by one run.sh at a time ------------------------------------------------

require_host() {
  local tool
  for tool in qemu-system-x86_64 busybox cpio depmod modprobe cc flock; do
    command -v "$tool" >/dev/null || skip "no $tool on the host; tests/vm/deps.sh installs it"
  done
  for tool in /lib/systemd/systemd /lib/systemd/systemd-udevd; do
    [ -x "$tool" ] || skip "no $tool on the host; tests/vm/deps.sh installs it"
  done
  # Both reach the guest on the kernel command line, which words are split on.
  [[ $repo$build != *[[:space:],]* ]] || die "the paths of checkout and build folder must not have blanks or commas"
}

# What a lane may need of the 400 MB of modules in Debian's package. Fewer modules make a faster boot, because
# udev loads drivers for whatever it finds.
debian_modules=(
  kernel/{lib,virt}
  kernel/drivers/{block,char,pci,vfio,vhost,virtio}
  kernel/fs/{9p,autofs,configfs,fscache,fuse,netfs,overlayfs}
  kernel/net/9p
)

debian_package() {
  apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*-amd64\)$/\1/p' | head -n 1
}

download_debian_kernel() { # DIRECTORY
  local package
  package=$(debian_package)
  [ -n "$package" ] || return 1
  (cd "$1" && apt-get download -q -o APT::Sandbox::User=root "$package")
}

# Debian's kernel, taken out of its package and never installed. The folder becomes a layer of the guest's root,
# where modprobe finds the modules.
prepare_debian_kernel() {
  local dir=$vm/kernel-debian new version pattern
  [ ! -e "$dir/vmlinuz" ] || return 0
  say "fetching Debian's kernel"
  new=$dir.new
  rm -rf "$dir" "$new"
  mkdir -p "$new/package" "$new/layer/usr"
  if ! download_debian_kernel "$new"; then
    # No package lists yet, or they name a version that is gone.
    apt-get update -q || true
    download_debian_kernel "$new" || skip "cannot fetch linux-image-amd64"
  fi
  pattern=("${debian_modules[@]/#/./lib/modules/*/}")
  dpkg-deb --fsys-tarfile "$new"/linux-image-*.deb |
    tar -x -C "$new/package" --wildcards './boot/vmlinuz-*' './lib/modules/*/modules.*' "${pattern[@]}"
  version=$(basename "$new"/package/lib/modules/*)
  mv "$new/package/boot/vmlinuz-$version" "$new/kernel"
  mv "$new/package/lib" "$new/layer/usr/lib"
  depmod -b "$new/layer/usr" "$version"
  echo "$version" >"$new/version"
  rm -rf "$new/package" "$new"/*.deb
  mv "$new/kernel" "$new/vmlinuz"
  mv "$new" "$dir"
}

# A kernel with everything built in, handed around beside the checkout; not in every place where this runs.
prepare_lab_kernel() {
  local source=$repo/../shared/lab/kernels/x86_64 dir=$vm/kernel-lab
  [ -e "$source/bzImage" ] || skip "the lab kernel is not here"
  (cd "$source" && sha256sum --status -c bzImage.sha256) || die "the lab kernel does not fit its checksum"
  mkdir -p "$dir/layer"
  cmp -s "$source/bzImage" "$dir/vmlinuz" || cp -f "$source/bzImage" "$dir/vmlinuz"
}

# The files that the initramfs needs to mount the root, in loading order. Built-in ones give no file.
modules_for_boot() {
  local version
  [ -e "$kernel_dir/version" ] || return 0
  version=$(cat "$kernel_dir/version")
  modprobe -d "$kernel_dir/layer/usr" -S "$version" --show-depends -a \
    virtio_pci 9p 9pnet_virtio overlay virtio_console | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++'
}

prepare_initramfs() {
  local inputs key root module applet
  inputs=("$0" "$here/initramfs/init" "$here/initramfs/masked-units" "$kernel_dir/vmlinuz" "$(command -v busybox)")
  key=$(cat "${inputs[@]}" | sha256sum | cut -c 1-16)
  initramfs=$vm/initramfs-$kernel-$key.gz
  [ ! -e "$initramfs" ] || return 0
  rm -f "$vm/initramfs-$kernel-"*
  root=$vm/initramfs.new
  rm -rf "$root"
  mkdir -p "$root/bin" "$root/modules"
  cp "$(command -v busybox)" "$root/bin/busybox"
  for applet in sh cat cp echo insmod ln mkdir mount poweroff rm switch_root tr; do
    ln -s busybox "$root/bin/$applet"
  done
  cp "$here/initramfs/init" "$here/initramfs/masked-units" "$root/"
  : >"$root/modules.order"
  for module in $(modules_for_boot); do
    cp "$module" "$root/modules/"
    basename "$module" >>"$root/modules.order"
  done
  (cd "$root" && find . | cpio -o -H newc -R 0:0 --quiet | gzip -1) >"$initramfs.new"
  mv "$initramfs.new" "$initramfs"
  rm -rf "$root"
}

prepare_probe() {
  [ "$vm/probe_edu" -nt "$here/probe_edu.c" ] ||
    cc -std=gnu17 -O2 -Wall -Wextra -Wshadow -Werror -static -o "$vm/probe_edu" "$here/probe_edu.c"
}

# The tree that a package would install, as the layer above the host's root. Without an install target the lane
# runs on the bare host root.
prepare_stage() {
  if [ -n "${STAGE:-}" ]; then
    stage=$(cd "$STAGE" && pwd -P)
  else
    # One per lane: another lane's machine may be running on its own.
    stage=$vm/stage/$tag
    rm -rf "$stage"
    mkdir -p "$stage"
    # Only a missing target may be passed over in silence; any other trouble must show.
    if [[ $(LC_ALL=C make -n install DESTDIR="$stage" PREFIX=/usr 2>&1 || true) != *"No rule to make target 'install'"* ]]; then
      make install DESTDIR="$stage" PREFIX=/usr >"$vm/stage.log" 2>&1 ||
        die "make install failed: $(tail -n 20 "$vm/stage.log")"
    fi
  fi
  # On the host's root these are links into /usr; a folder in a layer above would hide everything behind them.
  local name
  for name in bin sbin lib lib64; do
    [ ! -e "$stage/$name" ] || die "the install tree has /$name; install below /usr instead"
  done
}

# --- the machine -------------------------------------------------------------------------------------------------

share() { # TAG PATH [OPTION]
  # multidevs=remap: the host's root may span file systems, whose inode numbers collide.
  machine+=(-fsdev "local,id=$1,path=$2,security_model=none,multidevs=remap${3:+,$3}"
    -device "virtio-9p-pci,fsdev=$1,mount_tag=$1")
}

describe_machine() {
  local command_line=(
    console=ttyS0 panic=-1 oops=panic intel_iommu=on mitigations=off
    systemd.crash_reboot=1 systemd.show_status=error systemd.log_color=0 systemd.condition-needs-update=1
    lab.lane="$lane" lab.kernel="$kernel" lab.repo="$repo" lab.build="$build"
  )
  # shellcheck disable=SC2054 # the commas are QEMU's
  machine=(
    qemu-system-x86_64 -no-user-config -nodefaults
    -accel tcg,thread=multi -machine q35,kernel-irqchip=split -cpu max,la57=off -smp 2 -m "$memory"
    -display none -monitor none -no-reboot
    -kernel "$kernel_dir/vmlinuz" -initrd "$initramfs" -append "${command_line[*]}"
    # The IOMMU must come before the devices that it is to translate for.
    -device "$iommu"
    # Fixed slots: lanes know the devices as 0000:00:05.0 and 0000:00:06.0. The wide mask lets them reach any
    # IOVA; by default edu has 28 bits.
    -device edu,addr=05.0,dma_mask=0xffffffffffffffff
    -device edu,addr=06.0,dma_mask=0xffffffffffffffff
    -chardev "file,id=console,path=$console" -serial chardev:console
    -device virtio-serial-pci
    -chardev "$1,id=lane" -device virtconsole,chardev=lane
    -chardev "file,id=journal,path=$journal" -device virtconsole,chardev=journal
  )
  share host / readonly=on
  share stage "$stage" readonly=on
  share kernel "$kernel_dir/layer" readonly=on
  share repo "$repo" readonly=on
  share build "$build" readonly=on
  share out "$out"
}

# qemu and tee are ours to stop when somebody stops us.
qemu_pid=
stop() { [ -z "$qemu_pid" ] || kill "$qemu_pid" 2>/dev/null || true; }

run_machine() { # sets $status to what timeout(1) or qemu gave
  local fifo=$vm/$tag.fifo tee_pid
  rm -f "$fifo"
  mkfifo "$fifo"
  tee "$log" <"$fifo" &
  tee_pid=$!
  describe_machine "file,path=$fifo"
  trap stop EXIT
  trap 'exit 130' INT TERM HUP
  timeout --kill-after=10 "$timeout" "${machine[@]}" </dev/null >>"$console" 2>&1 &
  qemu_pid=$!
  status=0
  wait "$qemu_pid" || status=$?
  qemu_pid=
  wait "$tee_pid" || true
  rm -f "$fifo"
}

# --- the verdict ---------------------------------------------------------------------------------------------------

report_failure() {
  say "FAILED $tag: $*"
  for file in "$console" "$journal"; do
    say "the end of $file:"
    tail -n 40 "$file" >&2 || true
    echo >&2 # an immediate power-off may have cut the last line
  done
  exit 1
}

judge() {
  local how='' code=''
  [ ! -e "$out/.exit" ] || read -r how code <"$out/.exit"
  case $status in
    0) ;;
    124 | 137) report_failure "stopped after the time limit of $timeout s" ;;
    *) report_failure "qemu ended with status $status" ;;
  esac
  ! grep -q 'Kernel panic' "$console" || report_failure "the guest's kernel panicked"
  [ -n "$how" ] || report_failure "the guest ended without running the lane to its end"
  [ "$how" = exited ] || report_failure "the lane was ended by signal $code"
  [ "$code" != 77 ] || exit 77
  [ "$code" = 0 ] || report_failure "the lane exited with status $code"
}

require_host
[ "$lane" = shell ] || [ -f "$here/lanes/$lane.sh" ] || die "no lane tests/vm/lanes/$lane.sh"
rm -rf "$out" "$console" "$journal" "$log"
mkdir -p "$out"

exec 9>"$vm/.lock"
flock 9
case $kernel in
  debian | lab) "prepare_${kernel}_kernel" ;;
  *) die "KERNEL is debian or lab" ;;
esac
kernel_dir=$vm/kernel-$kernel
prepare_initramfs
prepare_probe
prepare_stage
exec 9>&-

if [ "$lane" = shell ]; then
  describe_machine stdio,signal=off
  exec "${machine[@]}"
fi
run_machine
judge
