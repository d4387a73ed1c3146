"""y = x / m(t) against a clock r(t): the variables in which a solver takes its straight steps.

Dividing x = alpha * data + sigma * noise by m and differentiating by r gives, for every chart,

    dy/dr = d(alpha/m)/dr * data + d(sigma/m)/dr * noise,

so a chart is a few closed forms: m, r, those two weights, and the way back from r to t. In the
`straight` chart any schedule becomes the linear path, dy/dr = data - noise, finite at both ends;
Euler gives the same samples in the straight, noise and data charts, and that step is DDIM (Song,
Meng & Ermon 2021, eq. 12, eta = 0).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .schedules import Scales, Schedule, time_of_ratio


@dataclass(frozen=True)
class Point:
    """A time t seen in a chart: t, m, the clock r, and dy/dr = on_data * data + on_noise * noise."""

    t: float
    m: float
    r: float
    on_data: float
    on_noise: float


def path(t: float, scales: Scales) -> Point:
    """m = 1, r = t: dx/dt = d_alpha * data + d_sigma * noise, the velocity itself."""
    return Point(t, 1.0, t, float(scales.d_alpha), float(scales.d_sigma))


def straight(t: float, scales: Scales) -> Point:
    """m = alpha + sigma, r = alpha / m: dy/dr = data - noise."""
    m = float(scales.alpha) + float(scales.sigma)
    return Point(t, m, float(scales.alpha) / m, 1.0, -1.0)


def noise(t: float, scales: Scales) -> Point:
    """m = alpha, r = sigma / alpha: dy/dr = noise (Karras et al. 2022, eq. 4), y = data + r noise."""
    return Point(t, float(scales.alpha), float(scales.sigma) / float(scales.alpha), 0.0, 1.0)


def data(t: float, scales: Scales) -> Point:
    """m = sigma, r = alpha / sigma: dy/dr = data."""
    return Point(t, float(scales.sigma), float(scales.alpha) / float(scales.sigma), 1.0, 0.0)


def time_at(chart: str, schedule: Schedule, r: float) -> float:
    """The t at which the chart's clock shows r, within [0, 1]."""
    ratio = CHARTS[chart].ratio
    return r if ratio is None else float(time_of_ratio(schedule, ratio(r)))


def times_at(chart: str, schedule: Schedule, clocks: Sequence[float]) -> list[float]:
    """`time_at` for many clocks at once."""
    ratio = CHARTS[chart].ratio
    if ratio is None:
        return list(clocks)
    times: list[float] = time_of_ratio(schedule, np.array([ratio(r) for r in clocks])).tolist()
    return times


def point_at(chart: str, t: float, scales: Scales) -> Point:
    """The time t seen in that chart. Raises ValueError where the chart divides by 0."""
    try:
        return CHARTS[chart].point(t, scales)
    except ZeroDivisionError:
        raise closed(chart, t) from None


def closed(chart: str, t: float) -> ValueError:
    """What to raise where a chart or its rates are infinite."""
    return ValueError(
        f"chart: expected finite numbers along the grid, got infinity for {chart!r} at t = {t:g}; "
        "use 'straight', or a grid that leaves this end out"
    )


@dataclass(frozen=True)
class Chart:
    """point: (t, scales) -> Point; ratio: its clock r -> alpha / sigma, None where the clock is t."""

    point: Callable[[float, Scales], Point]
    ratio: Callable[[float], float] | None


CHARTS: dict[str, Chart] = {
    "straight": Chart(straight, lambda r: r / (1.0 - r) if r < 1.0 else math.inf),
    "path": Chart(path, None),
    "noise": Chart(noise, lambda r: 1.0 / r if r > 0.0 else math.inf),
    "data": Chart(data, lambda r: r),
}
