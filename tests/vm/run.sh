#!/usr/bin/env bash
# Boots the virtual machine with this project in it, uncommitted changes included, and runs a command there as root, in
# the project's folder, with the Python packages on PATH; see README.md.
#
#   tests/vm/run.sh                    the checks of inside.sh
#   tests/vm/run.sh 'COMMAND'          something else, e.g. 'tests/vm/inside.sh cgroupfs tests/sets/guest'
#
# The exit status is the command's; 125 where the machine did not get so far. The console is kept in console.log beside
# the disk. GC_VM_SUITE is the Debian, bookworm or trixie; GC_VM_TIMEOUT_S how long it may take; GC_VM_ACCEL=kvm
# makes it fast where that works. GC_VM_ADD is a further file for the project's folder. GC_VM_DISK is a copy of the disk
# that keeps what is written to it. GC_VM_OPTIONS are further options of QEMU.
set -euo pipefail
cd "$(dirname "$0")/../.."
command=${1:-bash tests/vm/inside.sh}
machine=$(bash tests/vm/image.sh "${GC_VM_SUITE:-bookworm}")

run=$(mktemp -d "$machine/run.XXXXXX")
trap 'rm -rf "$run"' EXIT
printf '%s\n' "$command" > "$run/command.sh"
git ls-files -z --cached --others --exclude-standard |
    while IFS= read -rd '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
    tar --create --file="$run/project.tar" --null --files-from=-
tar --append --file="$run/project.tar" --directory="$run" command.sh
[ -z "${GC_VM_ADD:-}" ] || tar --append --file="$run/project.tar" --directory="$(dirname "$GC_VM_ADD")" "$(basename "$GC_VM_ADD")"

# One file, read in place: what the machine writes goes to a temporary file that vanishes with it.
disk=file=$machine/root.img,snapshot=on
[ -z "${GC_VM_DISK:-}" ] || disk=file=$GC_VM_DISK
timeout "${GC_VM_TIMEOUT_S:-2400}" qemu-system-x86_64 \
    -accel "${GC_VM_ACCEL:-tcg,thread=multi}" -cpu max -m 4096 -smp 2 -nographic -no-reboot -net none \
    -kernel "$machine/vmlinuz" -initrd "$machine/initrd" \
    -append "root=/dev/vda rw console=ttyS0 loglevel=3 panic=1 systemd.show_status=0 systemd.mask=serial-getty@ttyS0.service" \
    -drive "$disk,if=virtio,format=raw" \
    -drive "file=$run/project.tar,if=virtio,format=raw,readonly=on" \
    ${GC_VM_OPTIONS:-} \
    < /dev/null | sed -u 's/\x1b[^A-Za-z]*[A-Za-z]//g; s/\r//g' | tee "$machine/console.log"
status=$(awk '/^vm-exit-status/ {status = $2} END {print status}' "$machine/console.log")
exit "${status:-125}"
