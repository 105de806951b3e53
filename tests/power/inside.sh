#!/usr/bin/env bash
# In the virtual machine of the power cuts.
#
#   inside.sh prepare                  the engine gets the image of tests/cluster/attempt.c
#   inside.sh serve NAME               a set whose state is on the third disk, until the power is cut
set -euo pipefail
cd "$(dirname "$0")/../.."

export DOCKER_HOST=unix:///run/docker.sock

wait_for() {
    for _ in $(seq 300); do
        "$@" > /dev/null 2>&1 && return
        sleep 1
    done
    echo "this did not succeed within 300 s: $*"
    tail -n 50 /var/log/dockerd.log
    exit 1
}

start_engine() {
    dockerd --bridge=none --iptables=false --ip6tables=false --log-level=warn > /var/log/dockerd.log 2>&1 &
    engine=$!
    wait_for docker info
}

case $1 in
prepare)
    start_engine
    mkdir /tmp/image
    cc -static -O2 -o /tmp/image/attempt tests/cluster/attempt.c
    tar -C /tmp/image -c . | docker import --change 'ENTRYPOINT ["/attempt"]' - attempt:1
    kill "$engine"
    wait "$engine" || true
    ;;
serve)
    interface=$(basename "$(ls -d /sys/class/net/e*)")
    ip link set lo up
    ip address add 10.0.2.15/24 dev "$interface"
    ip link set "$interface" up
    ip route add default via 10.0.2.2
    mkdir -p /state
    # What nobody synced goes to the disk soon, in any order and without a flush: so more is at stake in a cut.
    mount -o commit=60 /dev/vdc /state
    echo 5 > /proc/sys/vm/dirty_writeback_centisecs
    echo 1 > /proc/sys/vm/dirty_expire_centisecs
    start_engine
    # Made outside, where that takes a second.
    install guest sets/guest/guest
    cat > /tmp/set.yaml << END
name: $2
state_dir: /state/set
cores: 2
max_slots: 8
low_disk_mib: 64
sync_keep_s: 86400
min_free_disk_mib: 32
drain_notice_s: 0
END
    python -m ops.cli.main set /tmp/set.yaml --bind 0.0.0.0:8101
    ;;
esac
