"""Points in the plane, each set one formula: `f(n, rng) -> float32 (n, 2)`.

Mean zero and, averaged over the two axes, unit variance, so that noise N(0, I) needs no rescaling.
The Gaussian mixture keeps its own scale instead and knows its density exactly.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]

# Means about 0.7 N(0, I) with variance 0.15: the modes overlap, so that the field is smooth enough
# to measure the order of a solver on it, and curved enough to tell the orders apart.
MEANS = np.array(
    [[-0.8, 0.5], [0.3, 1.1], [0.9, -0.2], [-0.4, -0.7], [0.1, 0.0], [0.7, -1.0], [-0.8, -0.1]]
)
WEIGHTS = np.array([0.1, 0.15, 0.2, 0.15, 0.1, 0.1, 0.2])
VARIANCE = 0.15


def two_moons(n: int, rng: np.random.Generator) -> Points:
    """+-sqrt 2 ((cos a, sin a) - (1/2, 1/4)) + N(0, 0.07^2), a ~ U(0, pi).

    The sign is fair: it turns the arc by 180 degrees about (1/2, 1/4), which is the second moon.
    """
    angle = rng.uniform(0, np.pi, n)
    arc = np.stack([np.cos(angle), np.sin(angle)], axis=1) - (0.5, 0.25)
    points = np.sqrt(2) * arc * _signs(n, rng)
    return _float32(points + 0.07 * rng.standard_normal((n, 2)))


def eight_gaussians(n: int, rng: np.random.Generator) -> Points:
    """r (cos k pi/4, sin k pi/4) + 0.1 r N(0, I), k = 0..7; r^2 (1/2 + 0.01) = 1."""
    radius = 0.51**-0.5
    angle = rng.integers(0, 8, n) * (np.pi / 4)
    centres = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _float32(radius * (centres + 0.1 * rng.standard_normal((n, 2))))


def checkerboard(n: int, rng: np.random.Generator) -> Points:
    """Uniform on the squares (i, j), i + j even, of a 4 x 4 board on [-sqrt 3, sqrt 3]^2."""
    across = rng.uniform(0, 4, n)
    up = rng.uniform(0, 1, n) + 2 * rng.integers(0, 2, n) + np.floor(across) % 2
    # each axis is uniform on its own, so its variance is (2 sqrt 3)^2 / 12 = 1
    return _float32((np.stack([across, up], axis=1) - 2) * (np.sqrt(3) / 2))


def spiral(n: int, rng: np.random.Generator) -> Points:
    """+-2 a / (3 pi) (cos a, sin a) + N(0, 0.04^2), a = 3 pi sqrt(u), u ~ U(0, 1): two arms."""
    # sqrt: as many points per turn as the turn is long; two arms make the mean zero
    angle = 3 * np.pi * np.sqrt(rng.uniform(0, 1, n))
    arm = 2 * angle / (3 * np.pi) * np.stack([np.cos(angle), np.sin(angle)])
    return _float32(arm.T * _signs(n, rng) + 0.04 * rng.standard_normal((n, 2)))


def gaussian_mixture(n: int, rng: np.random.Generator) -> Points:
    """sum_k w_k N(m_k, 0.15 I) with w = WEIGHTS and m = MEANS; `log_density` is its logarithm."""
    component = rng.choice(len(WEIGHTS), n, p=WEIGHTS)
    return _float32(MEANS[component] + np.sqrt(VARIANCE) * rng.standard_normal((n, 2)))


def log_density(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """log sum_k w_k exp(-|x - m_k|^2 / (2 v)) / (2 pi v) of "gaussian-mixture", float64 (n,).

    x: (n, 2).
    """
    offsets = np.asarray(x, dtype=np.float64)[:, None, :] - MEANS  # (n, k, 2)
    logs = np.log(WEIGHTS / (2 * np.pi * VARIANCE)) - (offsets**2).sum(-1) / (2 * VARIANCE)
    return np.logaddexp.reduce(logs, axis=1)


def _signs(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """-1 or 1 with equal chance, (n, 1)."""
    return 2.0 * rng.integers(0, 2, (n, 1)) - 1


def _float32(points: NDArray[np.float64]) -> Points:
    """Drawn in float64, handed over in float32 like every array here."""
    return np.ascontiguousarray(points, dtype=np.float32)


TOYS: dict[str, Callable[[int, np.random.Generator], Points]] = {
    "two-moons": two_moons,
    "eight-gaussians": eight_gaussians,
    "checkerboard": checkerboard,
    "spiral": spiral,
    "gaussian-mixture": gaussian_mixture,
}
