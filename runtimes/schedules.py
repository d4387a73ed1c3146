"""x_t = alpha(t) * data + sigma(t) * noise, with t = 0 at the noise and t = 1 at the data.

A schedule is a plain function `t -> Scales(alpha, sigma, d_alpha, d_sigma)` in float64 on the host,
for a float or an array of times in [0, 1]; `d_` marks the derivative with respect to t. To add one,
write the function and add its line to `SCHEDULES`: it is then trained with, exported and tested.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Times = float | NDArray[np.float64]


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


def vp(t: Times) -> Scales:
    """log alpha = -(19.9 u^2 / 4 + 0.1 u / 2), sigma^2 = 1 - alpha^2, u = 1 - t: linear-beta diffusion.

    beta(u) = 0.1 + 19.9 u (Song et al. 2021, eqs. 32-33). Its noise end keeps alpha(0) = 6.6e-3
    rather than 0, and its rate d_sigma is -infinity at t = 1.
    """
    u = 1.0 - np.asarray(t, dtype=np.float64)
    log_alpha = -(0.25 * 19.9 * u * u + 0.5 * 0.1 * u)
    alpha, sigma = np.exp(log_alpha), np.sqrt(-np.expm1(2.0 * log_alpha))
    d_alpha = 0.5 * (0.1 + 19.9 * u) * alpha
    with np.errstate(divide="ignore"):
        d_sigma = -alpha * d_alpha / sigma  # from alpha^2 + sigma^2 = 1
    return Scales(alpha, sigma, d_alpha, d_sigma)


def time_of_ratio(schedule: Schedule, ratio: Times) -> NDArray[np.float64]:
    """The t with alpha(t) / sigma(t) = ratio in [0, inf], clipped to what the schedule reaches.

    alpha / sigma increases in t, so 64 halvings of [0, 1] pin t to the last bit.
    """
    ratio = np.minimum(np.asarray(ratio, dtype=np.float64), 1e300)  # infinity * 0 is not a number
    low, high = np.zeros_like(ratio), np.ones_like(ratio)
    for _ in range(64):
        middle = 0.5 * (low + high)
        scales = schedule(middle)
        early = scales.alpha < ratio * scales.sigma
        low, high = np.where(early, middle, low), np.where(early, high, middle)
    return high


SCHEDULES: dict[str, Schedule] = {
    "linear": linear,
    "cosine": cosine,
    "vp": vp,
}
