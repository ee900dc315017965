"""What benchmarks measure alike: the time that work takes, and the peak memory of the process that does it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


def timed(what: str, do: Callable[[], Result]) -> tuple[Result, float]:
    """What `do` gives, and the seconds of processors that it took, which are told."""
    begun, clock = time.process_time(), time.perf_counter()
    made = do()
    seconds, by_clock = time.process_time() - begun, time.perf_counter() - clock
    print(f"  {what:<52}{seconds:>6.2f} s of processors, {by_clock:.2f} s by the clock", flush=True)
    return made, seconds


def peak_megabytes() -> float:
    """Of this process alone: `ru_maxrss` would begin with what the process that started it had."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def forget_peak() -> None:
    """From now on the peak is one of what comes."""
    Path("/proc/self/clear_refs").write_text("5")
