"""Few-call tableaus fitted to a trained network: the network stays, the table of numbers is chosen.

    x_{k+1} = keep_k x_k + sum_j mix_kj p_j        p_k = network(x_k, t_k): see `coefficients`

Wanted are the numbers with which a few calls land where a fine reference does, from the same noise. Two
stages, the first on any model, the second where torch has gradients:

    along the teacher   each row by least squares against the reference's states (`teacher`)
    end error           Adam on times, keep and mix through the network (`fit_torch`)

Each starts from the best there is, the classical tableaus of as many calls included, is judged on
noise it was not fitted to, and keeps the best. What is reported is measured on other noise again, and
on labels or contexts held out; a fit that is no better there than the classical ones is refused.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from runtimes import grids
from runtimes.conditions import whole
from runtimes.schedules import named
from runtimes.solvers import SOLVERS
from runtimes.tableau import Tableau, dense
from runtimes.tableaus import FITTED, MOST_CALLS, Fit, Ready
from toolkit.coefficients import Table, from_tableau, to_tableau
from toolkit.landing import Problem, traced
from toolkit.teacher import along

CONTENDERS = ("euler", "heun", "ab2", "dpmpp_2m", "unipc2", "unipc3")
NOTHING = 0.01  # a relative error that the unconditional half must save to be worth its call


def never() -> bool:
    """Nobody asks to stop."""
    return False


@dataclass(frozen=True)
class Fitted:
    """A tableau fitted to a network, and what it is worth on noise that it was not fitted to.

    error, labels: the end error there and on held-out labels or contexts (None without any). classical:
    (solver, steps, error) of every contender with at most as many calls, the best first. off: (weight,
    error, best classical error) off the range of guidance. evaluations: a guided call counts two.
    """

    ready: Ready
    table: Table
    error: float
    labels: float | None
    classical: tuple[tuple[str, int, float], ...]
    off: tuple[tuple[float, float, float], ...]
    evaluations: int
    interrupted: bool = False


@dataclass(frozen=True)
class Now:
    """How far a fit is: `done` of `total` of a stage, the best error so far; at the end what it found."""

    stage: str
    done: int
    total: int
    error: float
    fitted: Fitted | None = None


def classical(problem: Problem, calls: int) -> list[tuple[str, int, Tableau]]:
    """(solver, steps, tableau) of each contender with the most steps that make no more than so many calls."""
    spec = problem.model.spec
    schedule = named(spec.schedule)
    found = []
    for name, grid in product(CONTENDERS, sorted({"uniform", spec.sampler.grid})):
        for steps in range(calls, SOLVERS[name].past, -1):
            times = grids.trim(grids.make(grid, steps, schedule), schedule, spec.prediction)
            tableau = traced(problem, name, tuple(times.tolist()))
            if tableau.calls <= calls:
                found.append((name, steps, tableau))
                break
    return found


def fit(
    problem: Problem,
    calls: int,
    *,
    module: Any = None,
    iterations: int = 150,
    seed: int = 0,
    stop: Callable[[], bool] = never,
) -> Iterator[Now]:
    """Yields how far it is; the last Now has the `Fitted`.

    calls: 2 to 32. module: the torch module behind the problem's model, for the second stage, or None.
    stop(): asked at every step; then the best so far is what is found, and says so. Raises ValueError
    where the best is no better than the best classical tableau, FloatingPointError for gradients
    that are not finite.
    """
    whole("calls", calls, 2, MOST_CALLS)
    rivals = classical(problem, calls)
    best, error = None, float("inf")
    for _, _, tableau in rivals:
        table = from_tableau(tableau, problem.shown) if tableau.calls == calls else None
        if table is not None and (here := problem.table_error(table)) < error:
            best, error = table, here
    for done, total, table, here in along(problem, calls, rounds=3 if module is None else 1):
        if here < error:
            best, error = table, here
        yield Now("along the teacher", done, total, error)
        if stop():
            break
    if best is None:
        raise ValueError(
            f"calls: expected a start for {calls}, got none that is finite; take more calls"
        )
    if module is not None and iterations and not stop():
        from toolkit.fit_torch import refine

        for done, table, here in refine(problem, module, best, iterations, seed=seed):
            if here < error:
                best, error = table, here
            yield Now("end error", done, iterations, error)
            if stop():
                break
    if problem.free and not stop():
        best, error = without_halves(problem, best, error)
    yield Now("judged", 1, 1, error, judged(problem, best, rivals, interrupted=stop()))


def without_halves(problem: Problem, table: Table, error: float) -> tuple[Table, float]:
    """The table without the unconditional halves that buy less than `NOTHING`, the cheapest first."""
    limit = error * (1.0 + NOTHING)
    while table.guided.any():
        rows = [k for k in range(table.calls) if table.guided[k]]
        others = [
            replace(table, guided=np.where(np.arange(table.calls) == k, False, table.guided))
            for k in rows
        ]
        errors = [problem.table_error(other) for other in others]
        least = int(np.argmin(errors))
        if errors[least] > limit:
            break
        table, error = others[least], errors[least]
    return table, error


def judged(
    problem: Problem,
    table: Table,
    rivals: list[tuple[str, int, Tableau]],
    *,
    interrupted: bool = False,
) -> Fitted:
    """What a table is worth beside its rivals. Raises ValueError where it is not better than the best."""
    mine = to_tableau(table, problem.shown)
    error = problem.error(mine, "judge")
    scores = sorted(
        ((name, steps, problem.error(tableau, "judge")) for name, steps, tableau in rivals),
        key=lambda score: score[2],
    )
    if not error < scores[0][2]:
        name, steps, least = scores[0]
        raise ValueError(
            f"calls: expected {table.calls} fitted calls to err less than {name} with {steps} steps "
            f"({least:.3g}), got {error:.3g}; use that solver, or fit longer"
        )
    off = tuple(
        (
            there.guidance[0],
            there.error(mine, "judge"),
            min(there.error(tableau, "judge") for _, _, tableau in rivals),
        )
        for there in problem.off
    )
    fit = Fit(problem.guidance, error, tuple((w, e) for w, e, _ in off))
    times = (*(float(t) for t in table.times), problem.times[-1])
    sigma = float(named(problem.model.spec.schedule)(times[0]).sigma)
    ready = Ready(
        FITTED, table.calls, FITTED, sigma, times, tuple(range(table.calls)), dense(mine), fit
    )
    labels = problem.error(mine, "labels") if "labels" in problem.parts else None
    evaluations = table.evaluations if problem.free else table.calls
    best = {score[0]: score for score in reversed(scores)}  # of a solver its better grid
    by_error = tuple(sorted(best.values(), key=lambda score: score[2]))
    return Fitted(ready, table, error, labels, by_error, off, evaluations, interrupted)
