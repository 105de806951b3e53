#!/usr/bin/env bash
# In the virtual machine: installs the package by the steps of ops/deploy/README.md, with systemd as its init, and sees
# tasks run, also over an upgrade's drain, backup and restart. Outside, with the package of this checkout:
#
#   GC_VM_ADD="$(make -s package)" tests/vm/run.sh 'bash tests/vm/install.sh'
set -euo pipefail
cd "$(dirname "$0")/../.."

step() { echo "== $*"; }
wait_for() {
    for _ in $(seq 300); do
        "$@" > /dev/null 2>&1 && return
        sleep 1
    done
    echo "waited in vain for: $*"
    systemctl --no-pager status 'gcompute-*' | tail -n 40
    exit 1
}

step "the machine's engine, and an image for tasks"
mkdir -p /etc/docker
echo '{"bridge": "none", "iptables": false, "ip6tables": false}' > /etc/docker/daemon.json
systemctl start docker
mkdir /tmp/image
cc -static -O2 -o /tmp/image/tool tests/sets/api/tool.c
tar -C /tmp/image -c . | docker import --change 'ENTRYPOINT ["/tool"]' - tool:1

step "the files of the parts"
mkdir -p /etc/general-compute/router
printf 'name: a\nstate_dir: /var/lib/general-compute-a\n' > /etc/general-compute/set-a.yaml
printf 'version: 1\nsets: {a: {url: "http://127.0.0.1:8101"}}\ndefault: {weights: {a: 100}}\n' > /etc/general-compute/router/router.yaml

step "the steps of ops/deploy/README.md"
mkdir /tmp/package
mv general-compute-*.tar.gz /tmp/package/
version=$(basename /tmp/package/general-compute-*-linux-*.tar.gz | sed 's/^general-compute-//; s/-linux-.*//')
awk '/^## Install/ {found = 1} /^## Upgrade/ {found = 0} found && /^    / {print substr($0, 5)}' ops/deploy/README.md |
    sed "s/VERSION/$version/g" > /tmp/steps.sh
cat /tmp/steps.sh
(cd /tmp/package && bash -euo pipefail /tmp/steps.sh)
systemd-analyze verify /etc/systemd/system/gcompute-*.service

step "tasks run"
gcompute() { /opt/general-compute/bin/gcompute "$@"; }
runs() { [ "$(gcompute run tool:1 say hello)" = hello ]; }
wait_for runs
task=$(gcompute submit tool:1 say later)
gcompute wait "$task"
[ "$(gcompute result "$task")" = later ]
gcompute doctor --set /etc/general-compute/set-a.yaml --router /etc/general-compute/router/router.yaml || true

step "drain, backup, restart: what ran ends, and its result stays"
task=$(gcompute submit tool:1 sleep 5 say ran)
begun() { gcompute status --json "$task" | grep -E '"state": "(running|succeeded)"'; }
wait_for begun
gcompute set drain
[ "$(gcompute result "$task")" = ran ]
gcompute set backup /etc/general-compute/set-a.yaml /var/backups/set-a
systemctl restart gcompute-set@a
wait_for runs
[ "$(gcompute result "$task")" = ran ]

step "a file with a mistake stays down, and its journal says why"
echo 'log_level: loud' >> /etc/general-compute/set-a.yaml
systemctl restart gcompute-set@a || true
wait_for systemctl is-failed gcompute-set@a
[ "$(systemctl show -P ExecMainStatus gcompute-set@a)" = 78 ]
journalctl -u gcompute-set@a -o cat -n 20 | grep "log_level: 'loud' is none of"

step "installed"
