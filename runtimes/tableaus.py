"""Ready-made tableaus: what a sampler file carries in its metadata, so that no client needs a solver.

    [{"solver", "steps", "grid", "sigma", "times", "ends", "shape", "data", ("fit")}, ...]

data is the base64 of the little-endian float32 array of `tableau.dense`; sigma is that of the first
time, with which a run's noise starts; ends are the rows after which slot 0 is the state at the next
of times. The first is the recommended one. fit stands beside the solver "fitted", whose numbers were
chosen for this network (`toolkit.fit`); such tableaus stand in a file without a loop inside too.
"""

import base64
import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import grids
from .schedules import named
from .solvers import SOLVERS
from .spec import Spec
from .tableau import Tableau, check_dense, dense
from .trace import trace

SOLVERS_KEPT = ("euler", "heun", "dpmpp_2m", "ancestral")
STEPS_KEPT = (5, 10, 20)


@dataclass(frozen=True)
class Fit:
    """What was measured of a fitted tableau: its end error inside a range of guidance and off it.

    guidance: (from, to). error: the median over samples of sqrt(mean (x - x_fine)^2), on noise that it was
    not fitted to; off: (weight, error) at weights outside the range.
    """

    guidance: tuple[float, float]
    error: float
    off: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Ready:
    """One tableau with its name: see the top of this file."""

    solver: str
    steps: int
    grid: str
    sigma: float
    times: tuple[float, ...]
    ends: tuple[int, ...]
    tensor: NDArray[np.float32]
    fit: Fit | None = None


def traced(spec: Spec, solver: str, steps: int, grid: str, *, guided: bool) -> Tableau:
    """The run of that solver on a model's path, with guidance in every row or in none."""
    return trace(
        solver,
        _times(spec, steps, grid),
        schedule=spec.schedule,
        prediction=spec.prediction,
        guided=(0.0, 1.0) if guided and spec.condition.kind != "none" else None,
    )


def ready(spec: Spec, solver: str, steps: int, grid: str) -> Ready:
    """The tableau of that solver on a model's path, its guidance flag on in every row.

    The flag costs nothing where the weight is 1, for then the graph leaves the unconditional half out.
    """
    times = _times(spec, steps, grid)
    tableau = traced(spec, solver, steps, grid, guided=True)
    ends = tuple(k for k, row in enumerate(tableau.rows) if row.ends_step)
    sigma = float(named(spec.schedule)(times[0]).sigma)
    return Ready(solver, steps, grid, sigma, times, ends, dense(tableau))


def _times(spec: Spec, steps: int, grid: str) -> tuple[float, ...]:
    schedule = named(spec.schedule)
    times = grids.trim(grids.make(grid, steps, schedule), schedule, spec.prediction)
    return tuple(float(t) for t in times)


def recommended(spec: Spec) -> Ready:
    """The tableau of the recommended sampler."""
    best = spec.sampler
    return ready(spec, best.solver, best.steps, best.grid)


def kept(spec: Spec) -> tuple[Ready, ...]:
    """The recommended one, then a few solvers at a few step counts on the same grid."""
    best = spec.sampler
    others = [
        (solver, steps)
        for solver in SOLVERS_KEPT
        for steps in STEPS_KEPT
        if (solver, steps) != (best.solver, best.steps) and steps > SOLVERS[solver].past
    ]
    return (recommended(spec), *(ready(spec, *other, best.grid) for other in others))


def to_json(tableaus: tuple[Ready, ...]) -> str:
    """The metadata entry."""
    return json.dumps(
        [
            {
                "solver": one.solver,
                "steps": one.steps,
                "grid": one.grid,
                "sigma": one.sigma,
                "times": [round(t, 6) for t in one.times],
                "ends": one.ends,
                "shape": one.tensor.shape,
                "data": base64.b64encode(one.tensor.astype("<f4").tobytes()).decode(),
                **({} if one.fit is None else {"fit": asdict(one.fit)}),
            }
            for one in tableaus
        ],
        separators=(",", ":"),
    )


def from_json(text: str) -> tuple[Ready, ...]:
    """The tableaus of a metadata entry. Raises ValueError saying which one is not as it should be."""
    try:
        entries = json.loads(text)
        if not isinstance(entries, list):
            raise TypeError(f"a {type(entries).__name__} in place of a list")
        return tuple(_one(entry) for entry in entries)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"tableaus: expected a list of tableaus, got another text ({str(error)[:120]}); export again"
        ) from None


def _one(entry: dict[str, object]) -> Ready:
    shape = entry["shape"]
    data = base64.b64decode(str(entry["data"]), validate=True)
    tensor = check_dense(np.frombuffer(data, "<f4").astype(np.float32).reshape(shape))  # type: ignore[call-overload]
    times = tuple(float(t) for t in entry["times"])  # type: ignore[attr-defined]
    ends = tuple(int(k) for k in entry["ends"])  # type: ignore[attr-defined]
    words = (str(entry["solver"]), int(str(entry["steps"])), str(entry["grid"]))
    if (
        len(ends) + 1 != len(times)
        or ends[-1] != len(tensor) - 1
        or list(ends) != sorted(set(ends))
    ):
        raise ValueError(f"{len(ends)} step ends in {len(tensor)} rows, {len(times)} times")
    fit = _fit(entry["fit"]) if "fit" in entry else None
    return Ready(*words, float(str(entry["sigma"])), times, ends, tensor, fit)


def _fit(entry: Any) -> Fit:
    low, high = (float(weight) for weight in entry["guidance"])
    off = tuple((float(weight), float(error)) for weight, error in entry["off"])
    fit = Fit((low, high), float(entry["error"]), off)
    if not all(
        math.isfinite(x) for x in (low, high, fit.error, *(x for pair in off for x in pair))
    ):
        raise ValueError("a fit that is not finite")
    return fit
