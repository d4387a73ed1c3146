"""sample(model, n) -> (n, *shape): noise in, samples out.

`stream` yields the states of one batch as they come; `sample` runs as many batches as n needs and
returns the last states. Sample i of a run depends on its own seed, seed + i, and its own condition
only: not on n, on the batch size or on the other samples (but by roundings where weights are in 8 bits).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from . import fitted, grids, ways, work
from .adaptive import PAIRS
from .charts import CHARTS
from .choices import choose, is_number
from .conditions import (
    MOST_BYTES,
    Context,
    Label,
    conditions,
    fits,
    guidance_weight,
    null_condition,
    spec_of,
    whole,
)
from .guidance import Guided, Weight, autoguided, check_between, guided, plus_plus
from .guidance import check as check_guidance
from .modelfile import ModelError
from .noise import noise, seed_rows
from .schedules import Scales, named
from .session import Floats, Model
from .solvers import SOLVERS
from .spec import Spec
from .stochastic import DIFFUSIONS
from .tableau import Tableau
from .trace import trace

MOST_SAMPLES = 10_000_000
MOST_BATCH_BYTES = 1 << 30  # of the states of one batch: noise and solver hold about ten of them
Source = Callable[[NDArray[np.int64], tuple[int, ...], int], Floats]  # (seeds, shape, draw)
PACE = 0.1  # seconds between two words of progress


class Sampleable(Protocol):
    """What can be sampled: an opened file (`session.Model`) or a framework's network behind this face."""

    @property
    def spec(self) -> Spec:
        """What it generates and how it was trained."""

    def network(
        self, x: Floats, t: float | Floats, condition: NDArray[Any] | None = None
    ) -> Floats:
        """prediction = network(x, t, condition) on B rows."""


class Request(TypedDict, total=False):
    """The named arguments that `sample` and `stream` hand to `plan`, which explains them."""

    label: Label | None
    context: Context | None
    solver: str | None
    steps: int | None
    grid: str | Sequence[float] | None
    calls: int | None
    guidance: float | None
    interval: tuple[float, float]
    rescale: float
    cfgpp: float | None
    guide: Sampleable | None
    chart: str
    eta: float
    diffusion: str
    seed: int
    how: str


@dataclass(frozen=True)
class State:
    """One state of a batch: x after `step` of `steps`, at path time t."""

    x: Floats
    step: int
    steps: int
    t: float


class Run(Protocol):
    """What `collect` takes: a Plan, or steps of one's own around a Plan (`controls.Inpainting`)."""

    @property
    def model(self) -> Sampleable:
        """Whose samples they are."""

    @property
    def seeds(self) -> NDArray[np.int64]:
        """One per sample."""

    def states(self, start: int, stop: int, pace: float = 0.0) -> Iterator[State]:
        """The states of samples start..stop-1, the initial one first; see `Plan.states`."""


@dataclass(frozen=True)
class Plan:
    """A checked request: what `sample` and `stream` do once every argument has been looked at.

    trace: the tableau of the same request over other times. guide: a worse model for autoguidance.
    A run starts at alpha * data + sigma * noise of its first time; data (n, *shape): zeros if None.
    source: the noise of these seeds. how: the way it was asked to run.
    """

    model: Sampleable
    tableau: Tableau
    times: tuple[float, ...]
    seeds: NDArray[np.int64]
    condition: NDArray[Any] | None
    weight: Weight
    trace: Callable[[tuple[float, ...]], Tableau]
    rescale: float = 0.0
    guide: Sampleable | None = None
    data: Floats | None = None
    source: Source = noise
    how: str = "auto"

    @property
    def calls(self) -> int:
        """Network evaluations of each sample (one of 2B rows where guided)."""
        return self.tableau.calls

    @property
    def way(self) -> str:
        """How it runs: one of `ways.WAYS`. Raises ValueError where the asked one is impossible."""
        return ways.pick(self, self.tableau)

    def scales(self, t: float) -> Scales:
        """alpha and sigma of the model's path."""
        return named(self.model.spec.schedule)(t)

    def first(self, start: int, stop: int, t: float) -> Floats:
        """The path's value alpha * data + sigma * noise at time t."""
        scales = self.scales(t)
        x = self.source(self.seeds[start:stop], self.model.spec.shape, 0) * float(scales.sigma)
        return x if self.data is None else x + self.data[start:stop] * float(scales.alpha)

    def states(self, start: int, stop: int, pace: float = 0.0) -> Iterator[State]:
        """The states of samples start..stop-1, the initial noise first.

        pace: seconds between two of them, where the loop is in the graph; 0 yields all, infinity the last.
        """
        first, steps = self.first(start, stop, self.times[0]), len(self.times) - 1
        yield State(first, 0, steps, self.times[0])
        for step, x in self.follow(start, stop, self.tableau, first, pace=pace):
            yield State(x, step, steps, self.times[step])

    def follow(
        self,
        start: int,
        stop: int,
        tableau: Tableau,
        x: Floats,
        before: int = 0,
        pace: float = 0.0,
    ) -> Iterator[tuple[int, Floats]]:
        """(steps done, state) along a tableau, from x, `before` steps into the run; see `states`."""
        steps = len(self.times) - 1
        task = ways.Task(self, slice(start, stop), tableau, x, before, pace)
        states = ways.WAYS[ways.pick(self, tableau)](task)
        while True:
            with np.errstate(over="ignore", invalid="ignore"):  # refused in our own words
                done, x = next(states, (None, x))
            if done is None:
                return
            if x.shape != task.x.shape:
                raise ModelError(
                    f"model: expected states of shape {task.x.shape}, got {x.shape}; export it again"
                )
            if not np.isfinite(x).all():
                bad = start + np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(1))
                t = self.times[min(before + done, steps)]
                raise FloatingPointError(
                    f"step {before + done} of {steps}, t = {t:.4g}: expected finite values, got NaN or "
                    f"infinity in {len(bad)} samples ({bad[:5].tolist()}...); try more steps or less guidance"
                )
            yield done, x

    def network(self, rows: slice) -> Guided:
        """(x, t, on) -> prediction of some samples, guided where on."""
        network, weight, rescale = self.model.network, self.weight, self.rescale
        condition = None if self.condition is None else self.condition[rows]
        if self.guide is not None:
            return autoguided(network, self.guide.network, condition, weight, rescale)
        null = null_condition(self.model.spec, rows.stop - rows.start)
        return guided(network, condition, null, weight, np.concatenate, rescale)


def sample(
    model: Sampleable,
    n: int,
    *,
    batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **request: Unpack[Request],
) -> Floats:
    """n samples, float32 (n, *shape); what may be requested is listed at `plan`.

    batch: samples per network call, 1 or more; None chooses by the network's size (`work`).
    progress(done, total) counts solver steps over all batches. Raises ValueError for a bad argument and
    FloatingPointError for a state that is not finite; nothing partial is ever returned.
    """
    return collect(plan(model, n, **request), batch=batch, progress=progress)


def collect(
    todo: Run,
    *,
    batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Floats:
    """The last states of a whole plan, batch by batch; see `sample`."""
    n, model = len(todo.seeds), todo.model
    shape = model.spec.shape
    if batch is None:
        batch = (
            work.batch(model.spec)
            if isinstance(model, Model) and model.provider == "cpu"
            else work.BATCH
        )
    starts = range(0, n, whole("batch", batch, 1, MOST_SAMPLES))
    fits("batch", min(batch, n), shape, MOST_BATCH_BYTES)
    samples = np.empty((n, *shape), np.float32)
    pace = math.inf if progress is None else PACE
    for index, start in enumerate(starts):
        for state in todo.states(start, min(start + batch, n), pace):
            if progress is not None:
                progress(index * state.steps + state.step, len(starts) * state.steps)
        samples[start : start + batch] = state.x
    return samples


def stream(model: Sampleable, n: int, **request: Unpack[Request]) -> Iterator[Floats]:
    """The states of n samples in one batch, float32 (n, *shape): one per step, the last at the data.

    What may be requested is listed at `plan`, and is checked before the first state is asked for.
    """
    todo = plan(model, n, **request)
    fits("n", n, model.spec.shape, MOST_BATCH_BYTES)
    return (state.x for state in todo.states(0, n) if state.step > 0)


def plan(
    model: Sampleable,
    n: int,
    *,
    label: Label | None = None,
    context: Context | None = None,
    solver: str | None = None,
    steps: int | None = None,
    grid: str | Sequence[float] | None = None,
    calls: int | None = None,
    guidance: float | None = None,
    interval: tuple[float, float] = (0.0, 1.0),
    rescale: float = 0.0,
    cfgpp: float | None = None,
    guide: Sampleable | None = None,
    chart: str = "straight",
    eta: float = 1.0,
    diffusion: str = "sigma",
    seed: int = 0,
    how: str = "auto",
) -> Plan:
    """Every argument checked, everything computed that does not need the network.

    n: 1 to 10,000,000. label: a number or name, a list of them to cycle through, or "none" for the
    null label; needed by a labelled model. context: float32, one (D,) or (L, D) for all or one per
    sample. solver, steps, grid, guidance: the model's recommendation where None; grid may be your
    own times. calls: the model's fitted tableau of so many, in place of solver, steps and grid.
    interval: the t in which guidance is on. rescale: 0 to 1, how much of the unguided prediction's
    spread guidance keeps. cfgpp: 0 to 1, CFG++ in place of guidance. guide: a worse model to be guided
    away from, in place of the null condition. eta >= 0: the strength of a noisy solver.
    diffusion: one of `DIFFUSIONS`, for euler_maruyama and stochastic_heun. seed: 0..2^53-1.
    how: auto, or one of `ways.WAYS` that the model has; the results are the same to rounding.
    Raises ValueError naming the argument, what it may be and what it was.
    """
    spec = spec_of("model", model)
    best = spec.sampler
    whole("n", n, 1, MOST_SAMPLES)
    name = choose("solver", best.solver if solver is None else solver, (*SOLVERS, *PAIRS))
    if name in PAIRS:
        raise ValueError(
            f"solver: expected one that walks a grid, got {name!r}, which chooses its own steps; "
            "use runtimes.integrate, or toolkit sample --tolerance"
        )
    if steps is not None and not isinstance(grid, str | None):
        raise ValueError(
            f"steps: expected none beside your own grid, got {steps}; give one of the two"
        )
    fits("n", n, spec.shape, MOST_BYTES)
    if not (is_number(eta) and 0.0 <= eta <= 10.0):
        raise ValueError(f"eta: expected 0 to 10, got {eta!r}; 1 is the usual strength")
    schedule = named(spec.schedule)
    if calls is None:
        times = grids.make(
            best.grid if grid is None else grid, best.steps if steps is None else steps, schedule
        )
        enough(name, len(times) - 1)
        grid_times = tuple(grids.trim(times, schedule, spec.prediction).tolist())
    else:
        beside = {"solver": solver, "steps": steps, "grid": grid, "cfgpp": cfgpp, "guide": guide}
        beside |= {
            "chart": None if chart == "straight" else chart,
            "eta": None if eta == 1.0 else eta,
            "diffusion": None if diffusion == "sigma" else diffusion,
        }
        ready = fitted.find(model, calls, beside)
        grid_times = ready.times
    weight = guidance_weight(
        spec, guidance, cfgpp, None if guide is None else spec_of("guide", guide)
    )
    check_guidance(weight, interval)
    check_between("rescale", rescale, "0 turns it off, 0.7 is the usual")
    on = weight != 1.0 or cfgpp is not None
    between = (float(interval[0]), float(interval[1]))
    traced: Callable[[tuple[float, ...]], Tableau] = partial(
        trace,
        name,
        schedule=spec.schedule,
        prediction=spec.prediction,
        chart=choose("chart", chart, CHARTS),
        eta=float(eta),
        diffusion=choose("diffusion", diffusion, DIFFUSIONS),
        guided=between if on else None,
    )
    if calls is None:
        tableau = traced(grid_times)
    else:
        tableau = fitted.tableau(ready, float(weight) if on else None, between)
        traced = fitted.no_part
    todo = Plan(
        model=model,
        tableau=tableau,
        times=grid_times,
        seeds=seed_rows(seed, n),
        condition=conditions(spec, n, label, context),
        weight=float(weight) if cfgpp is None else plus_plus(weight, grid_times, schedule),
        trace=traced,
        rescale=float(rescale),
        guide=guide,
        how=choose("how", how, ("auto", *ways.WAYS)),
    )
    todo.way  # noqa: B018 - an impossible one is refused now
    return todo


def enough(solver: str, steps: int) -> None:
    """Raise ValueError for fewer steps than a solver looks back on."""
    past = SOLVERS[solver].past
    if steps <= past:
        raise ValueError(
            f"steps: expected {past + 1} or more for {solver!r}, which looks {past} back, "
            f"got {steps}; take more, or another solver"
        )
