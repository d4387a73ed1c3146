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
FITTED, MOST_CALLS = "fitted", 32  # the word in a solver's place, and how many calls it may have
# what reading a stranger's JSON ends in
FAULTS = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)


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
    sigma = float(named(spec.schedule)(times[0]).sigma)
    return Ready(solver, steps, grid, sigma, times, tableau.ends, dense(tableau))


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
    except FAULTS as error:
        raise ValueError(
            f"tableaus: expected a list of tableaus, got another text ({str(error)[:120]}); export again"
        ) from None


def _one(entry: Any) -> Ready:
    words = {"solver": str, "steps": int, "grid": str, "data": str}
    for key, kind in words.items():
        if type(entry[key]) is not kind:
            raise TypeError(f"{key} {str(entry[key])[:20]!r}")
    times, (sigma,) = _numbers(entry["times"]), _numbers([entry["sigma"]])
    ends, shape = (tuple(_whole(n) for n in entry[key]) for key in ("ends", "shape"))
    data = base64.b64decode(entry["data"], validate=True)
    if len(shape) != 3 or math.prod(shape) * 4 != len(data):
        raise ValueError(f"{len(data)} bytes for the shape {str(shape)[:40]}")
    tensor = check_dense(np.frombuffer(data, "<f4").astype(np.float32).reshape(shape))
    if (
        len(ends) + 1 != len(times)
        or ends[-1] != len(tensor) - 1
        or list(ends) != sorted(set(ends))
    ):
        raise ValueError(f"{len(ends)} step ends in {len(tensor)} rows, {len(times)} times")
    if entry["solver"] == FITTED and not len(tensor) == entry["steps"] <= MOST_CALLS:
        raise ValueError(f"{entry['steps']} fitted calls in {len(tensor)} rows")
    fit = _fit(entry["fit"]) if "fit" in entry else None
    return Ready(entry["solver"], entry["steps"], entry["grid"], sigma, times, ends, tensor, fit)


def _fit(entry: Any) -> Fit:
    low, high = _numbers(entry["guidance"])
    (error,) = _numbers([entry["error"]])
    off = tuple(_numbers(pair) for pair in entry["off"])
    if low > high or error < 0.0 or any(len(pair) != 2 for pair in off):
        raise ValueError("a fit that measures nothing")
    return Fit((low, high), error, tuple((weight, there) for weight, there in off))


def _numbers(values: Any) -> tuple[float, ...]:
    """Finite numbers as floats."""
    found = tuple(float(value) for value in values if type(value) in (int, float))
    if len(found) != len(values) or not all(math.isfinite(value) for value in found):
        raise ValueError("a number that is not finite, or none")
    return found


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{str(value)[:20]!r} in place of a count")
    return value
