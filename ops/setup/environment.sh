#!/usr/bin/env bash
# Everything that the other targets of the Makefile stand on: the Python environment .venv with the locked packages,
# this project installed into it, a C compiler, the guest, the runtime. Quick when nothing changed; may be interrupted
# and repeated.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p var/log

# Two makes at once would install into each other's half-made environment.
exec 9> var/setup.lock
flock 9

say() { echo "set-up: $*" >&2; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if new_enough "$candidate"; then
            "$candidate" -c 'import sys; print(getattr(sys, "_base_executable", None) or sys.executable)'
            return
        fi
    done
    say "no Python 3.11 or later found${PYTHON:+ as PYTHON=$PYTHON}. Install one (Debian 12, Ubuntu 24.04:"
    say "apt-get install python3 python3-venv) or name it: make PYTHON=/path/to/python3.12"
    return 1
}

# The environment knows its own path, so a moved or copied tree needs a new one; so does a vanished interpreter.
environment_is_sound() {
    new_enough .venv/bin/python && head -n 1 .venv/bin/pip 2>/dev/null | grep -qF "#!$PWD/.venv/bin/"
}

make_environment() {
    local python
    python=$(find_python)
    say "Python environment .venv with $("$python" --version)"
    # Debian and Ubuntu keep the part of venv that brings pip in a package of its own, named for the version.
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        bash ops/setup/packages.sh "Python's venv" \
            "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    fi
    "$python" -m venv --clear .venv
}

# pip's own report is long; one short line a package is enough to see that it goes on.
install() {
    .venv/bin/python -m pip install --disable-pip-version-check --no-input --progress-bar off "$@" 2>&1 |
        tee var/log/pip.log | sed -un 's/^Collecting \([^ ]*\).*/  \1/p' >&2 || {
            say "pip failed; the end of var/log/pip.log:"
            tail -n 15 var/log/pip.log >&2
            return 1
        }
}

inputs() {
    echo "$PWD"
    .venv/bin/python --version
    cat requirements/runtime.txt requirements/dev.txt setup.py pyproject.toml ops/setup/environment.sh
}

environment_is_sound || make_environment

key=$(inputs | sha256sum | cut -d' ' -f1)
if [ "$(cat .venv/installed 2>/dev/null)" != "$key" ]; then
    say "Python packages, as locked in requirements/"
    install --require-hashes -r requirements/runtime.txt -r requirements/dev.txt
    fresh=1
fi

if ! .venv/bin/python -c 'import sys; from sets import dresser, guest, runtime; sys.exit(bool(guest.unusable() or dresser.unusable() or runtime.unusable()))'; then
    # libc.a is what a static program needs and what a bare compiler lacks.
    probe='int main(void) { return 0; }'
    if ! echo "$probe" | ${CC:-cc} -static -x c -o var/compiler-probe - 2>/dev/null; then
        bash ops/setup/packages.sh "a C compiler" gcc libc6-dev
    fi
    rm -f var/compiler-probe
    say "the programs in C: sets/guest/guest, sets/dresser/dress, sets/runtime/gcompute-runc"
    .venv/bin/python setup.py --quiet build_guest build_dresser build_runtime
fi

if [ -n "${fresh:-}" ]; then
    say "this project, in place"
    install --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .
    echo "$key" > .venv/installed.new
    mv .venv/installed.new .venv/installed # written last: only a finished set-up counts
fi
