# Every target sets up what it needs. On a fresh Debian 12 or Ubuntu 24.04 with git, make and Python 3.11 or later,
# `make demo` and `make test` work without any other command. See README.md.

python := .venv/bin/python
# Sets the engine's address for the commands that follow in the same recipe line.
engine := DOCKER_HOST=$$($(python) -m ops.setup.engine up) && export DOCKER_HOST

clang := clang libclang-rt-dev llvm clang-tidy
FUZZ_SECONDS ?= 60

# The tests spend much time waiting, so two processes share them, file by file, in the order of the tree.
two_processes := --numprocesses 2 --dist loadfile --no-loadscope-reorder
# The tests start hundreds of short-lived programs, and each would compile all of its modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-nomad test test-all test-vm crash power crash-cluster drill fuzz fuzz-link fuzz-router lint up down status bench bench-cluster bench-router release-sim images package image lock

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile | column -t -s '|'

setup:  ## the Python environment, the C compiler, the guest (implicit in everything below)
	@bash ops/setup/environment.sh

demo: setup  ## process pictures and a scanned page through the routed API, with a summary
	@$(python) -m ops.demo

demo-nomad: setup  ## the pictures through slots of a Nomad agent on this machine; needs nomad on PATH, as root
	@$(python) -m ops.demo.nomad

test: setup  ## run lint, types, and all tests on real containers
	@$(MAKE) --no-print-directory lint
	@bash ops/setup/packages.sh --if-possible "tools of the tests" curl docker-registry haproxy nginx-light strace wrk
	@bash ops/setup/packages.sh --if-possible "the guest's fuzzer and analysers" $(clang)
	@. /etc/os-release && [ "$$ID" != debian ] || bash ops/setup/packages.sh --if-possible "a browser for the status page" chromium fonts-dejavu-core
	@$(engine) && $(python) -m ops.images && $(python) -m pytest $(two_processes) --durations 60 $(ARGS)

test-all: setup  ## like make test, with every hostile program in every kind of slot: ten minutes more
	@GC_TEST_ALL=1 $(MAKE) --no-print-directory test

test-vm: setup  ## test slots on cgroup version 2 and another kernel, in a virtual machine; needs root, takes 45 minutes
	@bash tests/vm/run.sh "bash tests/vm/inside.sh $(ARGS)"

crash: setup  ## kill a set at each named step, its guests, containers and engine, 500 times, and compare the books; an hour a part, as root
	@$(python) -m tests.crash $(ARGS)

power: setup  ## cut the power of a virtual machine under load, 20 times, and compare the books; two hours, as root
	@$(python) -m tests.power $(ARGS)

crash-cluster: setup  ## break a cluster of network namespaces by a seeded history and compare the books; ARGS="--minutes 10 --seed 7 --nomad"; as root
	@$(engine) && $(python) -m tests.cluster.crash $(ARGS)

drill: setup  ## cut one of two data centres off under load and report what clients met; as root
	@bash ops/setup/packages.sh --if-possible "the balancer of the drill" haproxy
	@$(engine) && $(python) -m tests.cluster.drill $(ARGS)

fuzz: setup  ## fuzz the guest's messages (libFuzzer, ASan, UBSan) for FUZZ_SECONDS=60; the corpus stays in var/fuzz
	@bash ops/setup/packages.sh "the guest's fuzzer and analysers" $(clang)
	@$(python) -m tests.sets.guest.fuzz.fuzzer --seconds $(FUZZ_SECONDS)

fuzz-link: setup  ## fuzz both ends of the executors' link (atheris) for FUZZ_SECONDS=60 each; the corpus stays in var/fuzz/link
	@$(python) -m tests.sets.executor.link.fuzz.run --seconds $(FUZZ_SECONDS)

fuzz-router: setup  ## fuzz the router's parsers (atheris) for FUZZ_SECONDS=60 each; the corpus stays in var/fuzz/router
	@$(python) -m tests.router.wire.fuzz.run --seconds $(FUZZ_SECONDS)

lint: setup  ## run ruff and mypy
	@$(python) -m ruff check .
	@$(python) -m ruff format --check --quiet . || { echo "make lint: run .venv/bin/ruff format"; exit 1; }
	@$(python) -m mypy

up: setup  ## start a router and two sets in the background, with the sample images; starts what is missing, restarts what is outdated
	@$(engine) && $(python) -m ops.images && $(python) -m ops.local.stack up

down:  ## stop them, including slots and the private engine
	@if [ -x $(python) ]; then $(python) -m ops.local.stack down; fi

status: setup  ## show which parts of the local stack run
	@$(python) -m ops.local.stack status

bench: setup  ## measure the figures of README.md on this machine
	@$(engine) && $(python) -m ops.images && $(python) -m ops.bench $(ARGS)

bench-cluster: setup  ## measure executors of their own process against the set's own, and a set with 200 of them
	@$(engine) && $(python) -m ops.images && $(python) -m ops.bench.cluster $(ARGS)

bench-router: setup  ## compare the router with nginx, HAProxy, Envoy, Traefik and Caddy; 30 minutes, or ARGS="small --rounds 0.2"
	@bash ops/setup/packages.sh --if-possible "the router's peers in the bench" curl gcc haproxy libc6-dev nginx-light openssl wrk
	@$(python) -m ops.bench_router $(ARGS)

release-sim: setup  ## how the automated release judges sick and healthy canaries; ARGS="--releases 1000 --jobs 2" for fine figures
	@$(python) -m ops.release_sim $(ARGS)

images: setup  ## build the sample images: imgproc:1, ocr:1, cat:1, ncat:1, model:1
	@$(engine) && $(python) -m ops.images

package: setup  ## make the package of this build for machines without a checkout, under var/package
	@$(python) -m ops.deploy package

image: setup  ## make the container image of this build: sets, routers, registrars, the command line
	@$(engine) && $(python) -m ops.deploy image

lock:  ## write requirements/*.txt from requirements/*.in
	@bash ops/setup/lock.sh
