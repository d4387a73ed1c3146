"""What a fit is to land on: noise, conditions, weights of guidance, and where a fine reference takes them.

error    median over samples of sqrt(mean (x - x_fine)^2), as in `costs`
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from runtimes import grids
from runtimes.conditions import null_condition, whole
from runtimes.guidance import Guided, guided
from runtimes.guidance import check as check_guidance
from runtimes.predictions import ends as ends_at
from runtimes.sample import Sampleable
from runtimes.schedules import named
from runtimes.tableau import Tableau, run
from runtimes.trace import trace
from toolkit.coefficients import Table, to_tableau

FINE = ("rk4", 50)  # the reference: 200 calls
NUMBERS = 1 << 14  # in the samples fitted to: a table has a few dozen unknowns
ROWS = 64  # samples per network call


@dataclass(frozen=True)
class Problem:
    """What to land on: noise, conditions, weights of guidance and the reference's states.

    states (F + 1, n, *shape) at `times` (F + 1,). The samples are in four parts: "fit" is fitted to, "stop"
    chooses among fits, "judge" and "labels" (labels or contexts that no fit has seen) are reported.
    """

    model: Sampleable
    times: tuple[float, ...]
    states: np.ndarray
    condition: np.ndarray | None
    weight: np.ndarray  # (n, 1, ..., 1)
    guidance: tuple[float, float]
    parts: dict[str, slice]
    off: tuple["Problem", ...] = ()

    @property
    def free(self) -> bool:
        """Whether guidance plays a part: else no row need be guided."""
        return self.condition is not None and self.guidance != (1.0, 1.0)

    def shown(self, t: float) -> float:
        """What the network's x is scaled by."""
        spec = self.model.spec
        return float(ends_at(spec.prediction, named(spec.schedule)(t)).input)

    def network(self, rows: slice) -> Guided:
        """(x, t, on) -> prediction of these samples, guided by their own weights where on."""
        condition = None if self.condition is None else self.condition[rows]
        null = null_condition(self.model.spec, rows.stop - rows.start)
        weight = self.weight[rows]
        both = guided(self.model.network, condition, null, lambda t: weight, np.concatenate)  # type: ignore[arg-type,return-value]
        return lambda x, t, on: both(x, t, on and self.free).astype(np.float32)

    def call(self, part: str) -> Guided:
        """The same for a whole part, in calls of `ROWS` samples."""
        rows = self.parts[part]
        starts = range(rows.start, rows.stop, ROWS)
        pieces = [slice(start, min(start + ROWS, rows.stop)) for start in starts]
        networks = [self.network(piece) for piece in pieces]

        def whole_part(x: np.ndarray, t: float, on: bool) -> np.ndarray:
            shares = np.split(x, [piece.stop - rows.start for piece in pieces[:-1]])
            return np.concatenate([f(x, t, on) for f, x in zip(networks, shares, strict=True)])

        return whole_part

    def end(self, tableau: Tableau, part: str) -> np.ndarray:
        """Where a tableau takes the samples of a part."""
        start = self.states[0, self.parts[part]]
        with np.errstate(over="ignore", invalid="ignore"):  # far off is a large error, no more
            (*_, (_, x)) = run(tableau, self.call(part), start)
        return np.asarray(x)

    def error(self, tableau: Tableau, part: str) -> float:
        """The median over samples of sqrt(mean (x - x_fine)^2); infinity where something is not finite."""
        apart = self.end(tableau, part) - self.states[-1, self.parts[part]]
        each = (apart.reshape(len(apart), -1).astype(np.float64) ** 2).mean(1)
        return float(np.median(np.sqrt(each))) if np.isfinite(each).all() else float("inf")

    def table_error(self, table: Table, part: str = "stop") -> float:
        """`error` of a table."""
        return self.error(to_tableau(table, self.shown), part)


def pose(
    model: Sampleable,
    *,
    guidance: tuple[float, float] | None = None,
    contexts: np.ndarray | None = None,
    seed: int = 0,
    n: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Problem:
    """The problem of a model: its reference computed, once for all numbers of calls.

    guidance: the weights (from, to) to be good at, the recommended one where None. contexts: (m, *context) of
    a model with contexts, to draw from. n: samples to fit to. Raises ValueError for those that do not fit
    the model, FloatingPointError for a reference that is not finite.
    """
    spec = model.spec
    low, high = (spec.sampler.guidance,) * 2 if guidance is None else guidance
    for weight in (low, high):
        check_guidance(weight, (0.0, 1.0))
    if low > high or (spec.condition.kind == "none" and (low, high) != (1.0, 1.0)):
        raise ValueError(
            f"guidance: expected (from, to) with from <= to, and 1 without conditions, got {(low, high)}; "
            "like 1,3"
        )
    size = int(np.prod(spec.shape))
    many = int(np.clip(NUMBERS // size, 192, 1024)) if n is None else whole("n", n, 8, 1 << 16)
    rng = np.random.default_rng(seed)
    sizes = {"fit": many, "stop": many // 2, "judge": many // 2, "labels": many // 2}
    seen, unseen = _conditions(model, contexts, rng)
    if not len(unseen):
        del sizes["labels"]
    ends = np.cumsum([0, *sizes.values()])
    parts = {name: slice(int(ends[i]), int(ends[i + 1])) for i, name in enumerate(sizes)}
    condition = None
    if spec.condition.kind != "none":
        picked = [rng.choice(unseen if name == "labels" else seen, k) for name, k in sizes.items()]
        condition = np.concatenate(picked)
    schedule = named(spec.schedule)
    times = grids.trim(grids.make(spec.sampler.grid, FINE[1], schedule), schedule, spec.prediction)
    grid = tuple(float(t) for t in times)
    x = rng.standard_normal((ends[-1], *spec.shape)).astype(np.float32)
    weight = rng.uniform(low, high, (ends[-1], *[1] * len(spec.shape)))
    problem = Problem(
        model,
        grid,
        x[None] * float(schedule(grid[0]).sigma),
        condition,
        weight,
        (low, high),
        parts,
    )
    return _with_off(_with_reference(problem, progress))


def _conditions(
    model: Sampleable, contexts: np.ndarray | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Labels or contexts to fit to, and some to judge by: a fifth of them, one where there are few."""
    condition = model.spec.condition
    if condition.kind == "none":
        return np.empty(0), np.empty(0)
    if condition.kind == "label":
        known = rng.permutation(condition.classes)
    elif contexts is None or contexts.shape[1:] != condition.shape or len(contexts) < 2:
        raise ValueError(
            f"contexts: expected float32 (m, *{condition.shape}) to draw from, got "
            f"{'none' if contexts is None else contexts.shape}; give those of the data"
        )
    else:
        known = rng.permutation(contexts.astype(np.float32))
    away = max(1, len(known) // 5) if len(known) > 2 else 0
    return known[away:], known[:away]


def _with_reference(problem: Problem, progress: Callable[[int, int], None] | None) -> Problem:
    """The problem with the states of the reference, from the first ones."""
    tableau = traced(problem, FINE[0], problem.times)
    states = []
    for number, (name, rows) in enumerate(problem.parts.items()):
        steps = [problem.states[0, rows]]
        for _, x in run(tableau, problem.call(name), steps[0]):
            steps.append(x.astype(np.float32))
            if progress is not None:
                done = number * FINE[1] + len(steps) - 1
                progress(done, len(problem.parts) * FINE[1])
        states.append(np.stack(steps))
    whole_run = np.concatenate(states, axis=1)
    if not np.isfinite(whole_run).all():
        raise FloatingPointError(
            "reference: expected finite states, got NaN or infinity; the network cannot be fitted to"
        )
    return replace(problem, states=whole_run)


def _with_off(problem: Problem) -> Problem:
    """The problem beside others at weights of guidance off its range, each with a reference of its own."""
    if problem.condition is None:
        return problem
    low, high = problem.guidance
    rows = problem.parts["judge"]
    some = slice(rows.start, rows.start + min(ROWS, rows.stop - rows.start))
    near = replace(
        problem,
        states=problem.states[:1, some],
        condition=problem.condition[some],
        parts={"judge": slice(0, some.stop - some.start)},
    )
    off = []
    for w in (*((1.0,) if low > 1.0 else ()), high + 1.0, 2.0 * high + 1.0):
        there = replace(near, weight=np.full_like(problem.weight[some], w), guidance=(w, w))
        off.append(_with_reference(there, None))
    return replace(problem, off=tuple(off))


def traced(problem: Problem, solver: str, times: tuple[float, ...]) -> Tableau:
    """The tableau of a solver on the model's path, guided in every row where guidance plays a part."""
    spec = problem.model.spec
    flags = None if problem.condition is None else (0.0, 1.0)
    return trace(solver, times, schedule=spec.schedule, prediction=spec.prediction, guided=flags)
