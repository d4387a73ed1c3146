"""What a solver costs on one model: how far its samples are off, against the network calls it makes.

    error     median over samples of sqrt(mean (x - x_fine)^2), x_fine by rk4 with 100 steps, same noise
    distance  energy distance to real data, or to fine samples from other seeds where there is none

The median, because a sample that lands in another mode says little about the others. `recommend`
picks the fewest calls that err no more than Euler with 50 steps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import runtimes
from runtimes.sample import Sampleable, collect
from runtimes.solvers import SOLVERS

from .metrics import energy_distance

MOST_REAL = 1000  # rows of real data compared with: their own distances grow with the square
CALLS = (4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 50)
FINE = {"solver": "rk4", "steps": 100}
USUAL = ("euler", 50)


@dataclass(frozen=True)
class Cost:
    """One solver at one number of steps."""

    solver: str
    steps: int
    calls: int
    error: float
    distance: float


@dataclass(frozen=True)
class Costs:
    """Every solver at every number of calls; fine: the distance of the fine samples themselves."""

    rows: tuple[Cost, ...]
    fine: float
    against: str


def measure(
    model: Sampleable,
    n: int,
    real: np.ndarray | None,
    *,
    solvers: Sequence[str] = (),
    calls: Sequence[int] = CALLS,
    progress: Callable[[int, int, str], None] | None = None,
    request: Mapping[str, Any],
) -> Costs:
    """The costs of all deterministic solvers (or of these) for n samples.

    real: (m, *shape) to compare with, or None. request: label, guidance, ... as `runtimes.sample` takes it.
    """
    request = dict(request)
    fine = runtimes.sample(model, n, **{**request, **FINE})
    if real is None:
        other = {**request, **FINE, "seed": request.get("seed", 0) + n}
        real = runtimes.sample(model, n, **other)
        against = "fine samples from other seeds"
    else:
        real, against = real[:MOST_REAL], "held-out data"
    names = solvers or [name for name, solver in SOLVERS.items() if not solver.noisy]
    runs = [(name, steps) for name in names for steps in steps_of(name, calls)]
    rows = []
    for done, (name, steps) in enumerate(runs):
        if progress is not None:
            progress(done, len(runs), name)
        todo = runtimes.plan(model, n, **{**request, "solver": name, "steps": steps})
        x = collect(todo)
        rows.append(Cost(name, steps, todo.calls, end_error(x, fine), energy_distance(x, real)))
    if progress is not None:
        progress(len(runs), len(runs), "")
    return Costs(tuple(rows), energy_distance(fine, real), against)


def end_error(x: np.ndarray, fine: np.ndarray) -> float:
    """median over samples of sqrt(mean (x - fine)^2), in float64."""
    apart = (x - fine).reshape(len(x), -1).astype(np.float64)
    return float(np.median(np.sqrt((apart**2).mean(1))))


def steps_of(solver: str, calls: Sequence[int]) -> list[int]:
    """The numbers of steps that make one of these numbers of calls, or less where an end saves one."""
    mine = SOLVERS[solver]
    steps = [(c - mine.extra) // mine.calls for c in calls if (c - mine.extra) % mine.calls == 0]
    return [n for n in steps if n > mine.past]


def recommend(costs: Costs) -> tuple[Cost, Cost]:
    """(the cheapest row whose error is at most the usual one's, the usual one: Euler with 50 steps)."""
    (usual,) = (row for row in costs.rows if (row.solver, row.steps) == USUAL)
    good = [row for row in costs.rows if row.error <= usual.error]
    return min(good, key=_price), usual


def cheapest(costs: Costs) -> list[Cost]:
    """Of every other solver that errs no more than the usual row, its cheapest row; the best come first."""
    _, usual = recommend(costs)
    good = [row for row in costs.rows if row.error <= usual.error and row.solver != usual.solver]
    names = sorted({row.solver for row in good})
    least = [min((row for row in good if row.solver == name), key=_price) for name in names]
    return sorted(least, key=_price)


def _price(row: Cost) -> tuple[int, float]:
    return row.calls, row.error
