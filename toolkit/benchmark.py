"""What a person chooses by: error against milliseconds, for every file, provider, batch and number of calls.

    error         median over samples of sqrt(mean (x - x_fine)^2), x_fine by rk4 with 100 steps in float32
    milliseconds  of one sample in a batch: median and quartiles over rounds, all contenders interleaved

One file per precision or form; other engines run the same loop around the same network. Which solver
makes the calls is decided once, by the error in the first file, and is the same for all.
"""

import itertools
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import runtimes
from runtimes import timing
from runtimes.choices import choose
from runtimes.sample import Sampleable
from runtimes.session import Model, onnxruntime
from runtimes.tableaus import FITTED

from .costs import FINE, steps_of
from .peers import Contender, open_files, open_peers, precision_of

SOLVERS = ("euler", "heun", "ab2", "dpmpp_2m", "unipc2", "rk4")  # candidates where none are given
CALLS = (4, 8, 16, 32)
COLD = """
import runtimes
model = runtimes.load({path!r}, provider={provider!r}, threads=1)
runtimes.sample(model, 1, **{request!r})
"""
COLD_ROUNDS = 3


@dataclass(frozen=True)
class Row:
    """One contender at one number of calls, in one batch. milliseconds: quartiles, median in the middle."""

    name: str
    engine: str
    precision: str
    provider: str
    batch: int
    threads: int
    solver: str
    steps: int
    calls: int
    milliseconds: tuple[float, float, float]
    error: float


@dataclass(frozen=True)
class Start:
    """From a process's start to its first sample: CPU seconds (median) and peak memory (largest)."""

    name: str
    form: str
    precision: str
    size: int
    seconds: float
    megabytes: float


@dataclass(frozen=True)
class Result:
    """rows, starts, the peers that were absent and why, and what it was all measured on."""

    rows: tuple[Row, ...]
    starts: tuple[Start, ...]
    absent: dict[str, str]
    settings: dict[str, Any]


def measure(
    files: Sequence[str | Path],
    *,
    request: Mapping[str, Any],
    calls: Sequence[int] = CALLS,
    solvers: Sequence[str] = SOLVERS,
    batches: Sequence[int] = (1, 16),
    providers: Sequence[str] = ("cpu",),
    threads: int = 0,
    run: Path | None = None,
    n: int = 64,
    rounds: int = 9,
    clock: str = "wall",
    progress: Callable[[str], None] = lambda text: None,
) -> Result:
    """Measure all of it. request: label, guidance, seed, ... as `runtimes.sample` takes it.

    threads: 0 times one thread against all cores for every batch and takes the faster (on the wall's clock;
    else one). run: a run folder, for torch. n: samples of which the error is the median. clock: one of
    `CLOCKS`. The fine solution is that of the first file in fp32, or of the first.
    Raises ValueError for files that are not of one network, and for numbers of calls nothing makes.
    """
    tick = timing.CLOCKS[choose("clock", clock, timing.CLOCKS)]
    opened = _same(files, providers[0])
    first = next((one for one in opened if precision_of(one) == "fp32"), opened[0])
    progress("a fine solution")
    fine = runtimes.sample(first, n, **{**request, **FINE})
    chosen = best_solvers(first, fine, solvers, calls, request)
    rows: list[Row] = []
    errors: dict[str, float] = {}
    told, absent = dict[str, Any](), dict[str, str]()
    for provider, batch in itertools.product(providers, batches):
        fixed = threads or int(clock != "wall")  # CPU time cannot tell what threads gain
        count, ratio = _threads(files[0], provider, batch, fixed, request, chosen)
        told[f"{provider}, batch {batch}"] = {"threads": count, "all / one": ratio}
        contenders = open_files(files, provider, count)
        if provider == providers[0]:
            peers, absent = open_peers(contenders, run, count)
            contenders += peers
        progress(f"{provider}, batch {batch}, threads {count}")
        runs = _runs(contenders, chosen, batch, request)
        timed = timing.warmed({key: one.go for key, one in runs.items()})
        seconds = timing.interleaved(timed, rounds, clock=tick)
        for key, one in runs.items():
            if key not in errors:
                errors[key] = error_of(one.contender.model, fine, one.asked)
            rows.append(_row(one, batch, [1e3 * s / batch for s in seconds[key]], errors[key]))
    progress("cold starts")
    starts = tuple(cold_start(path, providers[0], request) for path in files)
    settings = {
        "machine": platform.machine(), "system": platform.system(), "cores": timing.cores(),
        "onnxruntime": onnxruntime().__version__, "clock": clock, "rounds": rounds, "samples": n,
        "threads": told, "request": dict(request), "fine": f"{first.file.path.stem}, rk4, 100 steps",
    }  # fmt: skip
    return Result(tuple(rows), starts, absent, settings)


def best_solvers(
    model: Sampleable,
    fine: np.ndarray,
    solvers: Sequence[str],
    calls: Sequence[int],
    request: Mapping[str, Any],
) -> dict[int, tuple[str, int]]:
    """Number of calls -> the solver and steps that err least with so many."""
    chosen = {}
    for count in sorted(set(calls)):
        tried = [
            (error_of(model, fine, _asked(request, solver, steps)), solver, steps)
            for solver in solvers
            for steps in steps_of(solver, [count])
        ]
        if tried:
            _, solver, steps = min(tried)
            chosen[count] = (solver, steps)
    if not chosen:
        raise ValueError(
            f"calls: expected numbers that one of {', '.join(solvers)} makes, got {list(calls)}; "
            "give larger ones, or other solvers"
        )
    return chosen


def error_of(model: Sampleable, fine: np.ndarray, asked: Mapping[str, Any]) -> float:
    """How far the samples of one request end from the fine ones of the same seeds."""
    apart = (runtimes.sample(model, len(fine), **asked) - fine).reshape(len(fine), -1)
    return float(np.median(np.sqrt((apart.astype(np.float64) ** 2).mean(1))))


def cold_start(path: str | Path, provider: str, request: Mapping[str, Any]) -> Start:
    """A few processes, one after the other: load the file on one thread and draw one sample."""
    model = runtimes.load(path, provider="cpu", threads=1)
    program = COLD.format(path=str(path), provider=provider, request=_one(request))
    took = [timing.alone(program) for _ in range(COLD_ROUNDS)]
    return Start(
        Path(path).stem,
        model.form,
        precision_of(model),
        len(model.file.content),
        float(np.median([seconds for seconds, _ in took])),
        max(megabytes for _, megabytes in took),
    )


@dataclass(frozen=True)
class Run:
    """One contender's samples by one solver: `go` draws them as `asked`, `calls` is what each takes."""

    contender: Contender
    name: str
    solver: str
    steps: int
    calls: int
    asked: Mapping[str, Any]
    go: Callable[[], object]


def _runs(
    contenders: Sequence[Contender],
    chosen: Mapping[int, tuple[str, int]],
    batch: int,
    request: Mapping[str, Any],
) -> dict[str, Run]:
    """Every contender by the chosen solvers, and by the tableaus that were fitted to it."""
    found = {}
    for contender in contenders:
        model, name = contender.model, contender.name
        ways = [(name, solver, k, _asked(request, solver, k)) for solver, k in chosen.values()]
        fits = {one.steps for one in getattr(model, "tableaus", ()) if one.solver == FITTED}
        ways += [
            (f"{name}, fitted", FITTED, count, {**request, "calls": count})
            for count in sorted(fits & chosen.keys())
        ]
        for shown, solver, steps, asked in ways:
            calls = runtimes.plan(model, 1, **_one(asked)).calls
            go = partial(runtimes.sample, model, batch, batch=batch, **asked)
            found[f"{shown}, {solver} {steps}"] = Run(
                contender, shown, solver, steps, calls, asked, go
            )
    return found


def _asked(request: Mapping[str, Any], solver: str, steps: int) -> dict[str, Any]:
    return {**request, "solver": solver, "steps": steps}


def _row(run: Run, batch: int, took: Sequence[float], error: float) -> Row:
    who = run.contender
    return Row(
        run.name, who.engine, who.precision, who.provider, batch, who.threads,
        run.solver, run.steps, run.calls, timing.quartiles(took), error,
    )  # fmt: skip


def _threads(
    path: str | Path,
    provider: str,
    batch: int,
    threads: int,
    request: Mapping[str, Any],
    chosen: Mapping[int, tuple[str, int]],
) -> tuple[int, float | None]:
    """(as many as asked for, None), or the faster of one and all, and the ratio of their times."""
    if threads:
        return threads, None
    solver, steps = next(iter(chosen.values()))
    told = _asked(request, solver, steps)

    def opened(count: int) -> Callable[[], object]:
        model = runtimes.load(path, provider=provider, threads=count)
        return lambda: runtimes.sample(model, batch, batch=batch, **told)

    return timing.threads_for(opened)


def _one(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request of a single sample, in words that Python reads back."""
    labels = request.get("label")
    return {**request, **({"label": labels[0]} if isinstance(labels, list) else {})}


def _same(files: Sequence[str | Path], provider: str) -> list[Model]:
    """The files opened: of one network, with solvers that can be chosen."""
    stems = [Path(path).stem for path in files]
    if len(set(stems)) < len(stems):
        raise ValueError(f"models: expected different names, got {', '.join(stems)}; rename one")
    opened = [runtimes.load(path, provider=provider, threads=1) for path in files]
    spec = opened[0].spec
    for model in opened:
        if model.form == "unrolled":
            raise ValueError(
                f"{model.file.path}: expected a file whose solver can be chosen, got the form 'unrolled'; "
                "benchmark the form network or sampler"
            )
        if (model.spec.shape, model.spec.condition) != (spec.shape, spec.condition):
            raise ValueError(
                f"{model.file.path}: expected samples of shape {spec.shape} under the same condition as in "
                f"{files[0]}, got {model.spec.shape}; benchmark one network at a time"
            )
    return opened
