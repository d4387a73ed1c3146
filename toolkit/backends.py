"""What can be compared on this machine: the network of a run folder in torch and in MLX, model files.

    backends, absent = find("runs/digits", ["digits.onnx"])

The weights of a run folder are shared by both frameworks. Whatever is not here is listed with the reason.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import runtimes
from runtimes.choices import quoted
from runtimes.modelfile import ModelError
from runtimes.providers import PROVIDERS
from runtimes.sample import Plan, Sampleable, State
from runtimes.session import onnxruntime
from runtimes.spec import Spec
from runtimes.timing import peak_of


@dataclass(frozen=True)
class Backend:
    """Something that samples. opening: the Python lines with which a new process gets its `model`."""

    name: str
    version: str
    model: Sampleable
    opening: str
    resident: ClassVar[bool] = True  # stays open between runs, so that they can be timed

    def states(self, todo: Plan, pace: float = 0.0) -> Iterator[State]:
        """Its own states of that run, the noise first; pace: as `Plan.states` takes it."""
        return replace(todo, model=self.model).states(0, len(todo.seeds), pace)

    def peak(self, todo: Plan, request: Mapping[str, Any]) -> float:
        """Megabytes of memory of a process that opens it and draws the first sample of that run."""
        return peak_of(program(self, todo, request))


@dataclass(frozen=True)
class Absent:
    """Something that could have been compared and is not here, and why."""

    name: str
    reason: str


def find(
    run: str | Path | None = None, files: Sequence[str | Path] = ()
) -> tuple[list[Backend], list[Absent]]:
    """What can be compared here, the reference first: a run folder's network, model files.

    Raises ValueError or FileNotFoundError for a folder or file that is not as it should be.
    """
    backends, absent = [], []
    for name, opened in FRAMEWORKS.items():
        if run is None:
            absent.append(Absent(name, "no run folder was given"))
            continue
        try:
            backends.append(opened(Path(run)))
        except ImportError as error:
            absent.append(Absent(name, f"{error}; pip install 'toolkit[{name}]'"))
    if not files:
        return backends, [*absent, Absent("onnxruntime", "no .onnx was given")]
    has = onnxruntime().get_available_providers()
    for word, (provider, _) in PROVIDERS.items():
        if provider not in has:
            absent.append(Absent(f"onnxruntime on {word}", f"this build has no {provider}"))
            continue
        for path in dict.fromkeys(str(file) for file in files):
            try:
                backends.append(_onnx(path, word))
            except ModelError as error:
                if word == "cpu":  # where every good file runs
                    raise
                absent.append(Absent(f"{path} on {word}", str(error)))
    return backends, absent


def program(backend: Backend, todo: Plan, request: Mapping[str, Any]) -> str:
    """A Python program that opens a backend and draws the first sample of the run."""
    told, condition = dict(request), todo.condition
    lines = ["import numpy, runtimes", backend.opening]
    if told.pop("context", None) is not None:
        lines.append(f"context = numpy.array({condition[0].tolist()}, numpy.float32)")
    elif condition is not None:
        none = condition[0] == todo.model.spec.condition.classes
        told["label"] = "none" if none else int(condition[0])
    given = "context=context, " if "context" in request else ""
    return "\n".join([*lines, f"runtimes.sample(model, 1, {given}**{told!r})"])


def same(backends: Sequence[Backend]) -> None:
    """Raise ValueError naming the first difference between two models' contracts."""
    first, *others = backends
    for backend in others:
        for word, of in CONTRACT.items():
            mine, theirs = of(first.model.spec), of(backend.model.spec)
            if mine != theirs:
                raise ValueError(
                    f"{word}: expected {quoted(mine)} as in {first.name}, got {quoted(theirs)} in "
                    f"{backend.name}; compare files of one model"
                )


def _torch(run: Path) -> Backend:
    import torch

    from export import TorchModel

    from .run_torch import load

    module, spec = load(run)
    return Backend(
        "torch",
        f"torch {torch.__version__} on cpu",
        TorchModel(spec, module),
        opening(run, "Torch"),
    )


def _mlx(run: Path) -> Backend:
    import mlx.core as mx

    from export import MlxModel

    from .run_mlx import load

    module, spec = load(run)
    place = str(mx.default_device().type).rpartition(".")[2]
    version = f"mlx {mx.__version__} on {place}"
    return Backend("mlx", version, MlxModel(spec, module), opening(run, "Mlx"))


def opening(run: Path, framework: str) -> str:
    """The lines with which a new process gets the `model` of a run folder: Torch's or Mlx's."""
    return (
        f"from pathlib import Path\nfrom export import {framework}Model\n"
        f"from toolkit.run_{framework.lower()} import load\n"
        f"module, spec = load(Path({str(run)!r}))\nmodel = {framework}Model(spec, module)"
    )


def _onnx(path: str, word: str) -> Backend:
    model = runtimes.load(path, provider=word)
    version = f"onnxruntime {onnxruntime().__version__}, form {model.form}"
    opening = f"model = runtimes.load({path!r}, provider={word!r})"
    return Backend(f"{path} on {word}", version, model, opening)


# what two models must have in common, by the name an error calls it
CONTRACT: dict[str, Callable[[Spec], object]] = {
    "shape": lambda spec: spec.shape,
    "schedule": lambda spec: spec.schedule,
    "prediction": lambda spec: spec.prediction,
    "condition": lambda spec: spec.condition.kind,
    "condition.classes": lambda spec: spec.condition.classes,
    "condition.shape": lambda spec: spec.condition.shape,
}
FRAMEWORKS: dict[str, Callable[[Path], Backend]] = {"torch": _torch, "mlx": _mlx}
