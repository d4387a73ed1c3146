"""Noisy solvers: the same marginals as the ODE, with fresh noise along the way.

For any g(t) >= 0 the equation dx = [velocity + g^2 score / 2] dt + g dW has at every t the same law as
the ODE dx/dt = velocity (Song et al. 2021, eq. 13; Ma et al. 2024, section 2). These generators follow
it in the path's own variables. They are given `ends` and `scales` as those in `exponential`,

    draw(k) -> a standard normal state for step k, called only when it is used,

and the strength eta >= 0: 0 is the deterministic limit, 1 the usual choice. No noise is added onto
sigma = 0. Two of them are also given g^2, as a function of scales, which eta^2 multiplies; to add one,
write it and its line in `DIFFUSIONS`. r = sigma / alpha is the noise ratio, infinite where alpha = 0.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from .exponential import EndsOf, trapezium
from .schedules import Scales, Schedule, time_of_ratio

if TYPE_CHECKING:
    from .solvers import Array

A = TypeVar("A", bound="Array")
Draw = Callable[[int], A]
Diffusion = Callable[[Scales], float]


def euler_maruyama(
    ends: EndsOf[A],
    x: A,
    grid: Sequence[float],
    scales: Schedule,
    draw: Draw[A],
    eta: float,
    diffusion: Diffusion,
) -> Iterator[A]:
    """x <- x + h (velocity - eta^2 g^2 / (2 sigma) noise) + eta g sqrt(h) z.

    The correction is g^2 score / 2 with score = -noise / sigma (Kloeden & Platen 1992, section 10.2).
    """
    for k, (t, s) in enumerate(pairwise(grid)):
        h = s - t
        on_data, on_noise, square = _drift(t, scales, eta, diffusion)
        data, noise = ends(x, t)
        x = x + data * (h * on_data) + noise * (h * on_noise)
        spread = eta * math.sqrt(square * h)
        if spread > 0.0 and float(scales(s).sigma) > 0.0:
            x = x + draw(k) * spread
        yield x


def stochastic_heun(
    ends: EndsOf[A],
    x: A,
    grid: Sequence[float],
    scales: Schedule,
    draw: Draw[A],
    eta: float,
    diffusion: Diffusion,
) -> Iterator[A]:
    """x <- x + h (f1 + f2) / 2 + n z, f1 at (x, t), f2 at (x + h f1 + n z, s).

    f is the drift of `euler_maruyama` and n^2 = eta^2 h (g_t^2 + g_s^2) / 2. Weak order 2 because the
    noise is additive (Kloeden & Platen 1992, section 15.1). Onto sigma = 0, where rates may be
    infinite, the step is Euler's without noise: one call.
    """
    for k, (t, s) in enumerate(pairwise(grid)):
        h = s - t
        on_data, on_noise, square = _drift(t, scales, eta, diffusion)
        data, noise = ends(x, t)
        f1 = data * on_data + noise * on_noise
        if float(scales(s).sigma) == 0.0:
            x = x + f1 * h
        else:
            on_data, on_noise, square_after = _drift(s, scales, eta, diffusion)
            spread = eta * math.sqrt(0.5 * h * (square + square_after))
            x = x + draw(k) * spread if spread > 0.0 else x
            data, noise = ends(x + f1 * h, s)
            f2 = data * on_data + noise * on_noise
            x = x + (f1 + f2) * (0.5 * h)
        yield x


def _drift(
    t: float, scales: Schedule, eta: float, diffusion: Diffusion
) -> tuple[float, float, float]:
    """(d_alpha, d_sigma - eta^2 g^2 / (2 sigma), g^2): the drift's weights on data and noise, and g^2."""
    now = scales(t)
    square = float(diffusion(now))
    if not 0.0 <= square < math.inf:
        raise ValueError(
            f"diffusion: expected a finite g^2 >= 0, got {square} at t = {t:g}; "
            "correct it, or leave this time out of the grid"
        )
    on_noise = float(now.d_sigma) - eta**2 * (square / (2.0 * float(now.sigma)))
    return float(now.d_alpha), on_noise, square


def ancestral(
    ends: EndsOf[A],
    x: A,
    grid: Sequence[float],
    scales: Schedule,
    draw: Draw[A],
    eta: float = 1.0,
) -> Iterator[A]:
    """x <- alpha_s data + sqrt(sigma_s^2 - n^2) noise + n z, n = sigma_s min(1, eta sqrt(1 - q^2)).

    q = r_s / r_t; DDPM's posterior step at eta = 1, DDIM at eta = 0 (Song, Meng & Ermon 2021, eqs. 12
    and 16, for any schedule).
    """
    for k, (t, s) in enumerate(pairwise(grid)):
        alpha_s, sigma_s = _levels(s, scales)
        data, noise = ends(x, t)
        q = _fall(t, s, scales)
        # above sigma_s no noise of the network's is left to replace
        n = sigma_s * min(eta * math.sqrt(max(1.0 - q * q, 0.0)), 1.0)
        x = data * alpha_s + noise * math.sqrt(max(sigma_s**2 - n**2, 0.0))
        if n > 0.0:
            x = x + draw(k) * n
        yield x


def sde_dpmpp_2m(
    ends: EndsOf[A],
    x: A,
    grid: Sequence[float],
    scales: Schedule,
    draw: Draw[A],
    eta: float = 1.0,
) -> Iterator[A]:
    """x <- sigma_s/sigma_t p x + alpha_s (1 - p q) (data + h/(2 h_before) (data - data_before)) + n z.

    The clock is log(1 / r), its step h = -log q with q = r_s / r_t; p = q^(eta^2), n = sigma_s
    sqrt(1 - p^2). SDE-DPM-Solver++(2M) at eta = 1, DPM-Solver++(2M) at eta = 0 (Lu et al. 2022b,
    Algorithm 2 and its SDE form). The first step and those of infinite h take data alone.
    """
    before: tuple[A, float] | None = None
    for k, (t, s) in enumerate(pairwise(grid)):
        alpha_s, sigma_s = _levels(s, scales)
        data, _ = ends(x, t)
        q = _fall(t, s, scales)
        h = -math.log(q) if q > 0.0 else math.inf
        p = q ** (eta**2)
        toward = alpha_s * (1.0 - p * q)
        x = x * (sigma_s / float(scales(t).sigma) * p) + data * toward
        if before is not None and before[1] > 0.0 and h < math.inf:
            data_before, h_before = before
            w = toward * 0.5 * h / h_before
            x = x + data * w + data_before * (-w)
        n = sigma_s * math.sqrt(max(1.0 - p * p, 0.0))
        if n > 0.0:
            x = x + draw(k) * n
        before = (data, h)
        yield x


S_CHURN, S_MIN, S_MAX = 40.0, 0.05, 50.0  # Karras et al. 2022, table 5, ImageNet


def edm_churn(
    ends: EndsOf[A],
    x: A,
    grid: Sequence[float],
    scales: Schedule,
    draw: Draw[A],
    eta: float = 1.0,
) -> Iterator[A]:
    """y <- y + (r_s - r) (noise_t + noise_s) / 2 for y = x / alpha, after y <- y + sqrt(r^2 - r_t^2) z.

    r = r_t (1 + min(40 eta / steps, sqrt(2) - 1)) where r_t is within 0.05..50, and at most the r the
    run began with (Karras et al. 2022, Algorithm 2, with S_noise = 1, which keeps the marginals). The
    first step is not lifted: a step's lift is drawn at the end of the one before. From alpha = 0 and
    onto sigma = 0 the step is Euler's: one call.
    """
    steps = len(grid) - 1
    gamma = min(S_CHURN * eta / steps, math.sqrt(2.0) - 1.0)
    lifted, t = x, grid[0]
    for k, s in enumerate(grid[1:]):
        x = trapezium(ends, lifted, t, s, scales)
        lifted, t = x, s
        alpha, sigma = _levels(s, scales)
        if k + 1 < steps and gamma > 0.0 and S_MIN <= sigma / alpha <= S_MAX:
            above = float(time_of_ratio(scales, alpha / sigma / (1.0 + gamma)))
            t = max(above, grid[0])
            alpha_t, sigma_t = _levels(t, scales)
            shrink = alpha_t / alpha
            spread = math.sqrt(max(sigma_t**2 - (shrink * sigma) ** 2, 0.0))
            lifted = x * shrink + draw(k) * spread
        yield x


def langevin(
    ends: EndsOf[A],
    x: A,
    grid: Sequence[float],
    scales: Schedule,
    draw: Draw[A],
    eta: float = 1.0,
) -> Iterator[A]:
    """x <- alpha_s data + sigma_s noise; then x <- x - e sigma_s noise + sigma_s sqrt(1 - (1 - e)^2) z at s.

    DDIM predicts, one Langevin step x + epsilon score + sqrt(2 epsilon) z corrects. Song et al. 2021,
    Alg. 4, take epsilon = 2 (c |z| / |score|)^2; with the ratio's mean, sigma, this is e = epsilon /
    sigma^2 = 2 c^2. A fixed c (theirs is 0.16) leaves c^2 sigma^2 of variance that no number of steps
    removes, so here c^2 = eta^2 (1 - q^2) / 4, q = r_s / r_t: 0.16 where a step lowers the noise ratio by
    5 %. The noise's variance is 2 e less e^2, so that a known data point keeps exactly sigma.
    """
    for k, (t, s) in enumerate(pairwise(grid)):
        alpha_s, sigma_s = _levels(s, scales)
        data, noise = ends(x, t)
        x = data * alpha_s + noise * sigma_s
        q = _fall(t, s, scales)
        e = min(0.5 * eta**2 * (1.0 - q * q), 1.0)  # beyond 1 the step would overshoot
        if e > 0.0 and sigma_s > 0.0:
            _, noise = ends(x, s)
            x = x + noise * (-e * sigma_s) + draw(k) * (sigma_s * math.sqrt(e * (2.0 - e)))
        yield x


def _levels(t: float, scales: Schedule) -> tuple[float, float]:
    """alpha and sigma at t."""
    now = scales(t)
    return float(now.alpha), float(now.sigma)


def _fall(t: float, s: float, scales: Schedule) -> float:
    """r_s / r_t in [0, 1], by how much a step lowers the noise ratio r = sigma / alpha."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = _levels(t, scales), _levels(s, scales)
    return (alpha_t * sigma_s) / (alpha_s * sigma_t)


def zero(scales: Scales) -> float:
    """g^2 = 0: the ODE."""
    return 0.0


def constant(scales: Scales) -> float:
    """g^2 = 2: Langevin's. Needs data with a density, and eta^2 h below its least variance."""
    return 2.0


def sigma(scales: Scales) -> float:
    """g^2 = 2 sigma: the correction is -eta^2 noise, finite at both ends (Ma et al. 2024)."""
    return 2.0 * float(scales.sigma)


def variance(scales: Scales) -> float:
    """g^2 = 2 sigma^2: the correction is -eta^2 sigma noise, gentle near the data."""
    return 2.0 * float(scales.sigma) ** 2


def bridge(scales: Scales) -> float:
    """g^2 = 2 alpha sigma: none at either end, as of a Brownian bridge."""
    return 2.0 * float(scales.alpha) * float(scales.sigma)


DIFFUSIONS: dict[str, Diffusion] = {
    "zero": zero,
    "constant": constant,
    "sigma": sigma,
    "variance": variance,
    "bridge": bridge,
}
