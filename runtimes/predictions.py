"""prediction = c * data + d * noise: one row (c, d) per thing a network can be trained to output.

With x = alpha * data + sigma * noise a row closes a 2x2 system,

    | alpha  sigma | | data  |   | x          |
    |   c      d   | | noise | = | prediction |,        determinant = alpha d - sigma c,

so the row gives the training target and, solved, the two ends that a prediction implies. The score
is -noise / sigma and the velocity d_alpha * data + d_sigma * noise: every conversion goes through
the ends. To add a prediction, write its row and its line in `PREDICTIONS`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .schedules import Scales, Times

Row = tuple[Times, Times]


class Ends(NamedTuple):
    """data = data_x * x + data_p * prediction,  noise = noise_x * x + noise_p * prediction."""

    data_x: float
    data_p: float
    noise_x: float
    noise_p: float


def velocity(scales: Scales) -> Row:
    """velocity = d_alpha * data + d_sigma * noise (Lipman et al. 2023, eq. 14)."""
    return scales.d_alpha, scales.d_sigma


def noise(scales: Scales) -> Row:
    """noise = 0 * data + 1 * noise (Ho et al. 2020, eq. 12)."""
    return 0.0 * scales.alpha, 1.0 + 0.0 * scales.alpha


def data(scales: Scales) -> Row:
    """data = 1 * data + 0 * noise: the denoiser, the posterior mean of data given x."""
    return 1.0 + 0.0 * scales.alpha, 0.0 * scales.alpha


def score(scales: Scales) -> Row:
    """score = -noise / sigma (Song et al. 2021, eq. 7; Tweedie)."""
    with np.errstate(divide="ignore"):
        return 0.0 * scales.sigma, -1.0 / np.asarray(scales.sigma)


def v(scales: Scales) -> Row:
    """v = alpha * noise - sigma * data (Salimans & Ho 2022, section 4)."""
    return -scales.sigma, scales.alpha


def is_singular(kind: str, scales: Scales) -> bool:
    """Whether the prediction leaves an end open at this time: D = alpha d - sigma c is 0 or inf."""
    c, d = PREDICTIONS[kind](scales)
    determinant = scales.alpha * d - scales.sigma * c
    return not (np.isfinite(c) and np.isfinite(d) and abs(float(determinant)) > 1e-12)


def ends(kind: str, scales: Scales) -> Ends:
    """data = (d x - sigma p) / D,  noise = (alpha p - c x) / D,  D = alpha d - sigma c, as Python floats.

    Raises ValueError where the prediction is singular: choose times with `grids.trim`.
    """
    if is_singular(kind, scales):
        raise ValueError(
            f"prediction {kind!r}: expected a time where it fixes data and noise, "
            f"got alpha {float(scales.alpha):.3g}, sigma {float(scales.sigma):.3g}; trim the grid"
        )
    c, d = (float(value) for value in PREDICTIONS[kind](scales))
    alpha, sigma = float(scales.alpha), float(scales.sigma)
    determinant = alpha * d - sigma * c
    return Ends(d / determinant, -sigma / determinant, -c / determinant, alpha / determinant)


PREDICTIONS: dict[str, Callable[[Scales], Row]] = {
    "velocity": velocity,
    "noise": noise,
    "data": data,
    "score": score,
    "v": v,
}
