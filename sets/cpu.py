"""The CPU flags of this machine, which tasks can ask for (`cpu_feature=avx2`)."""

from __future__ import annotations

from pathlib import Path


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the flags that every CPU of the machine has; empty if the kernel does not list them."""
    found: frozenset[str] | None = None
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            flags = frozenset(value.split())
            found = flags if found is None else found & flags
    return found or frozenset()
