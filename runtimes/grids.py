"""0 = t_0 < t_1 < ... < t_steps = 1: where a solver looks at the field.

A grid is a plain function `(steps, schedule) -> float64 (steps + 1,)` that ends at 1. Numbers after the
schedule have defaults, and `named` fills them in: "karras" is "karras(7)". To add one, write the function
and its line in `GRIDS`. Predictions that are singular at an end are dealt with in `trim`, and only there.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from . import predictions
from .choices import named_function, quoted
from .schedules import Schedule, time_of_ratio

Grid = NDArray[np.float64]
Rule = Callable[[int, Schedule], Grid]

# How far from a singular end the grid stops. A noise prediction near t = 0 fixes the data only up to
# sigma / alpha times its own error, so that margin is the wider one; the other leaves 1e-3 of noise.
START, END = 1e-2, 1e-3
MOST_STEPS = 10_000


def uniform(steps: int, schedule: Schedule) -> Grid:
    """t_k = k / steps."""
    return np.linspace(0.0, 1.0, steps + 1)


def shifted(steps: int, schedule: Schedule, shift: float = 3.0) -> Grid:
    """t_k = u / (u + shift (1 - u)), u = k / steps: for shift > 1 more steps near the noise.

    Esser et al. 2024, eq. 23 with their time 1 - t and shift = sqrt(m / n); see
    `schedules.resolution_shift`.
    """
    u = np.linspace(0.0, 1.0, steps + 1)
    return u / (u + shift * (1.0 - u))


def cosine(steps: int, schedule: Schedule) -> Grid:
    """The angle atan(alpha / sigma) rises evenly from its value at t = 0 to pi / 2.

    The noise levels of the cosine schedule, on any schedule (Nichol & Dhariwal 2021, eq. 17).
    """
    first = schedule(0.0)
    low = float(np.arctan2(first.alpha, first.sigma))
    angles = low + (0.5 * np.pi - low) * np.linspace(0.0, 1.0, steps + 1)
    return np.array([0.0, *time_of_ratio(schedule, np.tan(angles[1:-1])), 1.0])


def karras(steps: int, schedule: Schedule, rho: float = 7.0) -> Grid:
    """(sigma / alpha)^(1/rho) falls evenly from 80^(1/rho) to 0.002^(1/rho), then t = 1.

    Karras et al. 2022, eq. 5; the first time is set to 0. A schedule that starts below 80 starts there.
    """
    u = np.linspace(0.0, 1.0, steps) if steps > 1 else np.zeros(1)
    top, bottom = _most_noise(schedule) ** (1.0 / rho), np.float64(0.002) ** (1.0 / rho)
    ratios = (top + u * (bottom - top)) ** rho
    return np.array([0.0, *time_of_ratio(schedule, 1.0 / ratios)[1:], 1.0])


def log_snr(steps: int, schedule: Schedule) -> Grid:
    """log(alpha / sigma) rises evenly from -log(80) to log(500), ends set to 0 and 1 (Lu et al. 2022a).

    A schedule that starts above -log(80) starts there.
    """
    u = np.linspace(0.0, 1.0, steps + 1)
    top = _most_noise(schedule)
    ratios = np.exp(-np.log(top) + u * np.log(top * 500.0))
    return np.array([0.0, *time_of_ratio(schedule, ratios)[1:-1], 1.0])


def _most_noise(schedule: Schedule) -> np.float64:
    """sigma / alpha at t = 0, or 80 if that is less."""
    first = schedule(0.0)
    return np.float64(min(80.0, float(first.sigma) / max(float(first.alpha), 1e-300)))


def beta(steps: int, schedule: Schedule, a: float = 0.6, b: float = 0.6) -> Grid:
    """P(T < t_k) = k / steps for T ~ Beta(a, b): more steps near both ends for a = b < 1.

    Lee et al. 2024, "Beta Sampling is All You Need"; a shapes the noise end, b the data end.
    """
    if not max(a, b) <= 10.0:
        raise ValueError(f"grid: expected beta(a, b) up to 10, got {a:g} and {b:g}; 0.6 is usual")
    whole = math.exp(math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b))
    u = np.linspace(0.0, 1.0, steps + 1)
    middle = _beta_integral(np.array(0.5), a, b) / whole
    early = _beta_quantile(np.minimum(u, middle) * whole, a, b)
    late = _beta_quantile(np.minimum(u[::-1], 1.0 - middle) * whole, b, a)
    return np.where(u < middle, early, 1.0 - late)


def _beta_integral(x: Grid, a: float, b: float) -> Grid:
    """Integral of y^(a-1) (1 - y)^(b-1) from 0 to x <= 1/2, by the binomial series of (1 - y)^(b-1)."""
    n = np.arange(80.0)  # its terms fall like 2^-n
    binomials = np.cumprod([1.0, *(1.0 - b / n[1:])])
    area: Grid = x**a * (x[..., None] ** n @ (binomials / (a + n)))
    return area


def _beta_quantile(area: Grid, a: float, b: float) -> Grid:
    """The x in [0, 1/2] whose integral is `area`, by 60 halvings of x^a: evenly fine also near x = 0."""
    low, high = np.zeros_like(area), np.full_like(area, 0.5**a)
    for _ in range(60):
        middle = 0.5 * (low + high)
        early = _beta_integral(middle ** (1.0 / a), a, b) < area
        low, high = np.where(early, middle, low), np.where(early, high, middle)
    return np.where(area > 0.0, high, 0.0) ** (1.0 / a)


def trailing(steps: int, schedule: Schedule, count: float = 1000.0) -> Grid:
    """t_k = 1 - round(count (1 - k / steps)) / count: whole indices of a table, from the noisiest.

    Lin et al. 2023, table 2: their index is count (1 - t) - 1 (see `schedules.discrete`); then t = 1.
    """
    return 1.0 - np.rint(count * (1.0 - np.arange(steps + 1) / steps)) / count


def leading(steps: int, schedule: Schedule, count: float = 1000.0) -> Grid:
    """Indices 0, j, 2j, ..., (steps - 1) j backwards with j = count // steps, then t = 1.

    Lin et al. 2023, table 2: it does not start at t = 0, which they show to be a flaw; it is here for
    checkpoints that are judged with it.
    """
    indices = np.arange(steps)[::-1] * (count // steps)
    return np.array([*(1.0 - (indices + 1.0) / count), 1.0])


def check_steps(steps: object) -> int:
    """`steps`, if it is a whole number from 1 to 10,000; else ValueError."""
    whole = isinstance(steps, int | np.integer) and not isinstance(steps, bool)
    if not whole or not 1 <= steps <= MOST_STEPS:  # type: ignore[operator]
        raise ValueError(
            f"steps: expected a whole number from 1 to {MOST_STEPS}, got {quoted(steps)}; 20 is a good start"
        )
    return int(steps)  # type: ignore[call-overload, no-any-return]


def make(grid: str | Sequence[float] | Grid, steps: int | None, schedule: Schedule) -> Grid:
    """The grid of that name with so many steps, or a user's own times, checked.

    Raises ValueError unless 1 <= steps <= 10,000, or for own times that are not strictly
    increasing numbers within [0, 1].
    """
    if isinstance(grid, str):
        rule, steps = named(grid), check_steps(steps)
        with np.errstate(all="ignore"):
            times = rule(steps, schedule)
        if not (np.all(np.diff(times) > 0) and times[0] >= 0.0 and times[-1] == 1.0):
            raise ValueError(
                f"grid: expected strictly increasing times within [0, 1], got others from {grid[:60]!r} "
                f"with {steps} steps; take fewer steps or other numbers"
            )
        return times
    try:
        times = np.asarray(grid, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"grid: expected a name or a list of times, got {quoted(grid)}; 0 is noise, 1 is data"
        ) from None
    if times.ndim != 1 or not 2 <= len(times) <= MOST_STEPS + 1:
        raise ValueError(
            f"grid: expected a list of 2 to {MOST_STEPS + 1} times, got shape {times.shape}; "
            "give the times from noise to data"
        )
    if not (np.all(np.diff(times) > 0) and times[0] >= 0.0 and times[-1] <= 1.0):
        raise ValueError(
            f"grid: expected strictly increasing times within [0, 1], got {quoted(times.tolist())}; "
            "0 is noise, 1 is data"
        )
    return times


def trim(times: Grid, schedule: Schedule, prediction: str) -> Grid:
    """The grid squeezed into [0.01, 1] or [0, 0.999] where the prediction is singular at that end.

    Further in where a schedule lingers at its end: there alpha / sigma is at least 0.01, at most 1000. A
    grid whose ends are not singular, or that already keeps that far off, comes back unchanged.
    """
    first, last = float(times[0]), float(times[-1])
    lowest, highest = 0.0, 1.0
    if predictions.is_singular(prediction, schedule(0.0)):
        lowest = max(START, float(time_of_ratio(schedule, START)))
    if predictions.is_singular(prediction, schedule(1.0)):
        highest = min(1.0 - END, float(time_of_ratio(schedule, 1.0 / END)))
    low, high = max(first, lowest), min(last, highest)
    if (low, high) == (first, last):
        return times
    if low >= high:
        raise ValueError(
            f"grid: expected times between {lowest:.4g} and {highest:.4g} for prediction {prediction!r}, "
            f"got {first} to {last}; it is singular at the ends"
        )
    return low + (high - low) * (times - first) / (last - first)


def named(text: str) -> Rule:
    """The grid of that name, with its own numbers where some follow: "uniform", "karras(5)"."""
    rule: Rule = named_function("grid", text, GRIDS)
    return rule


GRIDS: dict[str, Callable[..., Grid]] = {
    "uniform": uniform,
    "shifted": shifted,
    "karras": karras,
    "log_snr": log_snr,
    "cosine": cosine,
    "beta": beta,
    "trailing": trailing,
    "leading": leading,
}
