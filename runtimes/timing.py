"""Seconds, side by side: every contender once a round, in random order, compared within rounds.

What disturbs a machine disturbs all contenders of a round alike, so the median of the ratios within
rounds says more than the ratio of two medians. `process_time` counts this process alone, over all of
its threads: it is what is left to go by on a busy machine.
"""

import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from .work import cores

Clock = Callable[[], float]
Quartiles = tuple[float, float, float]
Contenders = TypeVar("Contenders", bound=Mapping[str, Callable[[], object]])
HOME = Path(__file__).resolve().parent.parent  # where a child finds this toolkit, installed or not
GAIN = 0.95  # of the time of one thread: what all of them must be below, or they are not worth it
PEAK = """
import re, resource, sys
used = resource.getrusage(resource.RUSAGE_SELF)
try:  # Linux: getrusage would count the process that started this one too, before its exec
    peak = int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
except FileNotFoundError:
    peak = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
print(used.ru_utime + used.ru_stime, peak)
"""


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    progress: Callable[[int, int], None] | None = None,
    clock: Clock | None = None,
) -> dict[str, list[float]]:
    """Seconds of every contender, timed once a round in random order.

    A busy spell of the machine falls on all. Warm them up before, if the first run is not to count.
    clock: of `CLOCKS`, the wall's if None.
    """
    tick = clock or time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    order = random.Random(0)
    for before in range(rounds):
        turns = order.sample(list(contenders), len(contenders))
        for done, name in enumerate(turns, before * len(turns) + 1):
            started = tick()
            contenders[name]()
            seconds[name].append(tick() - started)
            if progress is not None:
                progress(done, rounds * len(turns))
    return seconds


def warmed(contenders: Contenders) -> Contenders:
    """The same, after one run of each."""
    for run in contenders.values():
        run()
    return contenders


def quartiles(values: Sequence[float]) -> Quartiles:
    """(lower quartile, median, upper quartile) of one value or more."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return float(low), float(middle), float(high)


def ratios(mine: Sequence[float], theirs: Sequence[float]) -> Quartiles:
    """The quartiles of mine / theirs within rounds; a round too short for the clock counts as equal."""
    return quartiles([a / b if b > 0.0 else 1.0 for a, b in zip(mine, theirs, strict=True)])


def threads_for(
    open_with: Callable[[int], Callable[[], object]], rounds: int = 21
) -> tuple[int, float]:
    """(1 or all cores, time with all / time with 1): all if they gain 5 % or more, and in most rounds.

    open_with(threads) -> what is timed. On the wall's clock: more threads always take more of the other.
    """
    every = cores()
    if every == 1:
        return 1, 1.0
    runs = {str(count): open_with(count) for count in (1, every)}
    seconds = interleaved(warmed(runs), rounds)
    _, middle, high = ratios(seconds[str(every)], seconds["1"])
    return (every if middle < GAIN and high < 1.0 else 1), middle


def peak_of(program: str) -> float:
    """Run a Python program in its own process; its peak resident memory in megabytes: see `alone`."""
    _, megabytes = alone(program)
    return megabytes


def alone(program: str) -> tuple[float, float]:
    """(CPU seconds, peak resident memory in megabytes) of a Python program in a process of its own.

    Raises RuntimeError with the last line of what it says when it fails.
    """
    found = f"import sys; sys.path.insert(0, {str(HOME)!r})\n"
    done = subprocess.run(
        [sys.executable, "-P", "-c", found + program + PEAK], capture_output=True, text=True
    )
    if done.returncode:
        says = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise RuntimeError(f"process: expected it to end well, got {done.returncode}: {says}")
    seconds, megabytes = done.stdout.split()[-2:]
    return float(seconds), float(megabytes)


# by what time is told: the wall's, or what this process used of all cores
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
