# Every target sets up what it needs: on a fresh Debian 12 or Ubuntu 24.04 with git, make and Python 3.11 or later,
# `make demo` and `make test` are the first and only commands to type. See README.md.

python := .venv/bin/python
# The engine's address goes to whatever runs after it in the same recipe line.
engine := DOCKER_HOST=$$($(python) -m ops.setup.engine up) && export DOCKER_HOST

clang := clang libclang-rt-dev llvm clang-tidy
FUZZ_SECONDS ?= 60

# Much of the tests' time is waiting, so two processes share them, file by file, in the order of the tree.
two_processes := --numprocesses 2 --dist loadfile --no-loadscope-reorder
# Hundreds of short-lived programs are started, which would each compile all of their modules anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-vm fuzz fuzz-router lint up down status bench bench-router images lock

help:  ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile | column -t -s '|'

setup:  ## the Python environment, the C compiler, the guest (implicit in everything below)
	@bash ops/setup/environment.sh

demo: setup  ## the main job: pictures and a scanned page through the routed API, with a summary
	@$(python) -m ops.demo

test: setup  ## every check: lint, types, and all tests on real containers
	@$(MAKE) --no-print-directory lint
	@bash ops/setup/packages.sh --if-possible "tools of the tests" curl docker-registry haproxy nginx-light strace wrk
	@bash ops/setup/packages.sh --if-possible "the guest's fuzzer and analysers" $(clang)
	@. /etc/os-release && [ "$$ID" != debian ] || bash ops/setup/packages.sh --if-possible "a browser for the status page" chromium fonts-dejavu-core
	@$(engine) && $(python) -m ops.images && $(python) -m pytest $(two_processes) $(ARGS)

test-all: setup  ## as make test, with every hostile program in every kind of slot: some ten minutes more
	@GC_TEST_ALL=1 $(MAKE) --no-print-directory test

test-vm: setup  ## slots on cgroup version 2 and another kernel, in a virtual machine; as root, three quarters of an hour
	@bash tests/vm/run.sh "bash tests/vm/inside.sh $(ARGS)"

fuzz: setup  ## the guest's messages under libFuzzer, ASan and UBSan, for FUZZ_SECONDS=60; the corpus stays in var/fuzz
	@bash ops/setup/packages.sh "the guest's fuzzer and analysers" $(clang)
	@$(python) -m tests.sets.guest.fuzz.fuzzer --seconds $(FUZZ_SECONDS)

fuzz-router: setup  ## the router's parsers under atheris, for FUZZ_SECONDS=60 each; the corpus stays in var/fuzz/router
	@$(python) -m tests.router.wire.fuzz.run --seconds $(FUZZ_SECONDS)

lint: setup  ## ruff and mypy
	@$(python) -m ruff check .
	@$(python) -m ruff format --check --quiet . || { echo "make lint: run .venv/bin/ruff format"; exit 1; }
	@$(python) -m mypy

up: setup  ## start a router and two sets in the background, with the sample images; only what is missing
	@$(engine) && $(python) -m ops.images && $(python) -m ops.local.stack up

down:  ## stop them all, slots and the private engine included
	@if [ -x $(python) ]; then $(python) -m ops.local.stack down; fi

status: setup  ## what of the local stack runs
	@$(python) -m ops.local.stack status

bench: setup  ## the figures of README.md, measured on this machine
	@$(engine) && $(python) -m ops.images && $(python) -m ops.bench $(ARGS)

bench-router: setup  ## the router beside nginx, HAProxy, Envoy, Traefik and Caddy; half an hour, or ARGS="small --rounds 0.2"
	@bash ops/setup/packages.sh --if-possible "what the router is measured beside" curl gcc haproxy libc6-dev nginx-light openssl wrk
	@$(python) -m ops.bench_router $(ARGS)

images: setup  ## the sample images: imgproc:1, ocr:1, cat:1, ncat:1, model:1
	@$(engine) && $(python) -m ops.images

lock:  ## write requirements/*.txt anew from requirements/*.in
	@bash ops/setup/lock.sh
