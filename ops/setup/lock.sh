#!/usr/bin/env bash
# Writes requirements/*.txt from requirements/*.in: exact versions with the hashes of every published file.
#
#   ops/setup/lock.sh [--upgrade]
#
# Resolved with the lowest supported Python, 3.11, so that the same lines serve 3.12 and 3.13; dependencies
# that only a later Python needs would be missing here and are written into the .in files by hand (none
# today; `pip install --require-hashes` refuses loudly if one comes up).
set -euo pipefail
cd "$(dirname "$0")/../.."

python=${PYTHON:-python3.11}
venv=var/lock-venv
[ -x "$venv/bin/pip-compile" ] || { "$python" -m venv "$venv" && "$venv/bin/pip" install --quiet pip-tools; }

# A local folder of wheels would add hashes that nobody else can check, and hide the published ones.
unset PIP_FIND_LINKS
compile() {
    "$venv/bin/pip-compile" --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
        --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --resolver=backtracking \
        "$@"
}

compile "$@" --output-file requirements/runtime.txt requirements/runtime.in
compile "$@" --output-file requirements/dev.txt requirements/dev.in

# Of the package with the pictures only its own entry: what it depends on is never installed.
compile "$@" --output-file "$venv/pictures.txt" requirements/pictures.in
awk '/^[^ #]/ { keep = /^scikit-image==/ } keep && !/^ *#/' "$venv/pictures.txt" > requirements/pictures.txt
for lock in runtime dev pictures; do
    echo "requirements/$lock.txt: $(grep -c '==' requirements/$lock.txt) packages"
done
