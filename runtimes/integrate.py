"""integrate(model, n) -> Result: the ODE followed with steps as long as each sample allows.

    dy/dr = on_y y + on_out network(shown y, t),    y = x / m, row by row at its own clock r

Where `sample` walks a grid that was chosen beforehand, this measures the error of every step
(`adaptive`). It goes either way: from noise to data, or from given states back to their noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import grids
from .adaptive import PAIRS, Floats, Rows, column, solve
from .charts import CHARTS, closed, point_at, times_at
from .choices import choose, is_number, quoted
from .conditions import (
    MOST_BYTES,
    Context,
    Label,
    conditions,
    finite,
    fits,
    guidance_weight,
    null_condition,
    one_array,
    spec_of,
    whole,
)
from .flow import rates
from .guidance import check as check_guidance
from .guidance import mixed
from .noise import noise, seed_rows
from .sample import MOST_SAMPLES, Sampleable
from .schedules import Schedule, named
from .spec import Spec
from .work import BATCH

FINEST, COARSEST = 1e-12, 1.0  # of a tolerance
MOST_CALLS = 10_000


@dataclass(frozen=True)
class Result:
    """States and what they cost.

    path: float32 (times, n, *shape), the states at the times asked for, the first being the start.
    calls, accepted, rejected: int64 (n,), network calls and steps of each sample.
    """

    path: NDArray[np.float32]
    times: tuple[float, ...]
    calls: NDArray[np.int64]
    accepted: NDArray[np.int64]
    rejected: NDArray[np.int64]

    @property
    def x(self) -> NDArray[np.float32]:
        """The states at the last time, float32 (n, *shape)."""
        last: NDArray[np.float32] = self.path[-1]
        return last


@dataclass(frozen=True)
class Ode:
    """The ODE of one schedule and prediction in a chart's variables, for rows at different clocks.

    times: clock -> t, exactly, where both are known. direct: whether every clock is its t.
    """

    schedule: Schedule
    prediction: str
    chart: str
    times: dict[float, float]
    direct: bool

    def rates(self, clocks: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """(t, shown, on_y, on_out) at every clock, each (b,)."""
        t = {r: self.times.get(r, r) for r in clocks.tolist()}
        if not self.direct:
            others = [r for r in t if r not in self.times]
            found = times_at(self.chart, self.schedule, others)
            t |= zip(others, found, strict=True)
        at = {r: (time, *self._rates(time)) for r, time in t.items()}
        times, shown, on_y, on_out = np.array([at[r] for r in clocks.tolist()]).T
        return times, shown, on_y, on_out

    def time(self, clock: float) -> float:
        """The t of one clock."""
        return float(self.rates(np.array([clock]))[0][0])

    def m(self, t: float) -> float:
        """x = m y at t."""
        return point_at(self.chart, t, self.schedule(t)).m

    def _rates(self, t: float) -> tuple[float, float, float]:
        scales = self.schedule(t)
        point = point_at(self.chart, t, scales)
        on_y, on_out, shown = rates(self.prediction, point, scales)
        if not np.isfinite(on_y + on_out):
            raise closed(self.chart, t)
        return shown, on_y, on_out


def ode_along(spec: Spec, chart: str, times: Sequence[float]) -> tuple[Ode, list[float]]:
    """The ODE of a spec in that chart, and the clocks of these times."""
    schedule = named(spec.schedule)
    choose("chart", chart, CHARTS)

    def clock(t: float) -> float:
        return point_at(chart, t, schedule(t)).r

    clocks = [clock(t) for t in times]
    # the linear schedule's straight chart: no search for t, which would be most of the work on the host
    direct = all(abs(clock(t) - t) < 1e-15 for t in (0.1, 0.3, 0.5, 0.7, 0.9))
    known = dict(zip(clocks, times, strict=True))
    return Ode(schedule, spec.prediction, chart, known, direct), clocks


def integrate(
    model: Sampleable,
    n: int,
    *,
    method: str = "dopri5",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    times: Sequence[float] = (0.0, 1.0),
    start: NDArray[np.float32] | None = None,
    label: Label | None = None,
    context: Context | None = None,
    guidance: float | None = None,
    interval: tuple[float, float] = (0.0, 1.0),
    chart: str = "straight",
    seed: int = 0,
    most_calls: int = MOST_CALLS,
    batch: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """n samples, each with its own steps; a sample does not depend on the others.

    method: dopri5 or bosh3. rtol, atol: 1e-12 to 1, what a step may be wrong by, relative to the state
    and absolutely. times: strictly rising from noise to data or falling back, within [0, 1]; squeezed
    as `grids.trim` does. start: float32 (n, *shape), the states at times[0]; noise where None.
    most_calls: of the network, per sample. The rest as in `plan`; progress(done, n) counts samples.
    Raises ValueError for a bad argument and FloatingPointError where a sample does not reach the end.
    """
    spec = spec_of("model", model)
    whole("n", n, 1, MOST_SAMPLES)
    whole("batch", batch, 1, MOST_SAMPLES)
    whole("most_calls", most_calls, 1, 10**9)
    pair = PAIRS[choose("method", method, PAIRS)]
    check_tolerances(rtol, atol)
    asked = _route(spec, times)
    fits("n", n * len(asked), spec.shape, MOST_BYTES)
    ode, clocks = ode_along(spec, chart, asked)
    call = caller(model, conditions(spec, n, label, context), guidance, interval)
    seeds, m = seed_rows(seed, n), [ode.m(t) for t in asked]
    if start is None and asked[0] > asked[-1]:
        raise ValueError(
            f"start: expected the states at t = {asked[0]:g} to go back from, got none; give them, or "
            "times that rise"
        )
    given = None if start is None else states("start", start, n, spec.shape)
    sigma = float(ode.schedule(asked[0]).sigma)
    path = np.empty((len(asked), n, *spec.shape), np.float32)
    costs = np.empty((3, n), np.int64)
    for first in range(0, n, batch):
        part = slice(first, min(first + batch, n))
        x = noise(seeds[part], spec.shape, 0) * sigma if given is None else given[part]

        def slope(y: Floats, r: Floats, rows: Rows, first: int = first) -> Floats:
            t, shown, on_y, on_out = (column(each, y) for each in ode.rates(r))
            with np.errstate(over="ignore"):
                out = call((y * shown).astype(np.float32), t.ravel(), rows + first)
            return y * on_y + out * on_out

        done = solve(
            slope,
            x.astype(np.float64) / m[0],
            clocks,
            pair=pair,
            rtol=rtol,
            atol=atol,
            most_calls=most_calls,
            time=ode.time,
            first=first,
        )
        path[0, part], path[1:, part] = x, done.path * np.reshape(m[1:], (-1, *[1] * x.ndim))
        costs[:, part] = done.calls, done.accepted, done.rejected
        if progress is not None:
            progress(part.stop, n)
    return Result(path, tuple(asked), *costs)


def caller(
    model: Sampleable,
    condition: NDArray[Any] | None,
    guidance: float | None,
    interval: tuple[float, float],
) -> Callable[[NDArray[np.float32], Floats, Rows], NDArray[np.float32]]:
    """(x, t, rows) -> prediction, guided where a row's t lies in the interval (see `guidance`).

    condition: of all samples; rows says which of them x holds.
    """
    weight = guidance_weight(model.spec, guidance, None, None)
    check_guidance(weight, interval)
    if condition is None:
        return lambda x, t, rows: model.network(x, t.astype(np.float32))
    known = condition

    def call(x: NDArray[np.float32], t: Floats, rows: Rows) -> NDArray[np.float32]:
        on = (interval[0] <= t) & (t <= interval[1]) & (weight != 1.0)
        null = null_condition(model.spec, int(on.sum()))
        out = model.network(
            np.concatenate([x, x[on]]),
            np.concatenate([t, t[on]]).astype(np.float32),
            np.concatenate([known[rows], null]),
        )
        one, without = out[: len(x)].copy(), out[len(x) :]
        one[on] = mixed(one[on], without, float(weight))
        return one

    return call


def check_tolerances(rtol: float, atol: float) -> None:
    """Raise ValueError unless both are numbers within 1e-12 to 1."""
    check_tolerance("rtol", rtol)
    check_tolerance("atol", atol)


def check_tolerance(what: str, value: float) -> None:
    """Raise ValueError unless it is a number within 1e-12 to 1."""
    if not (is_number(value) and FINEST <= value <= COARSEST):  # NaN compares False
        raise ValueError(
            f"{what}: expected {FINEST:g} to {COARSEST:g}, got {quoted(value)}; 1e-5 is a good start"
        )


def states(what: str, given: Any, n: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The array as float32, if it is (n, *shape) of finite numbers; else ValueError."""
    array = one_array(what, given)
    if array.shape != (n, *shape) or array.dtype.kind != "f":
        raise ValueError(
            f"{what}: expected float32 {(n, *shape)}, got {array.dtype} {array.shape}; "
            "the batch comes first, channels last"
        )
    return finite(what, array)


def listed(times: Sequence[float]) -> list[float]:
    """The times as a list; ValueError for what is none."""
    try:
        found = np.array(times, np.float64)
    except (TypeError, ValueError, OverflowError):
        found = np.empty(())
    if found.ndim != 1:
        raise ValueError(
            f"times: expected a list of times, got {quoted(times)}; (0, 1) is from noise to data"
        )
    as_floats: list[float] = found.tolist()
    return as_floats


def _route(spec: Spec, times: Sequence[float]) -> list[float]:
    """The times checked and trimmed, in the direction they came in."""
    schedule, asked = named(spec.schedule), listed(times)
    back = len(asked) > 1 and not asked[0] < asked[-1]
    rising = grids.make(asked[::-1] if back else asked, None, schedule)
    trimmed: list[float] = grids.trim(rising, schedule, spec.prediction).tolist()
    return trimmed[::-1] if back else trimmed
