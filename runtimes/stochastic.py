"""Noisy solvers: the same marginals as the ODE, with fresh noise at every step.

For any g(t) >= 0 the equation dx = [velocity + g^2 score / 2] dt + g dW has at every t the same law as
the ODE dx/dt = velocity (Song et al. 2021, eq. 13; Ma et al. 2024, eq. 5). These generators follow it
in the path's own variables. They are given

    ends(x, t) -> (data, noise), the two ends that the network's prediction implies at (x, t),
    scales(t)  -> alpha, sigma, d_alpha, d_sigma as floats,
    draw(k)    -> a standard normal state for step k, called only when it is used,

and the strength eta >= 0: 0 is the deterministic limit, 1 the usual choice.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from .schedules import Scales

if TYPE_CHECKING:
    from .solvers import Array

A = TypeVar("A", bound="Array")
EndsOf = Callable[[A, float], tuple[A, A]]
Draw = Callable[[int], A]


def euler_maruyama(
    ends: EndsOf[A],
    x: A,
    grid: Sequence[float],
    scales: Callable[[float], Scales],
    draw: Draw[A],
    eta: float = 1.0,
) -> Iterator[A]:
    """x <- x + h (velocity - eta^2 noise) + eta sqrt(2 sigma h) z, noise-free onto sigma = 0.

    The diffusion is g^2 = 2 eta^2 sigma (Ma et al. 2024, table 1, w = sigma): with score =
    -noise / sigma the correction g^2 score / 2 is -eta^2 noise, finite at both ends.
    """
    for k, (t, s) in enumerate(pairwise(grid)):
        h = s - t
        now = scales(t)
        data, noise = ends(x, t)
        x = x + data * (h * float(now.d_alpha)) + noise * (h * (float(now.d_sigma) - eta**2))
        spread = eta * math.sqrt(2.0 * float(now.sigma) * h)
        if spread > 0.0 and float(scales(s).sigma) > 0.0:
            x = x + draw(k) * spread
        yield x


def ancestral(
    ends: EndsOf[A],
    x: A,
    grid: Sequence[float],
    scales: Callable[[float], Scales],
    draw: Draw[A],
    eta: float = 1.0,
) -> Iterator[A]:
    """x <- alpha_s data + sqrt(sigma_s^2 - n^2) noise + n z, n = sigma_s min(1, eta sqrt(1 - q^2)).

    q = alpha_t sigma_s / (alpha_s sigma_t); DDPM's posterior step at eta = 1, DDIM at eta = 0
    (Song, Meng & Ermon 2021, eqs. 12 and 16, for any schedule).
    """
    for k, (t, s) in enumerate(pairwise(grid)):
        alpha_t, sigma_t, alpha_s, sigma_s = (
            float(value) for now in (scales(t), scales(s)) for value in now[:2]
        )
        data, noise = ends(x, t)
        q = (alpha_t * sigma_s) / (alpha_s * sigma_t)
        # above sigma_s no noise of the network's is left to replace
        n = sigma_s * min(eta * math.sqrt(max(1.0 - q * q, 0.0)), 1.0)
        x = data * alpha_s + noise * math.sqrt(max(sigma_s**2 - n**2, 0.0))
        if n > 0.0:
            x = x + draw(k) * n
        yield x
