"""x_t = alpha(t) * data + sigma(t) * noise, with t = 0 at the noise and t = 1 at the data.

A schedule is a plain function `t -> Scales(alpha, sigma, d_alpha, d_sigma)` in float64 on the host,
for a float or an array of times in [0, 1]; `d_` marks the derivative with respect to t. Numbers after t
have defaults, and `named` fills them in: "polynomial" is "polynomial(2)". To add a schedule, write the
function and add its line to `SCHEDULES`: it is then trained with, exported and tested.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .choices import named_function

Times = float | NDArray[np.float64]
MOST_BETAS = 10_000
SIXTEENTHS = np.arange(1, 16) / 16


class Scales(NamedTuple):
    """alpha, sigma and their rates d_alpha, d_sigma at one time (floats) or many (float64 arrays)."""

    alpha: Times
    sigma: Times
    d_alpha: Times
    d_sigma: Times


Schedule = Callable[[Times], Scales]


def linear(t: Times) -> Scales:
    """alpha = t, sigma = 1 - t: straight paths (Lipman et al. 2023, eq. 20 with sigma_min = 0)."""
    one = np.ones_like(t, dtype=np.float64)
    return Scales(t * one, 1.0 - t * one, one, -one)


def cosine(t: Times) -> Scales:
    """alpha = sin(pi t / 2), sigma = cos(pi t / 2): a quarter circle (Albergo et al. 2023)."""
    angle = 0.5 * np.pi * np.asarray(t, dtype=np.float64)
    # sin(pi/2 - angle) is exactly 0 at t = 1, where cos(pi/2) is 6e-17
    alpha, sigma = np.sin(angle), np.sin(0.5 * np.pi - angle)
    return Scales(alpha, sigma, 0.5 * np.pi * sigma, -0.5 * np.pi * alpha)


def polynomial(t: Times, n: float = 2.0) -> Scales:
    """alpha = t^n, sigma = 1 - t^n: the linear path, at another pace (Lipman et al. 2024).

    Its rates are 0 at t = 0 for n > 1 and infinite for n < 1.
    """
    t = np.asarray(t, dtype=np.float64)
    with np.errstate(divide="ignore"):
        rate = n * t ** (n - 1.0)
        return Scales(t**n, -np.expm1(n * np.log(t)), rate, -rate)


def shifted(t: Times, shift: float = 3.0) -> Scales:
    """alpha = t / m, sigma = shift (1 - t) / m, m = t + shift (1 - t): linear, later for shift > 1.

    Esser et al. 2024, eq. 23, with their time 1 - t; `resolution_shift` says which shift.
    """
    t = np.asarray(t, dtype=np.float64)
    m = t + shift * (1.0 - t)
    rate = shift / (m * m)
    return Scales(t / m, shift * (1.0 - t) / m, rate, -rate)


def edm(t: Times) -> Scales:
    """alpha = 1, sigma = 0.002 ((1 + k u)^7 - 1), k = 40001^(1/7) - 1, u = 1 - t: from 80 to exactly 0.

    Karras et al. 2022, eq. 5 as a path: sigma + 0.002 falls evenly in its seventh root, from 80.002 to
    0.002. Taking the 0.002 off leaves d_sigma = -0.05 at the data, where 80 u^7 would have a zero rate.
    """
    u = 1.0 - np.asarray(t, dtype=np.float64)
    k = 40001.0 ** (1 / 7) - 1.0
    log = np.log1p(k * u)
    return Scales(
        np.ones_like(u),
        0.002 * np.expm1(7.0 * log),
        np.zeros_like(u),
        -0.014 * k * np.exp(6.0 * log),
    )


def vp(t: Times) -> Scales:
    """log alpha = -(19.9 u^2 / 4 + 0.1 u / 2), sigma^2 = 1 - alpha^2, u = 1 - t: linear-beta diffusion.

    beta(u) = 0.1 + 19.9 u (Song et al. 2021, eqs. 32-33). Its noise end keeps alpha(0) = 6.6e-3
    rather than 0, and its rate d_sigma is -infinity at t = 1.
    """
    u = 1.0 - np.asarray(t, dtype=np.float64)
    return _preserving(-(0.25 * 19.9 * u * u + 0.5 * 0.1 * u), 0.5 * (0.1 + 19.9 * u))


def discrete(t: Times, *betas: float) -> Scales:
    """alpha^2 = product of (1 - beta_k) over k <= n, sigma^2 = 1 - alpha^2, n = (1 - t) len(betas).

    The path of a checkpoint trained on a table, of DDPM's own where none is given: 1000 betas, evenly
    from 1e-4 to 0.02 (Ho et al. 2020, section 4). Such a network counts from 0: its index is n - 1.
    As a text: f"discrete({','.join(map(str, betas))})".
    Between whole n, log alpha^2 is a cubic spline, so that rates and their slopes are continuous too.
    """
    return _interpolated(t, _table(betas) if betas else _even_table(1e-4, 0.02, 1000.0, 1.0))


def stable_diffusion(
    t: Times, first: float = 0.00085, last: float = 0.012, count: float = 1000.0
) -> Scales:
    """`discrete` with `count` betas whose square roots rise evenly ("scaled linear").

    Rombach et al. 2022: the defaults are those of Stable Diffusion 1 and 2; alpha(0) is 0.068.
    """
    return _interpolated(t, _even_table(first, last, count, 0.5))


class Table(NamedTuple):
    """log alpha^2 at n = 0, 1, ..., N and its slopes there."""

    values: NDArray[np.float64]
    slopes: NDArray[np.float64]


@lru_cache(maxsize=16)
def _table(betas: tuple[float, ...]) -> Table:
    if not 2 <= len(betas) <= MOST_BETAS or not all(0.0 < beta < 1.0 for beta in betas):
        raise ValueError(
            f"betas: expected 2 to {MOST_BETAS} numbers between 0 and 1, got {len(betas)} "
            f"from {min(betas):g} to {max(betas):g}; give the table that the network was trained on"
        )
    steps = np.log1p(-np.asarray(betas))
    sums = steps[:-1] + steps[1:]
    slopes = np.array(
        [2.0 * steps[0] - 0.5 * sums[0], *(0.5 * sums), 2.0 * steps[-1] - 0.5 * sums[-1]]
    )
    for _ in range(60):  # second derivatives without jumps; each round halves the error
        slopes[1:-1] = 0.25 * (3.0 * sums - slopes[:-2] - slopes[2:])
    # neither flat nor steeper than three times a neighbouring step: then the cubics fall everywhere
    # (Fritsch & Carlson 1980); smooth tables are not touched by it
    steepest = 3.0 * np.maximum(np.array([steps[0], *steps]), np.array([*steps, steps[-1]]))
    return Table(np.array([0.0, *np.cumsum(steps)]), np.clip(slopes, steepest, 0.01 * steepest))


@lru_cache(maxsize=16)
def _even_table(first: float, last: float, count: float, power: float) -> Table:
    """That of `count` betas from first to last whose `power`-th powers are evenly spaced."""
    if not 2 <= count <= MOST_BETAS:
        raise ValueError(
            f"count: expected 2 to {MOST_BETAS} betas, got {count:g}; 1000 is the usual number"
        )
    even = np.linspace(first**power, last**power, int(count))
    return _table(tuple((even ** (1.0 / power)).tolist()))


def _interpolated(t: Times, table: Table) -> Scales:
    """The variance-preserving path along a table: cubic Hermite polynomials in n."""
    last = len(table.values) - 1
    n = last * (1.0 - np.asarray(t, dtype=np.float64))
    k = np.minimum(n.astype(np.int64), last - 1)
    f = n - k
    y0, m0, m1 = table.values[k], table.slopes[k], table.slopes[k + 1]
    step = table.values[k + 1] - y0
    value = y0 + f * (m0 * (1.0 - f) ** 2 + f * (step * (3.0 - 2.0 * f) - m1 * (1.0 - f)))
    slope = (
        m0 * (1.0 - f) * (1.0 - 3.0 * f) + 6.0 * step * f * (1.0 - f) + m1 * f * (3.0 * f - 2.0)
    )
    return _preserving(0.5 * value, -0.5 * last * slope)


def _preserving(log_alpha: Times, rate: Times) -> Scales:
    """alpha and sigma with alpha^2 + sigma^2 = 1, from log alpha and its rate in t."""
    alpha, sigma = np.exp(log_alpha), np.sqrt(-np.expm1(2.0 * log_alpha))
    d_alpha = rate * alpha
    with np.errstate(divide="ignore"):
        return Scales(alpha, sigma, d_alpha, -alpha * d_alpha / sigma)


def resolution_shift(size: float, base: float) -> float:
    """shift = sqrt(size / base), both in pixels or tokens: the shift for data `size` large.

    Esser et al. 2024, eq. 23: a shift of 1 suits `base`, and more pixels hide under the same noise less.
    """
    return math.sqrt(size / base)


def flux_shift(tokens: float) -> float:
    """shift = exp(mu), mu a line through 0.5 at 256 tokens and 1.15 at 4096: what Flux samples with."""
    return math.exp(0.5 + (1.15 - 0.5) * (tokens - 256.0) / (4096.0 - 256.0))


def time_of_ratio(schedule: Schedule, ratio: Times) -> NDArray[np.float64]:
    """The t with alpha(t) / sigma(t) = ratio in [0, inf], clipped to what the schedule reaches.

    alpha / sigma increases in t: each round looks at 15 times at once (a call on an array costs little
    more than on a number) and keeps the sixteenth of [low, high] that holds t; 16 pin its last bit.
    """
    ratio = np.minimum(np.asarray(ratio, dtype=np.float64), 1e300)[..., None]  # infinity * 0: nan
    low, high = np.zeros_like(ratio), np.ones_like(ratio)
    for _ in range(16):
        width = high - low
        scales = schedule(low + width * SIXTEENTHS)
        early = (scales.alpha < ratio * scales.sigma).sum(axis=-1, keepdims=True)
        low, high = low + width * (early / 16), low + width * ((early + 1) / 16)
    return high[..., 0]


def named(text: str) -> Schedule:
    """The schedule of that name, with its own numbers where some follow: "vp", "polynomial(3)".

    Raises ValueError for an unknown name, and for numbers with which it is no path from noise to data.
    """
    rule: Schedule = named_function("schedule", text, SCHEDULES)
    if text not in SCHEDULES:
        with np.errstate(all="ignore"):
            alpha, sigma, *_ = rule(np.linspace(0.0, 1.0, 257))
            steps = np.diff(alpha), -np.diff(sigma), np.diff(alpha / (alpha + sigma))
        sound = min(steps[0].min(), steps[1].min()) >= 0.0 and steps[2].min() > 0.0
        if not (sound and float(rule(1.0).sigma) == 0.0):
            raise ValueError(
                f"schedule: expected numbers with which alpha rises to 1 and sigma falls to 0, "
                f"got {text[:60]!r}; {text.split('(')[0]!r} alone is the usual choice"
            )
    return rule


SCHEDULES: dict[str, Callable[..., Scales]] = {
    "linear": linear,
    "cosine": cosine,
    "vp": vp,
    "discrete": discrete,
    "stable_diffusion": stable_diffusion,
    "edm": edm,
    "polynomial": polynomial,
    "shifted": shifted,
}
