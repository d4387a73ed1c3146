"""Solvers that keep one end, the data or the noise, on a polynomial and integrate the rest exactly.

Along the ODE, x = alpha data + sigma noise, both quotients are moved by one end alone:

    d(x / sigma) = data d(alpha / sigma),     d(x / alpha) = noise d(sigma / alpha).             (1)

Read on the clock lambda = log(alpha / sigma), lambda_t now and h = lambda_s - lambda_t, the first is

    x_s = sigma_s / sigma_t x + alpha_s integral_0^h data(u) e^(u - h) du                        (2)

(Lu et al. 2022b, Proposition 4.1). Data that stand still give DDIM's step (Song, Meng & Ermon 2021,
eq. 12), `straight`: finite for alpha_t = 0 and for sigma_s = 0. What else is known of them, data_i
at distances u_i on the clock, bends it:

    x_s <- straight + alpha_s sum_i w_i (data_i - data),                                         (3)
    sum_i w_i u_i^j = integral_0^h u^j e^(u - h) du,  j = 1 .. n,

the integral of the polynomial through all of them. With noise for data, sigma for alpha and
-lambda for lambda, (3) is the second half of (1). Where a clock is infinite, at alpha = 0 or
sigma = 0, it tells nothing: a step from or to there is `straight`, and such a point is no past.
These generators are given

    ends(x, t) -> (data, noise), the two ends that the network's prediction implies at (x, t),
    scales(t)  -> alpha, sigma and their rates, a schedule,

as those in `stochastic` are. r = sigma / alpha = e^-lambda is the noise ratio. Lu et al. 2022b is
"DPM-Solver++", 2022a "DPM-Solver".
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from .multistep import Past, bend, weights
from .schedules import Scales, Schedule, time_of_ratio

if TYPE_CHECKING:
    from .solvers import Array

A = TypeVar("A", bound="Array")
EndsOf = Callable[[A, float], tuple[A, A]]
Rule = Callable[[float, Sequence[float]], list[float]]  # h, offsets u_i -> w_i
DATA, NOISE = 0, 1  # of `ends`, and their amplitudes of `Scales`
FAR = math.log(1e100)  # beyond it the clock is taken for infinite


def clock(scales: Scales, end: int = DATA) -> float:
    """lambda = log(alpha / sigma), or its negative, which is the noise's own; +-infinity at the ends."""
    own, other = float(scales[end]), float(scales[1 - end])
    if own <= 0.0 or other <= 0.0:
        return math.inf if own > 0.0 else -math.inf
    shown = math.log(own) - math.log(other)
    return shown if abs(shown) < FAR else math.copysign(math.inf, shown)


def straight(x: A, data: A, now: Scales, after: Scales) -> A:
    """sigma_s / sigma_t x + (alpha_s - alpha_t sigma_s / sigma_t) data: DDIM, by (1) with still data."""
    shrink = float(after.sigma) / float(now.sigma)
    return x * shrink + data * (float(after.alpha) - float(now.alpha) * shrink)


def moments(h: float, n: int) -> list[float]:
    """m_j = integral_0^1 v^j h e^(h (v - 1)) dv, j = 0 .. n, with j m_(j-1) = h (1 - m_j)."""
    if abs(h) >= 1.0:
        found = [-math.expm1(-h)]
        for j in range(1, n + 1):
            found.append(1.0 - found[-1] * j / h)
        return found
    # upwards small h would cancel; downwards the start, 20 beyond n, is forgotten
    found = [0.0]
    for j in range(n + 20, 0, -1):
        found.append((1.0 - found[-1]) * h / j)
    return found[::-1][: n + 1]


def exact(h: float, offsets: Sequence[float]) -> list[float]:
    """The w of (3)."""
    if not offsets:
        return []
    return weights([u / h for u in offsets], moments(h, len(offsets))[1:])


def halved(h: float, offsets: Sequence[float]) -> list[float]:
    """The w of (3), but a single one is (1 - e^-h) / 2 * h / u: its integral to leading order.

    The factor 1 / 2 of Lu et al. 2022b, Algorithm 2, and of Zhao et al. 2023 with their B_2(h) = e^h - 1.
    """
    if len(offsets) != 1:
        return exact(h, offsets)
    return [-0.5 * math.expm1(-h) * h / offsets[0]]


def known(past: Past[A], at: float, h: float) -> dict[float, A]:
    """u_i -> what stands there, wherever the clock can tell it from now; nothing if h is 0 or infinite."""
    if h == 0.0 or not math.isfinite(h):
        return {}
    return {seen - at: end for seen, end in past if math.isfinite(seen) and seen != at}


def adams(
    ends: EndsOf[A],
    x: A,
    grid: Sequence[float],
    scales: Schedule,
    end: int,
    order: int,
    rule: Rule,
) -> Iterator[A]:
    """x_s <- straight + amplitude_s sum_i w_i (end_i - end), from the `order` last calls: (3)."""
    past: Past[A] = []
    for t, s in pairwise(grid):
        now, after = scales(t), scales(s)
        both = ends(x, t)
        at = clock(now, end)
        h = clock(after, end) - at
        others = known(past, at, h)
        pull = [float(after[end]) * w for w in rule(h, list(others))]
        x = bend(straight(x, both[DATA], now, after), both[end], list(others.values()), pull)
        past = [(at, both[end]), *past][: order - 1]
        yield x


def dpmpp_2m(ends: EndsOf[A], x: A, grid: Sequence[float], scales: Schedule) -> Iterator[A]:
    """x_s <- sigma_s / sigma_t x + alpha_s (1 - e^-h) (data + h / (2 h_before) (data - data_before)).

    DPM-Solver++(2M): Lu et al. 2022b, Algorithm 2. Order 2; the first step is DDIM's.
    """
    return adams(ends, x, grid, scales, DATA, 2, halved)


def dpmpp_3m(ends: EndsOf[A], x: A, grid: Sequence[float], scales: Schedule) -> Iterator[A]:
    """x_s <- sigma_s / sigma_t x + alpha_s integral of the parabola through the last 3 data in lambda.

    DPM-Solver++ by multisteps with k = 3 (Lu et al. 2022b, section 4.2): (3), n = 2. The first steps are
    DDIM's and `dpmpp_2m`'s, the very first of order 1, so a whole run shows order 2; the recurrence
    itself has order 3. diffusers 0.42.1 has half the parabola's curvature here, and order 2
    (tests/test_diffusers.py).
    """
    return adams(ends, x, grid, scales, DATA, 3, halved)


def deis2(ends: EndsOf[A], x: A, grid: Sequence[float], scales: Schedule) -> Iterator[A]:
    """x_s <- alpha_s / alpha_t x + alpha_s integral of the line through the last 2 noises in log r.

    DEIS, exponential Adams-Bashforth (Zhang & Chen 2023, eqs. 14-15), its polynomial taken in log r.
    Order 2; the first step is DDIM's.
    """
    return adams(ends, x, grid, scales, NOISE, 2, exact)


def deis3(ends: EndsOf[A], x: A, grid: Sequence[float], scales: Schedule) -> Iterator[A]:
    """x_s <- alpha_s / alpha_t x + alpha_s integral of the parabola through the last 3 noises in log r.

    As `deis2`, with a past of two. The first step is DDIM's, of order 1, so a whole run shows
    order 2; the recurrence itself has order 3.
    """
    return adams(ends, x, grid, scales, NOISE, 3, exact)


def unipc(
    ends: EndsOf[A], x: A, grid: Sequence[float], scales: Schedule, order: int
) -> Iterator[A]:
    """x_s <- straight + alpha_s sum_i w_i (data_i - data), then again with data_s among the data_i.

    UniPC (Zhao et al. 2023, eq. 3 and Algorithms 1 and 2, for data): the call at the predicted x_s also
    corrects it, before the next step sets out from there. What is yielded is the prediction.
    """
    past: Past[A] = []
    base, trust = x, 0.0  # the corrected state is base + trust * data
    for t, s in pairwise(grid):
        now, after = scales(t), scales(s)
        data, _ = ends(x, t)
        at = clock(now)
        h = clock(after) - at
        ahead = straight(base + data * trust, data, now, after)
        found = known(past, at, h)
        offsets, others = list(found), list(found.values())
        x = bend(ahead, data, others, [float(after.alpha) * w for w in halved(h, offsets)])
        corrector = halved(h, [*offsets, h]) if h != 0.0 and math.isfinite(h) else [0.0]
        *pull, trust = (float(after.alpha) * w for w in corrector)
        base = bend(ahead, data, others, pull) + data * -trust
        past = [(at, data), *past][: order - 1]
        yield x


def unipc2(ends: EndsOf[A], x: A, grid: Sequence[float], scales: Schedule) -> Iterator[A]:
    """x_s <- the step of `dpmpp_2m`, then the integral of the parabola with data_s: see `unipc`.

    Order 3, one more than its predictor's (Zhao et al. 2023, theorem 3.1).
    """
    return unipc(ends, x, grid, scales, 2)


def unipc3(ends: EndsOf[A], x: A, grid: Sequence[float], scales: Schedule) -> Iterator[A]:
    """x_s <- the step of `dpmpp_3m`, then the integral of the cubic with data_s: see `unipc`.

    The first step, predicted by DDIM and corrected by the trapezium, is wrong by h^3, so a whole
    run shows order 3; the recurrence itself has order 4.
    """
    return unipc(ends, x, grid, scales, 3)


def dpmpp_2s(ends: EndsOf[A], x: A, grid: Sequence[float], scales: Schedule) -> Iterator[A]:
    """x_s <- sigma_s / sigma_t x + alpha_s (1 - e^-h) data(u), u the DDIM step to lambda_t + h / 2.

    DPM-Solver++(2S): Lu et al. 2022b, Algorithm 1 with r = 1/2. Order 2. One call where h is infinite.
    """
    for t, s in pairwise(grid):
        now, after = scales(t), scales(s)
        data, _ = ends(x, t)
        middle = 0.5 * (clock(now) + clock(after))
        if math.isfinite(middle):
            half = float(time_of_ratio(scales, math.exp(middle)))
            data, _ = ends(straight(x, data, now, scales(half)), half)
        x = straight(x, data, now, after)
        yield x


def edm_heun(ends: EndsOf[A], x: A, grid: Sequence[float], scales: Schedule) -> Iterator[A]:
    """x_s / alpha_s <- x / alpha_t + (r_s - r_t) (noise + noise_s) / 2, noise_s that at DDIM's x_s.

    Karras et al. 2022, Algorithm 1, whose sigma is r and whose d is noise. Order 2. Onto sigma = 0
    one call and no correction (line 6); nor from r = infinity.
    """
    for t, s in pairwise(grid):
        x = trapezium(ends, x, t, s, scales)
        yield x


def trapezium(ends: EndsOf[A], x: A, t: float, s: float, scales: Schedule) -> A:
    """One step of `edm_heun`, from t to s, written without dividing x by alpha."""
    now, after = scales(t), scales(s)
    data, noise = ends(x, t)
    x = straight(x, data, now, after)
    if not math.isfinite(clock(after) - clock(now)):
        return x
    _, noise_s = ends(x, s)
    half = 0.5 * (float(after.sigma) - float(after.alpha) * float(now.sigma) / float(now.alpha))
    return bend(x, noise, [noise_s], [half])
