#!/usr/bin/env bash
# Makes the virtual machine's disk, kernel and initrd under var/vm/SUITE/, where they are missing or out of date: a Debian
# with systemd, its own kernel, its Docker engine, a compiler, and the Python packages of requirements/ in /opt/venv.
# One to three minutes and 2 GB the first time. Needs root, like every way to make a file system with owners in it.
#
#   tests/vm/image.sh SUITE            bookworm (Debian 12) or trixie (Debian 13); prints the folder
set -euo pipefail
cd "$(dirname "$0")/../.."
suite=$1
case $suite in
    bookworm) python_version=3.11 engine=docker.io ;;
    trixie) python_version=3.13 engine=docker.io,docker-cli ;;
    *) echo "test-vm: GC_VM_SUITE=$suite: bookworm and trixie are known" >&2; exit 64 ;;
esac
work=var/vm/$suite

packages=systemd-sysv,dbus,udev,$engine,apparmor,iproute2,kmod,procps,gcc,libc6-dev,make,python3,python3-venv
packages+=,crun,strace,linux-image-cloud-amd64,initramfs-tools

say() { echo "test-vm: $*" >&2; }

if [ "$(uname -m)" != x86_64 ]; then
    say "the virtual machine is an x86-64 one, made by running its programs here: it needs such a host."
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    say "making the virtual machine's disk needs root: sudo make test-vm"
    exit 1
fi
bash ops/setup/packages.sh "a virtual machine" mmdebstrap debian-archive-keyring qemu-system-x86 e2fsprogs

inputs=(tests/vm/image.sh tests/vm/start.sh tests/vm/tests.service requirements/runtime.txt requirements/dev.txt)
key=$(cat "${inputs[@]}" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$work/key" 2>/dev/null)" = "$key" ]; then
    echo "$work"
    exit
fi

mkdir -p "$work"
rm -f "$work/key"
# The new root is made where nobody looks into it while it is being made.
made=$(mktemp --directory --tmpdir=/var/tmp gc-vm.XXXXXX)
trap 'rm -rf --one-file-system "$made"' EXIT

# Fetched here, as the machine inside has no network. For the machine's own Python.
say "fetching the Python packages"
.venv/bin/python -m pip download --quiet --disable-pip-version-check --no-input --dest "$made/wheels" \
    --only-binary=:all: --python-version=$python_version --implementation=cp --require-hashes \
    -r requirements/runtime.txt -r requirements/dev.txt >&2

# What this machine's apt is told about dates holds for the one made here, too (see ops/images/builder.py).
options=()
while read -r option; do options+=(--aptopt="$option"); done \
    < <(apt-config dump Acquire::Check-Valid-Until Acquire::Check-Date | grep '"' || true)

say "making a Debian $suite with its kernel and engine, a minute or two"
# Hooks run outside, with the new root's path as first argument; chroot runs its programs at full speed. What mmdebstrap
# mounts in the new root stays in a namespace of its own: were it left behind, the disk would be filled with it.
unshare --mount mmdebstrap --variant=minbase --quiet "${options[@]}" --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook="mkdir -p \"\$1\"/opt/wheels && cp $made/wheels/* $PWD/requirements/*.txt \"\$1\"/opt/wheels" \
    --customize-hook='chroot "$1" python3 -m venv /opt/venv' \
    --customize-hook='chroot "$1" sh -c "cd /opt/wheels && /opt/venv/bin/python -m pip install --quiet --no-index \
        --find-links=. --require-hashes -r runtime.txt -r dev.txt"' \
    --customize-hook='rm -r "$1"/opt/wheels' \
    --customize-hook="cp $PWD/tests/vm/start.sh \"\$1\"/opt/ && cp $PWD/tests/vm/tests.service \"\$1\"/etc/systemd/system/" \
    --customize-hook='chroot "$1" systemctl enable --quiet tests.service' \
    --customize-hook='chroot "$1" systemctl disable --quiet docker.service docker.socket containerd.service' \
    --customize-hook='chroot "$1" systemctl mask --quiet apt-daily.timer apt-daily-upgrade.timer' \
    --customize-hook='echo "/dev/vda / ext4 defaults 0 1" > "$1"/etc/fstab; echo vm > "$1"/etc/hostname' \
    "$suite" "$made/root" ${GC_DEBIAN_MIRROR:+"$GC_DEBIAN_MIRROR"} 2> "$work/image.log" || {
        say "the end of $work/image.log:"
        tail -n 20 "$work/image.log" >&2
        exit 1
    }

cp "$(ls "$made"/root/boot/vmlinuz-* | tail -n 1)" "$work/vmlinuz"
cp "$(ls "$made"/root/boot/initrd.img-* | tail -n 1)" "$work/initrd"
rm -f "$work/root.img"
truncate -s 8G "$work/root.img"
mke2fs -q -t ext4 -d "$made/root" "$work/root.img"
echo "$key" > "$work/key"
echo "$work"
