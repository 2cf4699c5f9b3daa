# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by run.sh: a PC with an emulated Intel IOMMU (or another one, IOMMU=) whose guest is the host's own userland under the
# real systemd, so that what runs in it is what was installed and built here.

# With the default of 39 bits the highest IOVA would be 512 GiB, less than what real machines offer.
iommu=${IOMMU:-intel-iommu,intremap=on,caching-mode=on,aw-bits=48}
kernel=${KERNEL:-debian}
memory=${MEMORY:-3072}
build=$native_build
tag=$lane
[ "$kernel" = debian ] || tag=$lane@$kernel

machine_require() {
  local tool
  require_tools qemu-system-x86_64 busybox cpio depmod modprobe cc flock
  for tool in /lib/systemd/systemd /lib/systemd/systemd-udevd; do
    [ -x "$tool" ] || skip "no $tool on the host; tests/vm/deps.sh installs it"
  done
  case $kernel in debian | lab) ;; *) die "KERNEL is debian or lab" ;; esac
}

machine_prepare() {
  "prepare_${kernel}_kernel"
  kernel_dir=$vm/kernel-$kernel
  prepare_initramfs
  make_programs all vm-programs
  prepare_stage
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
  inputs=("$here/machine-x86.sh" "$here"/initramfs/{init,masked-units} "$kernel_dir/vmlinuz" "$(command -v busybox)")
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
  cp "$here"/initramfs/{init,masked-units} "$root/"
  : >"$root/modules.order"
  for module in $(modules_for_boot); do
    cp "$module" "$root/modules/"
    basename "$module" >>"$root/modules.order"
  done
  (cd "$root" && find . | cpio -o -H newc -R 0:0 --quiet | gzip -1) >"$initramfs.new"
  mv "$initramfs.new" "$initramfs"
  rm -rf "$root"
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
    if [[ $(LC_ALL=C make -n install BUILD="$build" DESTDIR="$stage" PREFIX=/usr 2>&1 || true) != *"No rule to make target 'install'"* ]]; then
      make install BUILD="$build" DESTDIR="$stage" PREFIX=/usr >"$vm/stage.log" 2>&1 ||
        die "make install failed: $(tail -n 20 "$vm/stage.log")"
    fi
  fi
  # On the host's root these are links into /usr; a folder in a layer above would hide everything behind them.
  local name
  for name in bin sbin lib lib64; do
    [ ! -e "$stage/$name" ] || die "the install tree has /$name; install below /usr instead"
  done
}

machine_virtio() {
  machine+=(-device "$1")
}

machine_describe() { # CHARDEV for the lane's output
  local command_line=(
    # On a busy host the first interrupts come too late for the kernel's check of its timer, which would be a panic.
    no_timer_check
    console=ttyS0 panic=-1 oops=panic intel_iommu=on mitigations=off
    systemd.crash_reboot=1 systemd.show_status=error systemd.log_color=0 systemd.condition-needs-update=1
    lab.lane="$lane" lab.kernel="$kernel" lab.repo="$repo" lab.build="$build"
    ${LANE_ARGS:+lab.args="${LANE_ARGS// /,}"} "${test_variables[@]}"
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
