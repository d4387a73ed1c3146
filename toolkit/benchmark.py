"""What a person chooses by: error against milliseconds, for every file, provider, batch and number of calls.

    error         median over samples of sqrt(mean (x - x_fine)^2), x_fine by rk4 with 100 steps in float32
    milliseconds  of one sample in a batch: median and quartiles over rounds, all contenders interleaved
    ratio         within rounds, to as many bare calls of the network: what the loop around them costs

One file per precision or form, and the peers: other engines, other loops. Which solver makes the
calls is decided once for each loop, by the error in the first file.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import runtimes
from runtimes import timing
from runtimes.choices import choose
from runtimes.sample import Sampleable
from runtimes.session import Model
from runtimes.tableaus import FITTED
from runtimes.timing import Clock, Quartiles
from runtimes.work import BATCH

from . import machine
from .costs import FINE, end_error, steps_of
from .floor import bare_calls, network_of
from .peers import (
    USUAL,
    Contender,
    Draw,
    Wanted,
    open_files,
    open_peers,
    ours,
    precision_of,
)
from .starts import Start, cold_start, one_of

SOLVERS = ("euler", "heun", "ab2", "dpmpp_2m", "unipc2", "rk4")  # candidates where none are given
CALLS = (4, 8, 16, 32)
Chosen = Mapping[int, tuple[str, int]]  # number of calls -> solver, steps


@dataclass(frozen=True)
class Row:
    """One contender at one number of calls, in one batch, its times as quartiles, the median in the middle.

    bare: milliseconds of as many bare calls; ratio: to those. Both None without a file of the form network.
    """

    name: str
    engine: str
    precision: str
    provider: str
    batch: int
    threads: int
    solver: str
    steps: int
    calls: int
    milliseconds: Quartiles
    bare: Quartiles | None
    ratio: Quartiles | None
    error: float


@dataclass(frozen=True)
class Result:
    """All that was measured. compiling: seconds, by contender and batch; absent: which peers, and why."""

    rows: tuple[Row, ...]
    starts: tuple[Start, ...]
    compiling: dict[str, float]
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
    peers: Sequence[str] = USUAL,
    n: int = 64,
    rounds: int = 9,
    clock: str = "wall",
    progress: Callable[[str], None] = lambda text: None,
) -> Result:
    """Measure all of it. request: label, guidance, seed, ... as `runtimes.sample` takes it.

    threads: 0 times one thread against all cores for every batch and takes the faster (on the wall's clock;
    else one). run: a run folder, for the peers that need one. n: samples of which the error is the median.
    clock: one of `CLOCKS`. The fine solution is that of the first file in fp32, or of the first.
    Raises ValueError for files that are not of one network, and for numbers of calls nothing makes.
    """
    tick = timing.CLOCKS[choose("clock", clock, timing.CLOCKS)]
    opened = _same(files, providers[0])
    first = next((one for one in opened if precision_of(one) == "fp32"), opened[0])
    progress("a fine solution")
    fine = runtimes.sample(first, n, **{**request, **FINE})

    @cache
    def chosen(own: tuple[str, ...]) -> Chosen:
        return best_solvers(first, fine, own or solvers, calls, request)

    rows, told = list[Row](), dict[str, Any]()
    compiling, absent = dict[str, float](), dict[str, str]()
    for provider, batch in itertools.product(providers, batches):
        fixed = threads or int(clock != "wall")  # CPU time cannot tell what threads gain
        count, ratio = _threads(files[0], provider, batch, fixed, request, chosen(()))
        told[f"{provider}, batch {batch}"] = {"threads": count, "all / one": ratio}
        contenders = open_files(files, provider, count)
        if provider == providers[0]:
            wanted = Wanted(contenders, run, count, batch, request, progress)
            found, absent = open_peers(peers, wanted)
            contenders = [*contenders, *found]
            cold = [one for one in contenders if one.first]
            compiling |= {f"{p.name}, batch {batch}": p.compiling for p in found if p.compiling}
        progress(f"{provider}, batch {batch}, threads {count}")
        runs = _runs(contenders, chosen, batch, request)
        rows += _timed(runs, batch, request, fine, rounds, tick)
    progress("cold starts")
    starts = tuple(cold_start(one, request) for one in cold)
    bare = network_of(cold)
    settings = machine.facts() | {
        "clock": clock, "rounds": rounds, "samples": n, "request": dict(request),
        "threads": told, "fine": f"{first.file.path.stem}, rk4, 100 steps",
        "bare": None if bare is None else bare.name,
    }  # fmt: skip
    return Result(tuple(rows), starts, compiling, absent, settings)


def best_solvers(
    model: Sampleable,
    fine: np.ndarray,
    solvers: Sequence[str],
    calls: Sequence[int],
    request: Mapping[str, Any],
) -> Chosen:
    """The solver and steps that err least with each number of calls."""
    chosen = {}
    for count in sorted(set(calls)):
        tried = [
            (error_of(ours(model), fine, _asked(request, solver, steps)), solver, steps)
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


def error_of(draw: Draw, fine: np.ndarray, asked: Mapping[str, Any], batch: int = BATCH) -> float:
    """How far the samples of one request end from the fine ones of the same seeds."""
    return end_error(draw(len(fine), batch, asked), fine)


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
    chosen: Callable[[tuple[str, ...]], Chosen],
    batch: int,
    request: Mapping[str, Any],
) -> list[Run]:
    """Every contender by the chosen of its solvers, and by the tableaus that were fitted to it.

    chosen(the solvers of a contender's own loop, or none): those that err least.
    """
    found = []
    for contender in contenders:
        model, name, best = contender.model, contender.name, chosen(contender.solvers)
        ways = [(name, solver, k, _asked(request, solver, k)) for solver, k in best.values()]
        ready = () if contender.solvers else getattr(model, "tableaus", ())
        fits = {one.steps for one in ready if one.solver == FITTED}
        ways += [
            (f"{name}, fitted", FITTED, count, {**request, "calls": count})
            for count in sorted(fits & best.keys())
        ]
        for shown, solver, steps, asked in ways:
            calls = runtimes.plan(model, 1, **one_of(asked)).calls
            go = partial(contender.draw, batch, batch, asked)
            found.append(Run(contender, shown, solver, steps, calls, asked, go))
    return found


def _asked(request: Mapping[str, Any], solver: str, steps: int) -> dict[str, Any]:
    return {**request, "solver": solver, "steps": steps}


def _timed(
    runs: Sequence[Run],
    batch: int,
    request: Mapping[str, Any],
    fine: np.ndarray,
    rounds: int,
    tick: Clock,
) -> list[Row]:
    """A row for each, beside the bare calls of the same rounds."""
    bare = bare_calls([one.contender for one in runs], batch, request, [one.calls for one in runs])
    timed = {f"run {k}": one.go for k, one in enumerate(runs)}
    timed |= {f"{calls} calls": go for calls, go in bare.items()}
    seconds = timing.interleaved(timing.warmed(timed), rounds, clock=tick)
    per = {name: [1e3 * one / batch for one in took] for name, took in seconds.items()}
    rows = []
    for k, one in enumerate(runs):
        who, mine, floor = one.contender, per[f"run {k}"], per.get(f"{one.calls} calls")
        rows.append(Row(
            one.name, who.engine, who.precision, who.provider, batch, who.threads,
            one.solver, one.steps, one.calls, timing.quartiles(mine),
            None if floor is None else timing.quartiles(floor),
            None if floor is None else timing.ratios(mine, floor),
            error_of(who.draw, fine, one.asked, batch),
        ))  # fmt: skip
    return rows


def _threads(
    path: str | Path,
    provider: str,
    batch: int,
    threads: int,
    request: Mapping[str, Any],
    chosen: Chosen,
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
