"""The CPU flags of this machine, as tasks ask for them (`cpu_feature=avx2`)."""

from __future__ import annotations

from pathlib import Path


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Flags that every CPU of the machine has; empty where the kernel does not tell."""
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
