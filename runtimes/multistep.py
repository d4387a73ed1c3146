"""Solvers that remember: one new call a step, the earlier ones put on a polynomial.

Hold on to the fields k_i at earlier clock values, a distance u_i from now, and integrate the
polynomial through them and k over the step. Written as Euler's step and corrections,

    y <- y + h k + sum_i w_i (k_i - k),     sum_i w_i u_i^j = integral_0^h u^j du,  j = 1 .. n,

it is Adams-Bashforth for any steps (Hairer et al. 1993, III.5). A run has no past at first: its start
must be as good as the rest, or the whole run is of the start's order. `exponential` uses the same
two functions with other integrals.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from .solvers import Array

A = TypeVar("A", bound="Array")
Field = Callable[[A, float], A]
Past = list[tuple[float, A]]  # newest first: a clock value and what was found there


def weights(offsets: Sequence[float], moments: Sequence[float]) -> list[float]:
    """w with sum_i w_i offsets_i^j = moments_j, j = 1 .. n, for n distinct offsets other than 0."""
    powers = np.vander(offsets, len(offsets) + 1, increasing=True)[:, 1:]
    return [float(w) for w in np.linalg.solve(powers.T, np.asarray(moments))]


def bend(y: A, k: A, others: Sequence[A], pull: Sequence[float]) -> A:
    """y + sum_i pull_i (others_i - k)."""
    for other, w in zip(others, pull, strict=True):
        y = y + other * w
    return y + k * -sum(pull)


def bashforth(y: A, k: A, past: Past[A], t: float, h: float) -> A:
    """y + h k, bent by the past: one Adams-Bashforth step of order 1 + len(past)."""
    offsets = [(before - t) / h for before, _ in past]
    pull = weights(offsets, [1.0 / (j + 1) for j in range(1, len(past) + 1)])
    return bend(y + k * h, k, [other for _, other in past], [h * w for w in pull])


def ab2(field: Field[A], y: A, grid: Sequence[float]) -> Iterator[A]:
    """y <- y + h ((1 + w/2) k(t) - w/2 k_before), w = h / h_before; the first step is Euler's.

    Adams-Bashforth with variable steps (Hairer et al. 1993, III.5, eq. 5.3 for k = 2).
    """
    before: tuple[A, float] | None = None
    for t, s in pairwise(grid):
        h = s - t
        k = field(y, t)
        if before is None:
            y = y + k * h
        else:
            k_before, h_before = before
            w = h / h_before
            y = y + k * (h * (1.0 + 0.5 * w)) + k_before * (-0.5 * w * h)
        before = (k, h)
        yield y


def ab3(field: Field[A], y: A, grid: Sequence[float]) -> Iterator[A]:
    """y <- y + integral of the parabola through the last 3 fields; first a Heun step, then order 2.

    Explicit Adams, variable steps (Hairer et al. 1993, III.5). The two first steps are wrong by h^3,
    once each, as the many others are together: the order stays 3.
    """
    past: Past[A] = []
    for t, s in pairwise(grid):
        h = s - t
        k = field(y, t)
        if past:
            y = bashforth(y, k, past, t, h)
        else:
            k_s = field(y + k * h, s)
            y = y + (k + k_s) * (0.5 * h)
        past = [(t, k), *past[:1]]
        yield y


def ab4(field: Field[A], y: A, grid: Sequence[float]) -> Iterator[A]:
    """y <- y + integral of the cubic through the last 4 fields; first two steps of `heun3`.

    Explicit Adams, variable steps (Hairer et al. 1993, III.5). The third step has a past of two and
    order 3, as those before it: wrong by h^4, once each, so the order stays 4.
    """
    past: Past[A] = []
    for t, s in pairwise(grid):
        h = s - t
        k = field(y, t)
        if len(past) > 1:
            y = bashforth(y, k, past, t, h)
        else:
            k2 = field(y + k * (h / 3.0), t + h / 3.0)
            k3 = field(y + k2 * (h * 2.0 / 3.0), t + h * 2.0 / 3.0)
            y = y + (k + k3 * 3.0) * (0.25 * h)
        past = [(t, k), *past[:2]]
        yield y
