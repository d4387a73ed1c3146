"""Guidance: weak + w (strong - weak), as a wrapper around the network.

Classifier-free, strong knows the condition and weak does not (Ho & Salimans 2022, eq. 6 with their
weight w - 1); with autoguidance weak is a worse model. No solver knows about either: a tableau marks
the rows on which guidance is on, and rows outside the interval of t cost one plain call
(Kynkaanniemi et al. 2024). w is a number or a function of t. Two variants are on top of that:

    CFG++      w(t) = w / (1 - q) from one time to the next: `plus_plus`
    rescaled   the result times the spread of strong over its own spread: `mixed`

A table of numbers times states holds the first, one weight per row, and not the second: a spread is
no linear combination of states, so it stays here, between the network and the table.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .choices import is_number
from .schedules import Schedule

LARGEST_WEIGHT = 1e4
Weight = float | Callable[[float], float]  # of strong: one for all times, or one for each
Network = Callable[[Any, float, Any], Any]  # (x, t, condition) -> prediction
Guided = Callable[[Any, float, bool], Any]  # (x, t, on) -> prediction


def check(weight: float, interval: tuple[float, float]) -> None:
    """Raise ValueError unless |weight| <= 1e4 and 0 <= interval[0] <= interval[1] <= 1."""
    if not (is_number(weight) and abs(weight) <= LARGEST_WEIGHT):  # NaN compares False
        raise ValueError(
            f"guidance: expected a number within +-{LARGEST_WEIGHT:g}, got {weight!r}; 1 turns it off"
        )
    times = tuple(interval) if np.iterable(interval) else ()
    pair = len(times) == 2 and all(is_number(time) for time in times)
    if not (pair and 0.0 <= times[0] <= times[1] <= 1.0):
        raise ValueError(
            f"interval: expected (from, to) with 0 <= from <= to <= 1, got {interval!r}; "
            "(0, 1) is the whole path"
        )


def check_between(what: str, value: float, use: str) -> None:
    """Raise ValueError unless 0 <= value <= 1; `use` says what 0 and 1 do."""
    if not (is_number(value) and 0.0 <= value <= 1.0):
        raise ValueError(f"{what}: expected a number from 0 to 1, got {value!r}; {use}")


def guided(
    network: Network,
    condition: Any,
    null: Any,
    weight: Weight,
    concatenate: Callable[[Sequence[Any]], Any],
    rescale: float = 0.0,
) -> Guided:
    """(x, t, on) -> w cond + (1 - w) uncond from one call of 2B rows if `on`, else cond from B rows.

    network(x, t, condition); null: the null condition, as long as `condition`; a condition of None is
    a network without one. concatenate joins two arrays of the framework at hand along the batch.
    rescale: see `mixed`.
    """
    if condition is None:
        return lambda x, t, on: network(x, t, None)
    both = concatenate([condition, null])

    def call(x: Any, t: float, on: bool) -> Any:
        if not on:
            return network(x, t, condition)
        out = network(concatenate([x, x]), t, both)
        half = len(x)
        return mixed(out[:half], out[half:], at(weight, t), rescale)

    return call


def autoguided(
    network: Network, worse: Network, condition: Any, weight: Weight, rescale: float = 0.0
) -> Guided:
    """(x, t, on) -> w network + (1 - w) worse, both with the condition, if `on`, else the network alone.

    Karras et al. 2024, section 4: `worse` is a smaller or less trained network of the same prediction and
    path. With or without a condition; 2 calls of B rows.
    """

    def call(x: Any, t: float, on: bool) -> Any:
        strong = network(x, t, condition)
        return mixed(strong, worse(x, t, condition), at(weight, t), rescale) if on else strong

    return call


def mixed(strong: Any, weak: Any, weight: float, rescale: float = 0.0) -> Any:
    """w strong + (1 - w) weak, times r std(strong) / std(of that) + 1 - r, std over each sample.

    rescale r: 0 leaves it alone, 1 gives each sample the spread of the unguided prediction, against
    the harsh contrast of large w (Lin et al. 2023, section 3.4, r = 0.7). Not a tableau: see above.
    """
    out = strong * weight + weak * (1.0 - weight)
    if rescale == 0.0:
        return out
    tiny = 1e-12  # a prediction without any spread stays as it is
    return out * ((spread(strong) + tiny) / (spread(out) + tiny) * rescale + (1.0 - rescale))


def spread(x: Any) -> Any:
    """sqrt(mean (x - mean)^2) of each sample, (B, 1, ...)."""
    axes = tuple(range(1, x.ndim))
    away = x - x.mean(axis=axes, keepdims=True)
    return (away * away).mean(axis=axes, keepdims=True) ** 0.5


def at(weight: Weight, t: float) -> float:
    """The weight at time t."""
    return weight(t) if callable(weight) else weight


def plus_plus(strength: float, times: Sequence[float], schedule: Schedule) -> Weight:
    """w(t) = strength / (1 - q), q = alpha_t sigma_s / (alpha_s sigma_t), s the next time after t.

    CFG++ (Chung et al. 2024, alg. 2) takes DDIM's step to alpha_s data + sigma_s noise with the data of
    uncond + strength (cond - uncond) and the noise of uncond. Solved for the w with which plain guidance
    lands there, that is this weight, so Euler in the straight chart is CFG++ to the last digit and other
    solvers have a meaning too. strength in 0..1; each interval of the grid has its own weight.
    """
    alpha, sigma = (np.asarray(part) for part in schedule(np.asarray(times, np.float64))[:2])
    q = (alpha[:-1] * sigma[1:]) / (alpha[1:] * sigma[:-1])
    weights = [strength / (1.0 - float(one)) for one in q]
    return lambda t: weights[min(max(bisect_right(times, t) - 1, 0), len(weights) - 1)]
