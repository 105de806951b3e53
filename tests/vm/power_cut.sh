#!/usr/bin/env bash
# Cuts the power of a machine whose set takes tasks, switches it on again, and looks for every task that was acknowledged.
#
#   power_cut.sh                       outside, as root: makes the machine, boots it twice, exits with 0 where none is lost
#   power_cut.sh send                  in the machine: a set, and clients that send until the power is cut
#   power_cut.sh find FILE             in the machine: every task that FILE names succeeds, with the right result
#
# The cut takes away all that the machine's kernel has not sent to its disk; the disk itself loses nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."

export DOCKER_HOST=unix:///run/docker.sock
log=/var/log/set.log

start_set() {
    dockerd --bridge=none --iptables=false --ip6tables=false --log-level=warn > /var/log/dockerd.log 2>&1 &
    wait_for docker info
    docker image inspect ncat:1 > /dev/null 2>&1 || make_image
    ip link set lo up
    python setup.py --quiet build_guest
    python -m ops.cli.main set ops/local/set-a.yaml --bind 127.0.0.1:8101 >> "$log" 2>&1 &
    wait_for python -c 'import urllib.request as r; r.urlopen("http://127.0.0.1:8101/readyz")'
}

wait_for() {
    for _ in $(seq 120); do
        "$@" > /dev/null 2>&1 && return
        sleep 1
    done
    echo "this did not succeed within 120 s: $*"
    tail -n 50 /var/log/dockerd.log "$log"
    exit 1
}

make_image() {
    mkdir -p /tmp/image
    cc -std=gnu11 -O2 -static -nostdlib -ffreestanding -fno-stack-protector -o /tmp/image/ncat ops/images/ncat/ncat.c
    printf 'FROM scratch\nCOPY ncat /ncat\nENTRYPOINT ["/ncat"]\n' > /tmp/image/Dockerfile
    docker build --quiet --tag ncat:1 /tmp/image 2> /dev/null
    # The engine need not survive the cut as well.
    sync
}

case ${1:-} in
send)
    start_set
    python tests/vm/power_cut.py send &
    sleep 60
    # Restart at once: nothing is written back, nothing is unmounted.
    echo b > /proc/sysrq-trigger
    sleep 60
    ;;
find)
    start_set
    python tests/vm/power_cut.py find < "$2" || { tail -n 50 "$log"; exit 1; }
    ;;
*)
    machine=$(bash tests/vm/image.sh "${GC_VM_SUITE:-bookworm}")
    export GC_VM_DISK=$machine/power-cut.img
    trap 'rm -f "$GC_VM_DISK"' EXIT
    cp --sparse=always "$machine/root.img" "$GC_VM_DISK"
    bash tests/vm/run.sh 'bash tests/vm/power_cut.sh send' || [ $? -eq 125 ]
    # The last of them are those that the cut is about.
    acknowledged=$(grep '^acknowledged ' "$machine/console.log" | tail -n 1000)
    bash tests/vm/run.sh "cat > /tmp/acknowledged << EOF
$acknowledged
EOF
bash tests/vm/power_cut.sh find /tmp/acknowledged"
    ;;
esac
