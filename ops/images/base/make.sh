#!/usr/bin/env bash
# Writes a minimal Debian 12 as a tar archive to standard output: the base of the sample images where no registry answers.
#
#   ops/images/base/make.sh | docker import - general-compute/base:bookworm
#
# Needs root. The packages come from mmdebstrap's own default, or from GC_DEBIAN_MIRROR, a mirror's URL. What this
# machine's apt is told about dates (APT_OPTIONS, as in the Dockerfiles) is used and not left in the archive.
set -euo pipefail
cd "$(dirname "$0")/../../.."

bash ops/setup/packages.sh "mmdebstrap, to make a base image" mmdebstrap debian-archive-keyring

options=()
for option in ${APT_OPTIONS:-}; do
    option=${option#-o}
    options+=(--aptopt="${option%%=*} \"${option#*=}\"")
done

mmdebstrap --variant=minbase --quiet "${options[@]}" \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/hostname "$1"/etc/resolv.conf' \
    --customize-hook='rm -rf "$1"/var/log/*' \
    bookworm - ${GC_DEBIAN_MIRROR:+"$GC_DEBIAN_MIRROR"}
