"""The first stage of a fit, on any model: each row by least squares along the reference.

    min over keep, mix of |x_fine(t_{k+1}) - keep x_k - sum_j mix_j p_j|^2        for k = 0, 1, ...

x_k and p_j are those of the table so far, so that a row mends what the rows before it left wrong. Linear,
so it needs neither gradients nor a start; the times come from warped grids, and are then moved.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np

from toolkit.coefficients import LOOK, Table, window
from toolkit.landing import Problem

# t = 1 - (1 - u^a)^b of even u: denser near the noise or the data, or both
WARPS = tuple(product((0.6, 0.8, 1.0, 1.3), repeat=2))
RIDGE = 1e-6  # of each column's square: outputs at near times are nearly the same


def along(problem: Problem, calls: int, rounds: int) -> Iterator[tuple[int, int, Table, float]]:
    """Yield (done, total, table, error): warped grids, then each time of the best moved, in rounds."""
    fine = len(problem.times) - 1
    even = np.arange(calls + 1) / calls
    total = len(WARPS) + rounds * 2 * (calls - 1)
    best, error, done, tried = np.zeros(0), float("inf"), 0, set()

    def attempt(places: np.ndarray) -> Iterator[tuple[int, int, Table, float]]:
        nonlocal best, error
        key = tuple(places.tolist())
        if key in tried or np.any(np.diff(places) < 1):
            return
        tried.add(key)
        table, here = teach(problem, places)
        if here < error:
            best, error = places, here
        yield done, total, table, here

    for first, second in WARPS:
        done += 1
        places = np.rint(fine * (1.0 - (1.0 - even**first) ** second)).astype(int)
        yield from attempt(places)
    if not len(best):
        return
    for _, k, step in product(range(rounds), range(1, calls), (-1, 1)):
        done += 1
        moved = best.copy()
        moved[k] += step
        yield from attempt(moved)


def teach(problem: Problem, places: np.ndarray) -> tuple[Table, float]:
    """(table, error) for calls at these places of the reference's grid: each row by least squares.

    The part "fit" is fitted to; the part "stop" runs along and is judged.
    """
    calls = len(places) - 1
    table = Table(
        np.array([problem.times[k] for k in places[:-1]]),
        np.ones(calls),
        np.zeros((calls, calls)),
        np.full(calls, problem.condition is not None),
    )
    inside = window(calls, LOOK)
    names = ("fit", "stop")
    networks = [problem.call(name) for name in names]
    x = [problem.states[0, problem.parts[name]].astype(np.float64) for name in names]
    outs: list[list[np.ndarray]] = [[], []]
    for k in range(calls):
        t = float(table.times[k])
        for i, network in enumerate(networks):
            seen = (x[i] * problem.shown(t)).astype(np.float32)
            outs[i].append(network(seen, t, bool(table.guided[k])).astype(np.float64))
        used = np.flatnonzero(inside[k])
        columns = [np.stack([x[i], *(outs[i][j] for j in used)], axis=-1) for i in (0, 1)]
        target = problem.states[places[k + 1], problem.parts["fit"]].astype(np.float64)
        weights = _least_squares(columns[0].reshape(-1, 1 + len(used)), (target - x[0]).ravel())
        weights[0] += 1.0
        table.keep[k], table.mix[k, used] = weights[0], weights[1:]
        x = [column @ weights for column in columns]
    apart = (x[1] - problem.states[-1, problem.parts["stop"]]).reshape(len(x[1]), -1)
    each = np.sqrt((apart**2).mean(1))
    return table, float(np.median(each)) if np.isfinite(each).all() else float("inf")


def _least_squares(columns: np.ndarray, target: np.ndarray) -> np.ndarray:
    """argmin |columns w - target|^2 + RIDGE |scale w|^2, scale the columns' lengths."""
    gram = columns.T @ columns
    gram[np.diag_indices_from(gram)] *= 1.0 + RIDGE
    return np.linalg.lstsq(gram, columns.T @ target, rcond=None)[0]
