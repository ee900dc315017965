"""What all benchmarks measure alike: the peak memory of the process that does the work."""

from pathlib import Path


def peak_megabytes() -> float:
    """Of this process alone: `ru_maxrss` would begin with what the process that started it had."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
