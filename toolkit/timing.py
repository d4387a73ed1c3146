"""Time and memory, measured fairly: contenders take turns, programs start in processes of their own."""

import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

HOME = Path(__file__).resolve().parent.parent  # where a child finds this toolkit, installed or not
PEAK = """
import re, resource, sys
try:  # Linux: getrusage would count the process that started this one too, before its exec
    print(int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) / 1024)
except FileNotFoundError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak / (2**20 if sys.platform == "darwin" else 2**10))
"""


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, list[float]]:
    """Seconds of every contender, timed once a round in random order.

    A busy spell of the machine falls on all. Warm them up before, if the first run is not to count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    order = random.Random(0)
    for before in range(rounds):
        turns = order.sample(list(contenders), len(contenders))
        for done, name in enumerate(turns, before * len(turns) + 1):
            started = time.perf_counter()
            contenders[name]()
            seconds[name].append(time.perf_counter() - started)
            if progress is not None:
                progress(done, rounds * len(turns))
    return seconds


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """(lower quartile, median, upper quartile)."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return float(low), float(middle), float(high)


def peak_of(program: str) -> float:
    """Run a Python program in its own process; its peak resident memory in megabytes.

    Raises RuntimeError with the last line of what it says when it fails.
    """
    found = f"import sys; sys.path.insert(0, {str(HOME)!r})\n"
    done = subprocess.run(
        [sys.executable, "-P", "-c", found + program + PEAK], capture_output=True, text=True
    )
    if done.returncode:
        says = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise RuntimeError(f"process: expected it to end well, got {done.returncode}: {says}")
    return float(done.stdout.split()[-1])
