"""0 = t_0 < t_1 < ... < t_steps = 1: where a solver looks at the field.

A grid is a plain function `(steps, schedule) -> float64 (steps + 1,)` from 0 to 1. To add one, write
the function and its line in `GRIDS`. Predictions that are singular at an end are dealt with in
`trim`, and only there.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from . import predictions
from .choices import choose, quoted
from .schedules import Schedule, time_of_ratio

Grid = NDArray[np.float64]

# How far from a singular end the grid stops. A noise prediction near t = 0 fixes the data only up to
# sigma / alpha times its own error, so that margin is the wider one; the other leaves 1e-3 of noise.
START, END = 1e-2, 1e-3
MOST_STEPS = 10_000


def uniform(steps: int, schedule: Schedule) -> Grid:
    """t_k = k / steps."""
    return np.linspace(0.0, 1.0, steps + 1)


def shifted(steps: int, schedule: Schedule) -> Grid:
    """t_k = u / (u + shift (1 - u)), u = k / steps, shift = 3: more steps near the noise.

    Esser et al. 2024, eq. 23 with their time 1 - t and shift = sqrt(m / n) = 3.
    """
    u = np.linspace(0.0, 1.0, steps + 1)
    return u / (u + 3.0 * (1.0 - u))


def karras(steps: int, schedule: Schedule) -> Grid:
    """(sigma / alpha)^(1/7) falls evenly from 80^(1/7) to 0.002^(1/7), then t = 1.

    Karras et al. 2022, eq. 5 with rho = 7; the first time is set to 0.
    """
    u = np.linspace(0.0, 1.0, steps) if steps > 1 else np.zeros(1)
    ratios = (80.0 ** (1 / 7) + u * (0.002 ** (1 / 7) - 80.0 ** (1 / 7))) ** 7.0
    return np.array([0.0, *time_of_ratio(schedule, 1.0 / ratios)[1:], 1.0])


def log_snr(steps: int, schedule: Schedule) -> Grid:
    """log(alpha / sigma) rises evenly from -log(80) to log(500), ends set to 0 and 1 (Lu et al. 2022)."""
    u = np.linspace(0.0, 1.0, steps + 1)
    ratios = np.exp(-np.log(80.0) + u * np.log(80.0 * 500.0))
    return np.array([0.0, *time_of_ratio(schedule, ratios)[1:-1], 1.0])


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
        return GRIDS[choose("grid", grid, GRIDS)](check_steps(steps), schedule)
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

    A grid whose ends are not singular, or that already keeps that far off, comes back unchanged.
    """
    first, last = float(times[0]), float(times[-1])
    low = max(first, START) if predictions.is_singular(prediction, schedule(0.0)) else first
    high = min(last, 1.0 - END) if predictions.is_singular(prediction, schedule(1.0)) else last
    if (low, high) == (first, last):
        return times
    if low >= high:
        raise ValueError(
            f"grid: expected times between {START} and {1.0 - END} for prediction {prediction!r}, "
            f"got {first} to {last}; it is singular at the ends"
        )
    return low + (high - low) * (times - first) / (last - first)


GRIDS: dict[str, Callable[[int, Schedule], Grid]] = {
    "uniform": uniform,
    "shifted": shifted,
    "karras": karras,
    "log_snr": log_snr,
}
