"""Every solver, schedule and prediction on ONNX Runtime, measured against known densities.

    gap     max |y(ONNX Runtime, float32) - y(float64)| / max |y(float64)|, y a prediction or a run's end
    error   root mean square of x(ONNX Runtime) - x(the ODE's end); for a noisy solver max |C - C_exact|
            of the covariance it arrives at, which probing with unit vectors gives without any chance
    order   log(error / error') / log(steps' / steps) of the two finest runs with an error above FLOOR

Runs go from alpha / sigma = 1/4 to 4: the same noise levels on every schedule, and finite rates. The
float32 noise in a state is about 3e-7, so an error below FLOOR does not count. That leaves few and
coarse steps, so SHARE of the declared order is enough, from which a lost order is told apart: the
tests in float64 hold the same solvers to 0.1 of their order. What this adds is the runtime and its
provider, by graphs that any other client can be held against too.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes import session
from runtimes.flow import flow
from runtimes.noise import noise, seed_rows
from runtimes.predictions import PREDICTIONS, input_scale
from runtimes.providers import PROVIDERS
from runtimes.sample import collect, plan
from runtimes.schedules import SCHEDULES, time_of_ratio
from runtimes.session import Model
from runtimes.solvers import SOLVERS
from runtimes.spec import Spec

from .densities import DENSITIES, Density
from .density_graphs import write, write_laws

FROM, TO = 0.25, 4.0  # alpha / sigma
STEPS = {1: (16, 24), 2: (32, 48)}
FINE_STEPS = (3, 4, 6, 9, 14, 21, 32, 48)  # for order 3 and above, until the error is below FLOOR
NOISY_STEPS = {1: (16, 24), 2: (12, 18, 24, 36, 100, 150)}  # EDM churns less below 97 steps
FLOOR, NOISY_FLOOR = 3e-6, 1e-4
SHARE, GAP = 0.8, 2e-5
SAMPLES, SEED = 32, 5
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """A solver, or a density's network and laws ("exact"), on one schedule and prediction.

    declared and order: NaN where there is none, or where fewer than two errors are above FLOOR.
    """

    provider: str
    what: str
    schedule: str
    prediction: str
    gap: float
    declared: float = math.nan
    order: float = math.nan
    error: float = math.nan
    steps: int = 0

    @property
    def off(self) -> bool:
        """Whether it differs from float64 or falls short of its order."""
        return not self.gap <= GAP or self.order < SHARE * self.declared


def providers() -> list[str]:
    """Our words for the providers that the installed ONNX Runtime has, but for tensorrt.

    A build for CUDA says that it has TensorRT, installed or not, and thousands of small files are not what
    engines are built for.
    """
    present = session.onnxruntime().get_available_providers()
    return [w for w, (name, _) in PROVIDERS.items() if name in present and w != "tensorrt"]


def write_all(
    folder: Path, *, schedules: Sequence[str] = (), predictions: Sequence[str] = ()
) -> int:
    """Every model file DENSITY-SCHEDULE-PREDICTION.onnx and DENSITY-SCHEDULE-laws.onnx; how many."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(product(DENSITIES, schedules or SCHEDULES))
    for name, schedule in names:
        write_laws(folder / f"{name}-{schedule}-laws.onnx", name, schedule)
        for prediction in predictions or PREDICTIONS:
            write(folder / f"{name}-{schedule}-{prediction}.onnx", name, schedule, prediction)
    return len(names) * (1 + len(predictions or PREDICTIONS))


def rows(
    folder: Path, provider: str, schedule: str, prediction: str, solvers: Sequence[str] = ()
) -> Iterator[Row]:
    """Every density and every solver on one schedule and prediction, with the files of `write_all`."""

    def open_one(name: str) -> Model:
        path = folder / f"{name}-{schedule}-{prediction}.onnx"
        return session.load(path, provider=provider, threads=1)

    models = {name: open_one(name) for name in DENSITIES}
    for name, model in models.items():
        gaps = [network_gap(model, DENSITIES[name])]
        if prediction == "data":  # once per schedule is enough
            gaps.append(run_gap(model, DENSITIES[name], "heun"))
            gaps.append(laws_gap(folder / f"{name}-{schedule}-laws.onnx", provider, model.spec))
        yield Row(provider, f"exact {name}", schedule, prediction, max(gaps))
    for solver in solvers or SOLVERS:
        gap = run_gap(models["overlapping"], DENSITIES["overlapping"], solver)
        measured = errors(models["overlapping"], models["gaussian"], solver)
        floor = NOISY_FLOOR if SOLVERS[solver].noisy else FLOOR
        order, steps = order_of(measured, floor)
        declared = SOLVERS[solver].order
        yield Row(
            provider, solver, schedule, prediction, gap, declared, order, measured[steps], steps
        )


def measure(
    folder: Path,
    *,
    solvers: Sequence[str] = (),
    schedules: Sequence[str] = (),
    predictions: Sequence[str] = (),
    jobs: int = 1,
) -> Iterator[list[Row]]:
    """`rows` of every provider, schedule and prediction (all of them if left out), `jobs` at a time."""
    tasks = list(product(providers(), schedules or SCHEDULES, predictions or PREDICTIONS))
    each = partial(_task, folder, tuple(solvers))
    if jobs == 1:
        yield from map(each, tasks)
        return
    # spawned, not forked: a fork would share ONNX Runtime's threads
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(each, tasks)


def _task(folder: Path, solvers: Sequence[str], task: tuple[str, str, str]) -> list[Row]:
    return list(rows(folder, *task, solvers))


def errors(bent: Model, flat: Model, solver: str) -> dict[int, float]:
    """steps -> error, in growing numbers of steps; see the top of this file."""
    order, noisy = SOLVERS[solver].order, SOLVERS[solver].noisy
    measure, model = (covariance_error, flat) if noisy else (end_error, bent)
    found: dict[int, float] = {}
    for steps in (NOISY_STEPS if noisy else STEPS).get(order, FINE_STEPS):
        if steps <= SOLVERS[solver].past:
            continue
        found[steps] = measure(model, solver, steps)
        if found[steps] < (NOISY_FLOOR if noisy else FLOOR):
            break
    return found


def order_of(errors: dict[int, float], floor: float) -> tuple[float, int]:
    """The order that the two finest errors above the floor show, and the steps of the finer one."""
    good = [steps for steps, error in errors.items() if error >= floor][-2:]
    if len(good) < 2:
        return math.nan, list(errors)[-1]
    coarse, fine = good
    return math.log(errors[coarse] / errors[fine]) / math.log(fine / coarse), fine


def end_error(model: Model, solver: str, steps: int) -> float:
    """Root mean square of ONNX Runtime's end minus the ODE's, on the overlapping mixture."""
    times = grid(model.spec.schedule, steps)
    end = collect(plan(model, SAMPLES, solver=solver, grid=times, seed=SEED))
    last = SCHEDULES[model.spec.schedule](times[-1])
    return float(np.sqrt(np.mean((end - exact_end() * float(last.alpha + last.sigma)) ** 2)))


@lru_cache(maxsize=1)
def exact_end() -> Floats:
    """x / (alpha + sigma) where the ODE ends: the same on all schedules, so by 512 steps on the linear."""
    times, density = grid("linear", 512), DENSITIES["overlapping"]
    x = noise(seed_rows(SEED, SAMPLES), (2,), 0).astype(np.float64) * (1.0 - times[0])
    network = exact(density, Spec("exact", (2,), prediction="data"), None)
    *_, end = flow("rk4", network, x, times, prediction="data")
    return np.asarray(end)


def covariance_error(model: Model, solver: str, steps: int) -> float:
    """max |C - C_exact| at the end of a run from the exact law, on the Gaussian.

    The run is affine, x_end = A x + b + sum_k F_k z_k: one row of zeros, one row for each unit of x and one
    for each unit of every z_k read A and F off, and C = A C_start A^T + sum F_k F_k^T.
    """
    density, dims = DENSITIES["gaussian"], 2
    times = grid(model.spec.schedule, steps)
    seeds = np.arange(1 + dims * (steps + 1))

    def unit(seeds: NDArray[np.int64], shape: tuple[int, ...], draw: int) -> NDArray[np.float32]:
        return np.eye(len(seeds), dims, -1 - dims * draw, np.float32)

    todo = replace(plan(model, len(seeds), solver=solver, grid=times), seeds=seeds, source=unit)
    end = collect(todo, batch=len(seeds)).astype(np.float64)
    alpha, sigma = (
        np.asarray(part) for part in SCHEDULES[model.spec.schedule](np.array(times))[:2]
    )
    covariance = (density.axes * density.variances) @ density.axes.T
    first, last = (alpha[k] ** 2 * covariance + sigma[k] ** 2 * np.eye(dims) for k in (0, -1))
    units = end[1:] - end[0]
    turn = units[:dims].T / sigma[0]  # the first draw is multiplied with sigma
    got = turn @ first @ turn.T + units[dims:].T @ units[dims:]
    return float(np.abs(got - last).max())


def network_gap(model: Model, density: Density) -> float:
    """The gap of the network itself, a time from 0.02 to 0.98 and another condition for each row."""
    spec, n = model.spec, 9
    times, condition = np.linspace(0.02, 0.98, n, dtype=np.float32), conditions(spec, n, null=True)
    x = noise(seed_rows(SEED, n), spec.shape, 0)
    mine = model.network(x, times, condition)
    theirs = [
        exact(density, spec, None if condition is None else condition[k : k + 1])(
            x[k : k + 1].astype(np.float64), float(times[k])
        )
        for k in range(n)
    ]
    return max(gap_of(mine[k : k + 1], row) for k, row in enumerate(theirs))


def run_gap(model: Model, density: Density, solver: str) -> float:
    """The gap at the end of 8 steps of a solver, same noise."""
    spec, n = model.spec, 5
    times, seeds, condition = grid(spec.schedule, 8), seed_rows(SEED, n), conditions(spec, n)
    words: dict[str, Any] = {} if condition is None else {spec.condition.kind: condition}
    todo = plan(model, n, solver=solver, grid=times, seed=SEED, **words)
    *_, theirs = flow(
        solver,
        exact(density, spec, condition),
        todo.first(0, n, times[0]).astype(np.float64),
        times,
        schedule=spec.schedule,
        prediction=spec.prediction,
        draw=lambda k: noise(seeds, spec.shape, k + 1).astype(np.float64),
    )
    return gap_of(collect(todo), theirs)


def laws_gap(path: Path, provider: str, spec: Spec) -> float:
    """The gap of the posterior means, the score and the log-density in a file of `write_laws`."""
    ort, n, t = session.onnxruntime(), 6, np.float32(0.6)
    opened = ort.InferenceSession(path, providers=[PROVIDERS[provider]])
    x, condition = noise(seed_rows(SEED, n), spec.shape, 0), conditions(spec, n, null=True)
    feeds = {"x": x, "time": np.full(n, t)}
    if condition is not None:
        feeds[spec.condition.kind] = condition
    scales = SCHEDULES[spec.schedule](float(t))
    density = DENSITIES[spec.name.split()[0]]
    exact_x = x.astype(np.float64)
    laws = density.laws(exact_x, float(scales.alpha), float(scales.sigma), condition)
    return max(
        gap_of(mine, laws[name])
        for name, mine in zip(laws, opened.run(list(laws), feeds), strict=True)
    )


def exact(density: Density, spec: Spec, condition: NDArray[Any] | None) -> Any:
    """network(x, t) in float64: c data + d noise of the density's own laws."""

    def network(x: Floats, t: float) -> Floats:
        scales = SCHEDULES[spec.schedule](t)
        x = x / float(input_scale(spec.prediction, scales))
        laws = density.laws(x, float(scales.alpha), float(scales.sigma), condition)
        c, d = (float(value) for value in PREDICTIONS[spec.prediction](scales))
        return c * laws["data"] + d * laws["noise"]

    return network


def conditions(spec: Spec, n: int, *, null: bool = False) -> NDArray[Any] | None:
    """Labels in turn (the null one among them if asked for), contexts at random, or None."""
    if spec.condition.kind == "label":
        return np.arange(n, dtype=np.int64) % (spec.condition.classes + null)
    if spec.condition.kind == "context":
        return noise(seed_rows(3, n), spec.condition.shape, 0)
    return None


def grid(schedule: str, steps: int) -> list[float]:
    """Even times between the two noise levels."""
    return [float(t) for t in np.linspace(*_between(schedule), steps + 1)]


@lru_cache(maxsize=64)
def _between(schedule: str) -> tuple[float, float]:
    low, high = (float(time_of_ratio(SCHEDULES[schedule], ratio)) for ratio in (FROM, TO))
    return low, high


def gap_of(mine: NDArray[Any], theirs: Floats) -> float:
    """max |mine - theirs| / max |theirs|."""
    return float(np.abs(mine - theirs).max() / np.abs(theirs).max())


def table(found: Sequence[Row]) -> str:
    """The rows for people: one line for each solver and schedule, the worst of its predictions."""
    lines = [f"{'':46}order     measured         error  steps       gap"]
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in found:
        groups.setdefault((row.provider, row.what, row.schedule), []).append(row)
    for (provider, what, schedule), group in groups.items():
        start = f"{provider:<5}{what:<24} {schedule:<16}"
        gap, marks = max(row.gap for row in group), [row.prediction for row in group if row.off]
        end = f"{gap:8.1e}{'  OFF: ' + ', '.join(marks) if marks else ''}"
        orders = [row.order for row in group if not math.isnan(row.order)]
        worst = max(group, key=lambda row: row.error)
        if math.isnan(worst.declared):
            lines.append(f"{start}{'':36}{end}")
            continue
        span = f"{min(orders):5.2f} to {max(orders):4.2f}" if orders else "below floor  "
        lines.append(
            f"{start}{worst.declared:4.0f}   {span}   {worst.error:8.1e}  {worst.steps:>5}  {end}"
        )
    return "\n".join(lines)
