"""Seconds, side by side: every contender once a round, in random order, compared within rounds.

What disturbs a machine disturbs all contenders of a round alike, so the median of the ratios within
rounds says more than the ratio of two medians. `process_time` counts this process alone, over all of
its threads: it is what is left to go by on a busy machine.
"""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Clock = Callable[[], float]
Quartiles = tuple[float, float, float]


def interleave(
    contenders: Mapping[str, Callable[[], object]], rounds: int, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """The seconds of every contender in each round, after one round to warm up. rounds: 2 or more."""
    for run in contenders.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(contenders), len(contenders)):
            started = clock()
            contenders[name]()
            seconds[name].append(clock() - started)
    return seconds


def quartiles(values: Sequence[float]) -> Quartiles:
    """The first quartile, the median and the third of two values or more."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def ratios(mine: Sequence[float], theirs: Sequence[float]) -> Quartiles:
    """The quartiles of mine / theirs within rounds; a round too short for the clock counts as equal."""
    return quartiles([a / b if b > 0.0 else 1.0 for a, b in zip(mine, theirs, strict=True)])
