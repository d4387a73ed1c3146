"""Which noise meets which data, and at which times: what a batch of paths is made of.

A pairing `f(data, noise, groups) -> permutation` says that row i of the data is paired with row
permutation[i] of the noise. A time draw `f(n, rng) -> float64 (n,)` gives times inside (0, 1). Both
run on the host, so that every framework trains on the same draws. To add one, write the function
and its line in `PAIRINGS` or `TIME_DRAWS`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating[Any]]
Permutation = NDArray[np.int64]
Pairing = Callable[[Rows, Rows, NDArray[Any] | None], Permutation]
TimeDraw = Callable[[int, np.random.Generator], NDArray[np.float64]]


def independent(data: Rows, noise: Rows, groups: NDArray[Any] | None = None) -> Permutation:
    """p(data, noise) = p(data) p(noise): every row keeps its own noise."""
    return np.arange(len(data), dtype=np.int64)


def optimal_transport(data: Rows, noise: Rows, groups: NDArray[Any] | None = None) -> Permutation:
    """argmin over permutations of sum_i |data_i - noise_permutation(i)|^2, within each group of rows.

    Minibatch optimal transport (Tong et al. 2024, section 3.2; Pooladian et al. 2023): straighter
    paths. groups: (B, ...) labels or contexts; rows with equal ones are paired among themselves, for
    pairing across labels would make the noise depend on the label, which sampling knows nothing of.
    """
    from scipy.optimize import linear_sum_assignment

    permutation = independent(data, noise)
    for rows in _groups(groups, len(data)):
        cost = _squared_distances(data[rows], noise[rows])
        permutation[rows] = rows[linear_sum_assignment(cost)[1]]
    return permutation


def uniform(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """t ~ U(0, 1)."""
    return rng.uniform(np.nextafter(0.0, 1.0), 1.0, n)  # without 0 itself


def logit_normal(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """t = 1 / (1 + exp(-z)), z ~ N(0, 1): more of the middle (Esser et al. 2024, section 3.1)."""
    return 1.0 / (1.0 + np.exp(-rng.standard_normal(n)))


def _groups(groups: NDArray[Any] | None, n: int) -> list[Permutation]:
    """The row numbers of each group, in order; one group of all rows where there are none."""
    if groups is None:
        return [np.arange(n)]
    _, inverse = np.unique(groups.reshape(n, -1), axis=0, return_inverse=True)
    return [np.flatnonzero(inverse.reshape(n) == group) for group in range(inverse.max() + 1)]


def _squared_distances(a: Rows, b: Rows) -> NDArray[np.float64]:
    """|a_i|^2 + |b_j|^2 - 2 a_i . b_j, float64 (len(a), len(b))."""
    a, b = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (a, b))
    return (a**2).sum(1)[:, None] + (b**2).sum(1) - 2.0 * a @ b.T


PAIRINGS: dict[str, Pairing] = {
    "independent": independent,
    "optimal_transport": optimal_transport,
}
TIME_DRAWS: dict[str, TimeDraw] = {
    "uniform": uniform,
    "logit_normal": logit_normal,
}
