"""sample(model, n) -> (n, *shape): noise in, samples out.

`stream` yields the states of one batch as they come; `sample` runs as many batches as n needs and
returns the last states. Sample i of a run depends on its own seed, seed + i, and its own condition
only: not on n, on the batch size or on the other samples.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from . import grids
from .adaptive import PAIRS
from .charts import CHARTS
from .choices import choose
from .conditions import MOST_BYTES, Context, Label, conditions, fits, null_condition, whole
from .guidance import check as check_guidance
from .guidance import guided
from .noise import noise, seed_rows
from .schedules import named
from .session import Floats
from .solvers import SOLVERS
from .spec import Spec
from .stochastic import DIFFUSIONS
from .tableau import Tableau, run
from .trace import trace

MOST_SAMPLES = 10_000_000
MOST_BATCH_BYTES = 1 << 30  # of the states of one batch: noise and solver hold about ten of them
BATCH = 64  # measured: small networks gain nothing beyond it, and previews come sooner


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
    guidance: float | None
    interval: tuple[float, float]
    chart: str
    eta: float
    diffusion: str
    seed: int


@dataclass(frozen=True)
class State:
    """One state of a batch: x after `step` of `steps`, at path time t."""

    x: Floats
    step: int
    steps: int
    t: float


@dataclass(frozen=True)
class Plan:
    """A checked request: what `sample` and `stream` do once every argument has been looked at."""

    model: Sampleable
    tableau: Tableau
    times: tuple[float, ...]
    seeds: NDArray[np.int64]
    condition: NDArray[Any] | None
    weight: float

    def states(self, start: int, stop: int) -> Iterator[State]:
        """The states of samples start..stop-1, the initial noise first."""
        spec, seeds = self.model.spec, self.seeds[start:stop]
        first = named(spec.schedule)(self.times[0])
        x = noise(seeds, spec.shape, 0) * float(first.sigma)
        steps = len(self.times) - 1
        yield State(x, 0, steps, self.times[0])
        states = run(
            self.tableau, self._network(start, stop), x, lambda k: noise(seeds, spec.shape, k + 1)
        )
        for step in range(1, steps + 1):
            with np.errstate(over="ignore", invalid="ignore"):  # refused in our own words
                row, x = next(states)
            if not np.isfinite(x).all():
                bad = [
                    start + int(i)
                    for i in np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(1))
                ]
                raise FloatingPointError(
                    f"step {step} of {steps}, t = {row.time:.4g}: expected finite values, got NaN or "
                    f"infinity in {len(bad)} samples ({bad[:5]}...); try more steps or less guidance"
                )
            yield State(x, step, steps, self.times[step])

    def _network(self, start: int, stop: int) -> Any:
        condition = None if self.condition is None else self.condition[start:stop]
        null = null_condition(self.model.spec, stop - start)
        return guided(self.model.network, condition, null, self.weight, np.concatenate)


def sample(
    model: Sampleable,
    n: int,
    *,
    batch: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
    **request: Unpack[Request],
) -> Floats:
    """n samples, float32 (n, *shape); what may be requested is listed at `plan`.

    batch: samples per network call, 1 or more. progress(done, total) counts solver steps over all
    batches. Raises ValueError for a bad argument and FloatingPointError for a state that is not
    finite; nothing partial is ever returned.
    """
    todo = plan(model, n, **request)
    starts = range(0, n, whole("batch", batch, 1, MOST_SAMPLES))
    fits("batch", min(batch, n), model.spec.shape, MOST_BATCH_BYTES)
    samples = np.empty((n, *model.spec.shape), np.float32)
    for index, start in enumerate(starts):
        for state in todo.states(start, min(start + batch, n)):
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
    guidance: float | None = None,
    interval: tuple[float, float] = (0.0, 1.0),
    chart: str = "straight",
    eta: float = 1.0,
    diffusion: str = "sigma",
    seed: int = 0,
) -> Plan:
    """Every argument checked, everything computed that does not need the network.

    n: 1 to 10,000,000. label: a number or name, a list of them to cycle through, or "none" for the
    null label; needed by a labelled model. context: float32, one (D,) or (L, D) for all or one per
    sample. solver, steps, grid, guidance: the model's recommendation where None; grid may be your
    own times. interval: the t in which guidance is on. eta >= 0: the strength of a noisy solver.
    diffusion: one of `DIFFUSIONS`, for euler_maruyama and stochastic_heun. seed: 0..2^53-1.
    Raises ValueError naming the argument, what it may be and what it was.
    """
    spec, best = model.spec, model.spec.sampler
    whole("n", n, 1, MOST_SAMPLES)
    if solver in PAIRS:
        raise ValueError(
            f"solver: expected one that walks a grid, got {solver!r}, which chooses its own steps; "
            "use runtimes.integrate, or toolkit sample --tolerance"
        )
    name = choose("solver", best.solver if solver is None else solver, SOLVERS)
    if steps is not None and not isinstance(grid, str | None):
        raise ValueError(
            f"steps: expected none beside your own grid, got {steps}; give one of the two"
        )
    fits("n", n, spec.shape, MOST_BYTES)
    is_number = isinstance(eta, int | float | np.integer | np.floating) and not isinstance(
        eta, bool
    )
    if not (is_number and 0.0 <= eta <= 10.0):
        raise ValueError(f"eta: expected 0 to 10, got {eta!r}; 1 is the usual strength")
    schedule = named(spec.schedule)
    times = grids.make(
        best.grid if grid is None else grid, best.steps if steps is None else steps, schedule
    )
    times = grids.trim(times, schedule, spec.prediction)
    weight = best.guidance if guidance is None else guidance
    check_guidance(weight, interval)
    on = weight != 1.0
    if on and spec.condition.kind == "none":
        if guidance is not None:
            raise ValueError(
                f"guidance: expected 1 for a model without conditions, got {weight!r}; leave it out"
            )
        on = False
    tableau = trace(
        name,
        tuple(times.tolist()),
        schedule=spec.schedule,
        prediction=spec.prediction,
        chart=choose("chart", chart, CHARTS),
        eta=float(eta),
        diffusion=choose("diffusion", diffusion, DIFFUSIONS),
        guided=(float(interval[0]), float(interval[1])) if on else None,
    )
    return Plan(
        model=model,
        tableau=tableau,
        times=tuple(times.tolist()),
        seeds=seed_rows(seed, n),
        condition=conditions(spec, n, label, context),
        weight=float(weight),
    )
