"""prediction = c * data + d * noise: one row (c, d) per thing a network can be trained to output.

With x = alpha * data + sigma * noise a row closes a 2x2 system,

    | alpha  sigma | | data  |   | x          |
    |   c      d   | | noise | = | prediction |,        determinant = alpha d - sigma c,

so the row gives the training target and, solved, the two ends that a prediction implies. The score
is -noise / sigma and the velocity d_alpha * data + d_sigma * noise: every conversion goes through
the ends. To add a prediction, write its row and its line in `PREDICTIONS`. The network is shown x itself,
or x times the factor that stands beside the row in `INPUTS`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .schedules import Scales, Times

Row = tuple[Times, Times]
SIGMA_DATA = 0.5  # deviation of the data that `edm` is scaled for: images in [-1, 1]


class Ends(NamedTuple):
    """data = data_x * x + data_p * prediction,  noise = noise_x * x + noise_p * prediction.

    prediction = network(input * x, t).
    """

    data_x: float
    data_p: float
    noise_x: float
    noise_p: float
    input: float


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


def edm(scales: Scales) -> Row:
    """edm = (sigma / (w q)) data - (w alpha / q) noise, q^2 = sigma^2 + w^2 alpha^2, w = SIGMA_DATA.

    What F must be in data = c_skip y + c_out F with y = x / alpha and the c_skip and c_out of Karras et
    al. 2022, table 1, at the noise level sigma / alpha: of unit variance, and it fixes both ends always.
    """
    q = _spread(scales)
    return scales.sigma / (SIGMA_DATA * q), -SIGMA_DATA * scales.alpha / q


def edm_input(scales: Scales) -> Times:
    """1 / q: x has unit variance for the network (c_in y in Karras et al. 2022, table 1)."""
    return 1.0 / _spread(scales)


def _spread(scales: Scales) -> Times:
    return np.hypot(scales.sigma, SIGMA_DATA * scales.alpha)


def input_scale(kind: str, scales: Scales) -> Times:
    """What x is multiplied with before the network sees it."""
    return INPUTS[kind](scales) if kind in INPUTS else np.ones_like(scales.alpha)


def is_singular(kind: str, scales: Scales) -> bool:
    """Whether the prediction leaves an end open at this time: D = alpha d - sigma c is 0 or inf.

    D is measured against the sizes of the two rows, as the sine of the angle between them.
    """
    c, d = (float(value) for value in PREDICTIONS[kind](scales))
    alpha, sigma = float(scales.alpha), float(scales.sigma)
    size = math.hypot(c, d) * math.hypot(alpha, sigma)
    return not (math.isfinite(size) and abs(alpha * d - sigma * c) > 1e-12 * size)


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
    return Ends(
        d / determinant,
        -sigma / determinant,
        -c / determinant,
        alpha / determinant,
        float(input_scale(kind, scales)),
    )


PREDICTIONS: dict[str, Callable[[Scales], Row]] = {
    "velocity": velocity,
    "noise": noise,
    "data": data,
    "score": score,
    "v": v,
    "edm": edm,
}
INPUTS: dict[str, Callable[[Scales], Times]] = {"edm": edm_input}
