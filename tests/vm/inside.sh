#!/usr/bin/env bash
# In the virtual machine: runs tests on an engine with each of Docker's cgroup drivers. Exits with 1 where any failed.
#
#   inside.sh                          systemd: everything that has to do with slots; cgroupfs: what reads cgroups
#   inside.sh DRIVER PATH...           these tests, on an engine with this driver (systemd, cgroupfs)
set -uo pipefail
cd "$(dirname "$0")/../.."

export DOCKER_HOST=unix:///run/docker.sock
status=0

start_engine() {
    dockerd --exec-opt "native.cgroupdriver=$1" --bridge=none --iptables=false --ip6tables=false --log-level=warn \
        > "/var/log/dockerd-$1.log" 2>&1 &
    engine=$!
    for _ in $(seq 120); do
        docker info > /dev/null 2>&1 && return
        sleep 1
    done
    echo "the engine did not start:"
    tail -n 20 "/var/log/dockerd-$1.log"
    exit 1
}

stop_engine() {
    kill "$engine"
    wait "$engine"
}

check() {
    driver=$1
    shift
    start_engine "$driver"
    found=$(docker info --format 'cgroup version {{.CgroupVersion}}, driver {{.CgroupDriver}}')
    docker info --format "== Linux {{.KernelVersion}}, Docker {{.ServerVersion}}, $found"
    [ "$found" = "cgroup version 2, driver $driver" ] || status=1
    # Everything takes ten to twenty times as long here as on the processor itself.
    python -m pytest -p no:cacheprovider --timeout 300 --durations=5 --color=no -q "$@" || status=1
    stop_engine
}

# Of the set's own tests, those that show it whole: facts and CPU time, memory, time-outs, children, asynchronous tasks.
whole_set='facts_in_its_head or warm_slot or needs_more_memory or runs_too_long or leaves_children'
whole_set+=' or what_the_program_sees or from_the_202 or wait_returns or cancel_while'

python setup.py --quiet build_guest
if [ $# -gt 0 ]; then
    check "$@"
else
    # Ten thousand tasks would take ten minutes, and show nothing that has to do with the kernel or its cgroups.
    check systemd tests/sets/guest --deselect \
        tests/sets/guest/test_cleanliness.py::test_ten_thousand_tasks_leave_no_trace_in_the_guest
    check systemd tests/sets/executor/test_{accounting,cgroup,executor}.py
    check systemd tests/scheduler/launchers/test_{contract,docker_slot,seccomp}.py
    check systemd tests/sets/api/test_{sync,async}.py -k "$whole_set"
    check systemd tests/hostile
    check cgroupfs tests/sets/executor/test_{accounting,cgroup}.py tests/scheduler/launchers/test_docker_slot.py
    check cgroupfs tests/sets/api/test_{sync,async}.py -k "$whole_set"
fi
exit "$status"
