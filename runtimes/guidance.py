"""Classifier-free guidance: uncond + w (cond - uncond), as a wrapper around the network.

Ho & Salimans 2022, eq. 6 with their weight w - 1. No solver knows about it: a tableau marks the rows
on which it is on, and rows outside the interval of t cost one plain call (Kynkaanniemi et al. 2024).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

LARGEST_WEIGHT = 1e4


def check(weight: float, interval: tuple[float, float]) -> None:
    """Raise ValueError unless |weight| <= 1e4 and 0 <= interval[0] <= interval[1] <= 1."""
    if not (_is_number(weight) and abs(weight) <= LARGEST_WEIGHT):  # NaN compares False
        raise ValueError(
            f"guidance: expected a number within +-{LARGEST_WEIGHT:g}, got {weight!r}; 1 turns it off"
        )
    times = tuple(interval) if np.iterable(interval) else ()
    pair = len(times) == 2 and all(_is_number(time) for time in times)
    if not (pair and 0.0 <= times[0] <= times[1] <= 1.0):
        raise ValueError(
            f"interval: expected (from, to) with 0 <= from <= to <= 1, got {interval!r}; "
            "(0, 1) is the whole path"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(
        value, bool
    )


def guided(
    network: Callable[[Any, float, Any], Any],
    condition: Any,
    null: Any,
    weight: float,
    concatenate: Callable[[Sequence[Any]], Any],
) -> Callable[[Any, float, bool], Any]:
    """(x, t, on) -> w cond + (1 - w) uncond from one call of 2B rows if `on`, else cond from B rows.

    network(x, t, condition); null: the null condition, as long as `condition`; a condition of None is
    a network without one. concatenate joins two arrays of the framework at hand along the batch.
    """
    if condition is None:
        return lambda x, t, on: network(x, t, None)
    both = concatenate([condition, null])

    def call(x: Any, t: float, on: bool) -> Any:
        if not on:
            return network(x, t, condition)
        out = network(concatenate([x, x]), t, both)
        half = len(x)
        return out[:half] * weight + out[half:] * (1.0 - weight)

    return call
