#!/usr/bin/env bash
# Installs Debian packages, on Debian and Ubuntu as root; else says exactly what to do and fails.
#
#   ops/setup/packages.sh [--if-possible] WHY PACKAGE...      e.g. packages.sh "a C compiler" gcc libc6-dev
#
# With --if-possible, not being root or on another system is no failure: what needs the packages will say so itself.
# Packages that are installed already cost nothing. Services are kept from starting: what we start, we start ourselves.
set -euo pipefail

optional=
if [ "$1" = --if-possible ]; then
    optional=1
    shift
fi
why=$1
shift

missing=()
for package in "$@"; do
    state=$(dpkg-query --show --showformat='${db:Status-Abbrev}' "$package" 2>/dev/null || true)
    [[ $state == ii* ]] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ -n "$optional" ] && ! { command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; }; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "set-up needs $why. This is neither Debian nor Ubuntu: install the counterpart of" >&2
    echo "these Debian packages yourself, then run make again: ${missing[*]}" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "set-up needs $why, and installing packages needs root. Run this, then make again:" >&2
    echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
    exit 1
fi

echo "set-up: $why: apt-get install ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l
mkdir -p var/log
log=var/log/apt.log

# invoke-rc.d asks this file whether a service may start; 101 is "no". An existing one is the machine's own affair.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi

apt() { apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" >>"$log" 2>&1; }
install() { apt install -y --no-install-recommends "${missing[@]}"; }

: > "$log"
dpkg --configure -a >>"$log" 2>&1 || true # an interrupted installation would refuse every later one
# The lists of a fresh machine are empty, those of an old one point to versions that are gone.
if ! install; then
    echo "set-up: apt-get update" >&2
    if ! { apt update && install; }; then
        echo "set-up: apt-get failed; the end of $log:" >&2
        tail -n 15 "$log" >&2
        exit 1
    fi
fi
