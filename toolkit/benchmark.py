"""What a person chooses by: error against milliseconds, for every file, provider, batch and number of calls.

    error         median over samples of sqrt(mean (x - x_fine)^2), x_fine by rk4 with 100 steps in float32
    milliseconds  of one sample in a batch: median and quartiles over rounds, all contenders interleaved

One file per precision or form; other engines run the same loop around the same network. Which solver
makes the calls is decided once, by the error in the first file, and is the same for all.
"""

import importlib.util
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import runtimes
from runtimes import timing
from runtimes.modelfile import PRECISION_KEY
from runtimes.sample import Sampleable
from runtimes.session import onnxruntime
from runtimes.spec import Spec

from .costs import FINE, steps_of

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
class Contender:
    """A network that can be sampled, opened with one number of threads."""

    name: str
    engine: str
    precision: str
    provider: str
    threads: int
    model: Sampleable


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
    else one). run: a run folder,
    for torch. n: samples of which the error is the median. clock: one of `CLOCKS`.
    Raises ValueError for files that are not of one network, and for numbers of calls nothing makes.
    """
    tick = timing.CLOCKS[runtimes.choices.choose("clock", clock, timing.CLOCKS)]
    first = runtimes.load(files[0], provider=providers[0], threads=1)
    _same(files, first.spec)
    progress("a fine solution")
    fine = runtimes.sample(first, n, **{**request, **FINE})
    chosen = best_solvers(first, fine, solvers, calls, request)
    rows: list[Row] = []
    errors: dict[tuple[str, str, int], float] = {}
    chose: dict[str, Any] = {}
    absent: dict[str, str] = {}
    for provider in providers:
        for batch in batches:
            fixed = threads or int(clock != "wall")  # CPU time cannot tell what threads gain
            count, ratio = _threads(files[0], provider, batch, fixed, request, chosen)
            chose[f"{provider}, batch {batch}"] = {"threads": count, "all / one": ratio}
            contenders, absent = open_all(files, provider, count, run)
            progress(f"{provider}, batch {batch}, {count} threads")
            seconds = timing.interleave(_runs(contenders, chosen, batch, request), rounds, tick)
            for contender in contenders:
                for solver, steps in chosen.values():
                    key = (contender.name, solver, steps)
                    if key not in errors:
                        errors[key] = error_of(contender.model, fine, solver, steps, request)
                    took = [1e3 * s / batch for s in seconds["{} {} {}".format(*key)]]
                    rows.append(_row(contender, batch, key, request, took, errors[key]))
    progress("cold starts")
    starts = tuple(cold_start(path, providers[0], request) for path in files)
    ort = onnxruntime().__version__
    settings = {
        "machine": platform.machine(), "system": platform.system(), "cores": timing.cores(),
        "onnxruntime": ort, "clock": clock, "rounds": rounds, "samples": n, "threads": chose,
        "request": {key: value for key, value in request.items() if not hasattr(value, "shape")},
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
            (error_of(model, fine, solver, steps, request), solver, steps)
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


def error_of(
    model: Sampleable, fine: np.ndarray, solver: str, steps: int, request: Mapping[str, Any]
) -> float:
    """How far the samples of one run end from the fine ones of the same seeds."""
    x = runtimes.sample(model, len(fine), **{**request, "solver": solver, "steps": steps})
    apart = (x - fine).reshape(len(fine), -1).astype(np.float64)
    return float(np.median(np.sqrt((apart**2).mean(1))))


def open_all(
    files: Sequence[str | Path], provider: str, threads: int, run: Path | None
) -> tuple[list[Contender], dict[str, str]]:
    """Every file and every peer there is, and the peers there are not, with the reason."""
    found, absent = [], {}
    for path in files:
        model = runtimes.load(path, provider=provider, threads=threads)
        found.append(
            Contender(
                Path(path).stem, "onnxruntime", precision_of(model), provider, threads, model
            )
        )
    for name, (module, opened) in PEERS.items():
        if importlib.util.find_spec(module) is None:
            absent[name] = "not installed"
            continue
        peer = opened(found, run, threads)
        if isinstance(peer, str):
            absent[name] = peer
        else:
            found.append(Contender(name, name, "fp32", "cpu", threads, peer))
    return found, absent


def precision_of(model: Any) -> str:
    """fp32, or what the file says."""
    from export.fidelity import from_json

    text = model.file.metadata.get(PRECISION_KEY)
    return "fp32" if text is None else from_json(text).precision


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


def _runs(
    contenders: Sequence[Contender],
    chosen: Mapping[int, tuple[str, int]],
    batch: int,
    request: Mapping[str, Any],
) -> dict[str, Callable[[], object]]:
    return {
        f"{contender.name} {solver} {steps}": lambda model=contender.model,
        told={  # type: ignore[misc]
            **request,
            "solver": solver,
            "steps": steps,
        }: runtimes.sample(model, batch, batch=batch, **told)
        for contender in contenders
        for solver, steps in chosen.values()
    }


def _row(
    contender: Contender,
    batch: int,
    key: tuple[str, str, int],
    request: Mapping[str, Any],
    took: Sequence[float],
    error: float,
) -> Row:
    name, solver, steps = key
    calls = runtimes.plan(
        contender.model, 1, **{**_one(request), "solver": solver, "steps": steps}
    ).calls
    return Row(
        name, contender.engine, contender.precision, contender.provider, batch, contender.threads,
        solver, steps, calls, timing.quartiles(took), error,
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
    told = {**request, "solver": solver, "steps": steps}

    def opened(count: int) -> Callable[[], object]:
        model = runtimes.load(path, provider=provider, threads=count)
        return lambda: runtimes.sample(model, batch, batch=batch, **told)

    return timing.threads_for(opened)


def _one(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request of a single sample, in words that Python reads back."""
    labels = request.get("label")
    return {**request, **({"label": labels[0]} if isinstance(labels, list) else {})}


def _same(files: Sequence[str | Path], spec: Spec) -> None:
    """Files of one network, whose solver can be chosen."""
    stems = [Path(path).stem for path in files]
    if len(set(stems)) < len(stems):
        raise ValueError(f"models: expected different names, got {', '.join(stems)}; rename one")
    for path in files:
        model = runtimes.load(path, provider="cpu", threads=1)
        if model.form == "unrolled":
            raise ValueError(
                f"{path}: expected a file whose solver can be chosen, got the form 'unrolled'; "
                "benchmark the form network or sampler"
            )
        if (model.spec.shape, model.spec.condition) != (spec.shape, spec.condition):
            raise ValueError(
                f"{path}: expected samples of shape {spec.shape} under the same condition as in "
                f"{files[0]}, got {model.spec.shape}; benchmark one network at a time"
            )


def _torch(found: Sequence[Contender], run: Path | None, threads: int) -> Sampleable | str:
    """The run's own network in torch, eager."""
    if run is None:
        return "no run folder given: --run FOLDER"
    import torch

    from export.torch_model import TorchModel
    from toolkit.train_torch import load

    spec = found[0].model.spec
    module, own = load(run)
    if (own.shape, own.condition) != (spec.shape, spec.condition):
        raise ValueError(
            f"run: expected the run of {found[0].name}, which makes samples of shape {spec.shape}, got "
            f"{own.shape} in {run}; give the folder that it was exported from"
        )
    torch.set_num_threads(threads)
    return TorchModel(spec, module)


@dataclass(frozen=True)
class OpenVino:
    """A network compiled by OpenVINO, behind the face of a model."""

    spec: Spec
    compiled: Any

    def network(self, x: Any, t: Any, condition: Any = None) -> Any:
        """One call."""
        feeds = {"x": x, "time": np.full(len(x), t, np.float32)}
        if condition is not None:
            feeds[self.spec.condition.kind] = condition
        return self.compiled(feeds)["prediction"]


def _openvino(found: Sequence[Contender], run: Path | None, threads: int) -> Sampleable | str:
    """The first file of the form network in float32."""
    plain = [
        c.model
        for c in found
        if getattr(c.model, "form", "") == "network" and c.precision == "fp32"
    ]
    if not plain:
        return "no file of the form network in fp32 given"
    import openvino

    core = openvino.Core()
    config = {
        "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32",
    }  # fmt: skip
    return OpenVino(
        plain[0].spec, core.compile_model(core.read_model(plain[0].file.content), "CPU", config)
    )


# name -> its module and what opens it, or says why not
PEERS: dict[
    str, tuple[str, Callable[[Sequence[Contender], Path | None, int], Sampleable | str]]
] = {
    "torch eager": ("torch", _torch),
    "openvino": ("openvino", _openvino),
}
