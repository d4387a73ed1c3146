"""The same run of a sampler by everything that is here: torch, MLX, ONNX Runtime on each provider.

    error_k = max |x_k - r_k|,    relative to max |r_k|,    k = 0 .. steps

x_k is a backend's state after k steps and r_k the reference's, the first backend. All start from the
same noise, and each feeds on its own states, so what is measured is what a person would see.

    backends, absent = find("runs/digits", ["digits.onnx"])
    result = timed(compare(backends, 8, request={"label": 7}))
"""

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from runtimes.choices import is_number
from runtimes.conditions import MOST_BYTES, fits, whole
from runtimes.modelfile import ModelError
from runtimes.noise import noise, seed_rows
from runtimes.sample import Plan, plan
from runtimes.session import Floats
from runtimes.spec import Spec
from runtimes.timing import interleaved, quartiles

from .backends import Backend, same

TOLERANCE = 1e-4  # relative, float32: that of the gate every export passes
MOST = 100_000  # samples: every state of two backends is held
STARTS = 3  # processes started for a cold start, at most
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Row:
    """What one backend did. steps: those after which its states were seen, with the errors there.

    sample: its last state. failure: why it did not get there. rate: samples a second, quartiles and
    median. cold: seconds from the start of a process to its first sample; megabytes: its peak memory.
    """

    backend: Backend
    steps: tuple[int, ...]
    absolute: tuple[float, ...]
    relative: tuple[float, ...]
    sample: Floats | None
    failure: str = ""
    rate: tuple[float, float, float] | None = None
    cold: float | None = None
    megabytes: float | None = None

    @property
    def worst(self) -> float:
        """The largest relative error on the path; infinite where it ended early or is not a number."""
        values = [error if error == error else math.inf for error in self.relative]
        return math.inf if self.failure else max(values)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Every backend's row, the reference's first, and the run they all did.

    request: what `runtimes.plan` was asked for, the recommended written out.
    """

    request: Mapping[str, Any]
    plan: Plan
    tolerance: float
    rows: tuple[Row, ...]

    @property
    def outside(self) -> tuple[Row, ...]:
        """The rows that are not within the tolerance."""
        return tuple(row for row in self.rows if not row.worst <= self.tolerance)

    @property
    def machine(self) -> str:
        """Where this was measured."""
        return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"


def compare(
    backends: Sequence[Backend],
    n: int,
    *,
    request: Mapping[str, Any],
    tolerance: float = TOLERANCE,
    progress: Progress | None = None,
) -> Comparison:
    """n samples by every backend, each state beside the reference's.

    request: label, context, solver, steps, grid, guidance, seed as `runtimes.plan` takes them; what is
    left out is as the reference recommends, labels and contexts are some of all kinds. tolerance: the
    largest relative error, above 0. progress(done, total, name of the backend) counts solver steps. Raises
    ValueError for models that differ and for what one cannot do, FloatingPointError if the reference fails.
    """
    _check(backends, tolerance)
    whole("n", n, 1, MOST)
    model = backends[0].model
    spec = model.spec
    settled = _settled(spec, n, request)
    todo = plan(model, n, **settled)
    fits("n", n * len(todo.times), spec.shape, MOST_BYTES)  # the reference's states are all kept
    rows: list[Row] = []
    reference: dict[int, Floats] = {}
    steps = len(todo.times) - 1
    for index, backend in enumerate(backends):

        def tell(step: int, name: str = backend.name, before: int = index * steps) -> None:
            if progress is not None:
                progress(before + step, len(backends) * steps, name)

        states, failure = _states(backend, todo, tell)
        if failure and not rows:
            raise FloatingPointError(f"{backend.name}: {failure}")
        reference = reference or states
        rows.append(_row(backend, states, reference, failure))
    return Comparison(settled, todo, tolerance, tuple(rows))


def timed(
    comparison: Comparison, *, rounds: int = 5, progress: Progress | None = None
) -> Comparison:
    """The same with rates, cold starts and memory of the backends that came to an end.

    rounds: 1 or more turns of all, each with the threads it chooses itself; up to 3 processes of each.
    """
    whole("rounds", rounds, 1, 1000)
    todo = comparison.plan
    able = {row.backend.name: row for row in comparison.rows if not row.failure}
    peaks = dict.fromkeys(able, 0.0)

    def run(backend: Backend) -> None:
        for _ in backend.states(todo, math.inf):  # the last one is asked for
            pass

    def start(backend: Backend) -> None:
        peak = backend.peak(todo, comparison.request)
        peaks[backend.name] = max(peak, peaks[backend.name])

    staying = [row.backend for row in able.values() if row.backend.resident]
    runs = {backend.name: partial(run, backend) for backend in staying}
    starts = {name: partial(start, row.backend) for name, row in able.items()}
    rates = interleaved(runs, rounds, _word(progress, "runs"))
    cold = interleaved(starts, min(rounds, STARTS), _word(progress, "processes"))
    rows = []
    for row in comparison.rows:
        name = row.backend.name
        if name in rates:
            rate = quartiles([len(todo.seeds) / seconds for seconds in rates[name]])
            row = replace(row, rate=rate)
        if name in able:
            row = replace(row, cold=quartiles(cold[name])[1], megabytes=peaks[name])
        rows.append(row)
    return replace(comparison, rows=tuple(rows))


def _settled(spec: Spec, n: int, request: Mapping[str, Any]) -> dict[str, Any]:
    """The request, what the model recommends written out; conditions of all kinds where none is given."""
    best, kind = spec.sampler, spec.condition.kind
    given = {key: value for key, value in request.items() if value is not None}
    own: dict[str, Any] = {
        "solver": best.solver,
        "steps": best.steps,
        "grid": best.grid,
        "seed": 0,
    }
    if not isinstance(given.get("grid", ""), str):  # times of one's own
        own.pop("steps")
    if kind == "label":
        own |= {"guidance": best.guidance, "label": list(range(spec.condition.classes))}
    elif kind == "context":
        drawn = noise(seed_rows(3, n), spec.condition.shape, 0)
        own |= {"guidance": best.guidance, "context": drawn}
    return {**own, **given}


def _check(backends: Sequence[Backend], tolerance: float) -> None:
    """Raise ValueError unless there are two or more, with one contract, and a tolerance."""
    if not (is_number(tolerance) and 0.0 < tolerance < math.inf):
        raise ValueError(f"tolerance: expected a number above 0, got {tolerance!r}; 1e-4 is usual")
    if len(backends) < 2:
        names = " and ".join(backend.name for backend in backends) or "nothing"
        raise ValueError(
            f"compare: expected two backends or more, got {names} alone; "
            "give a run folder and .onnx files of it"
        )
    same(backends)


def _states(
    backend: Backend, todo: Plan, tell: Callable[[int], None]
) -> tuple[dict[int, Floats], str]:
    """The states by step, and why there are no more of them. ValueError for a run it cannot do."""
    states: dict[int, Floats] = {}
    try:
        for state in backend.states(todo):
            states[state.step] = state.x
            tell(state.step)
    except (FloatingPointError, ModelError) as error:
        return states, str(error)
    except ValueError as error:  # such as other steps than those of an unrolled file
        raise ValueError(f"{backend.name}: {error}") from None
    return states, ""


def _row(
    backend: Backend, states: dict[int, Floats], reference: dict[int, Floats], failure: str
) -> Row:
    steps = tuple(step for step in states if step in reference)
    absolute = [float(np.abs(states[k] - reference[k]).max()) for k in steps]
    scales = [float(np.abs(reference[k]).max()) for k in steps]
    relative = tuple(
        error / scale if scale else error for error, scale in zip(absolute, scales, strict=True)
    )
    sample = None if failure else states[max(states)]
    return Row(backend, steps, tuple(absolute), relative, sample, failure)


def _word(progress: Progress | None, word: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(done, total, word)
