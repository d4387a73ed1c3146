"""The gate every export passes: the training framework against ONNX Runtime, same noise, same steps.

    error_k = max |x_k(framework) - x_k(onnxruntime)|,    relative to max |x_k(framework)|

Compared at batch 1 and 7 are the network's predictions at times and conditions that differ from row
to row, its products J v too in a file of the form `likelihood`, and a whole trajectory of 20 steps in
which each side feeds on its own states. Files with the solver inside are compared by what they return,
with guidance and without: a sampler by every state of its loop, the others by the samples.
The report travels in the file's metadata; beyond the tolerance nothing is written.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtimes.likelihood import Differentiable
from runtimes.noise import noise, seed_rows, signs
from runtimes.sample import Sampleable, plan
from runtimes.session import Floats, Model
from runtimes.spec import Spec

from .fidelity import Fidelity

BATCHES = (1, 7)
STEPS = 20
GUIDED = 2.0  # the weight at which guidance inside a graph is compared
TOLERANCE = 1e-4  # relative, float32


class ParityError(RuntimeError):
    """The exported graph does not compute what the framework does; `report` says where."""

    def __init__(self, message: str, report: "Report") -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class Row:
    """The largest error of one comparison: what was compared, at which batch, after how many steps."""

    what: str
    batch: int
    step: int
    absolute: float
    relative: float


@dataclass(frozen=True)
class Report:
    """Every comparison of one export and the tolerance that held (relative).

    fidelity: of a smaller precision than that in which the comparisons were made; kept beside the report.
    """

    framework: str
    runtime: str
    tolerance: float
    rows: tuple[Row, ...]
    fidelity: Fidelity | None = None

    @property
    def worst(self) -> Row:
        """The row with the largest relative error; NaN counts as infinite."""
        return max(
            self.rows, key=lambda row: row.relative if row.relative == row.relative else np.inf
        )

    def to_json(self) -> str:
        """The report as the model file carries it."""
        kept = asdict(replace(self, fidelity=None))
        del kept["fidelity"]
        return json.dumps(kept, sort_keys=True, separators=(",", ":"))

    def table(self) -> str:
        """The report for people: the network, then every few steps of the trajectory."""
        shown = [
            row
            for row in self.rows
            if row.what in ("network", "product")
            or row.step in (1, 5, 10, 15, STEPS, self.rows[-1].step)
        ]
        lines = ["                         batch  step   max error   relative"]
        lines += [
            f"  {row.what:<22} {row.batch:>5} {row.step or '':>5}   {row.absolute:9.2e}   {row.relative:.2e}"
            for row in shown
        ]
        verdict = "within" if self.worst.relative <= self.tolerance else "BEYOND"
        smaller = [] if self.fidelity is None else [self.fidelity.table()]
        return "\n".join(
            [
                f"{self.framework} against {self.runtime}, same noise, {self.rows[-1].step} steps:",
                *lines,
                f"  worst {self.worst.relative:.2e}, {verdict} the tolerance of {self.tolerance:.0e}",
                *smaller,
            ]
        )


def compare(
    reference: Differentiable, model: Model, *, framework: str, tolerance: float = TOLERANCE
) -> Report:
    """Compare `reference` with the opened model. Raises ParityError beyond the tolerance.

    reference: the framework's network behind the same face, such as `TorchModel`; its products are
    compared where the file has them.
    """
    import onnxruntime

    rows = [row for batch in BATCHES for row in COMPARED[model.form](reference, model, batch)]
    report = Report(
        framework,
        f"onnxruntime {onnxruntime.__version__} ({model.provider})",
        tolerance,
        tuple(rows),
    )
    if not report.worst.relative <= tolerance:  # NaN fails too
        worst = report.worst
        raise ParityError(
            f"{worst.what} at batch {worst.batch}: expected a relative error of at most {tolerance:.0e}, "
            f"got {worst.relative:.2e} at step {worst.step}; nothing was written",
            report,
        )
    return report


def _networks(reference: Differentiable, model: Model, batch: int) -> list[Row]:
    return [_network(reference, model, batch), *_path(reference, model, batch)]


def _products(reference: Differentiable, model: Model, batch: int) -> list[Row]:
    network, *path = _networks(reference, model, batch)
    return [network, _product(reference, model, batch), *path]


def _loops(reference: Differentiable, model: Model, batch: int) -> list[Row]:
    """The states of the loop in the graph, guided ones too."""
    guided = [] if model.spec.condition.kind == "none" else _path(reference, model, batch, GUIDED)
    return [*guided, *_networks(reference, model, batch)]


def _samples(reference: Differentiable, model: Model, batch: int) -> list[Row]:
    """The last states of the recommended run, guided ones too where the file takes a weight."""
    steps = model.spec.sampler.steps
    values = (*model.session.get_inputs(), *model.session.get_overridable_initializers())
    weights = [GUIDED, None] if any(value.name == "guidance" for value in values) else [None]
    return [_path(reference, model, batch, weight, steps)[-1] for weight in weights]


def _network(reference: Sampleable, model: Model, batch: int) -> Row:
    points = _points(model.spec, batch)
    theirs, mine = (side.network(*points) for side in (reference, model))
    return _row("network", batch, 0, theirs, mine)


def _product(reference: Differentiable, model: Model, batch: int) -> Row:
    """J v for a v of -1 and +1, at the points where the predictions are compared."""
    points, probe = _points(model.spec, batch), signs(seed_rows(1, batch), model.spec.shape, 0)
    theirs, mine = (side.product(*points, probe)[1] for side in (reference, model))
    return _row("product", batch, 0, theirs, mine)


def _points(spec: Spec, batch: int) -> tuple[Floats, Floats, NDArray[Any] | None]:
    """(x, times, condition) at which one call of each side is compared: they differ from row to row."""
    x = noise(seed_rows(1, batch), spec.shape, 0)
    times = np.linspace(0.05, 0.95, batch, dtype=np.float32)
    return x, times, _conditions(spec, batch, with_null=True)


def _path(
    reference: Sampleable,
    model: Model,
    batch: int,
    guidance: float | None = None,
    steps: int = STEPS,
) -> list[Row]:
    """The trajectory of the recommended solver, each side on its own states."""
    spec = model.spec
    condition = _conditions(spec, batch, with_null=False)
    request: dict[str, Any] = {} if condition is None else {spec.condition.kind: condition}
    todo = plan(model, batch, seed=2, steps=steps, guidance=guidance, **request)
    theirs = {s.step: s.x for s in replace(todo, model=reference).states(0, batch)}
    word = "trajectory" if guidance is None else "guided"
    return [
        _row(f"{spec.sampler.solver} {word}", batch, mine.step, theirs[mine.step], mine.x)
        for mine in todo.states(0, batch)
    ]


def _conditions(spec: Spec, batch: int, *, with_null: bool) -> NDArray[Any] | None:
    """Conditions that differ from row to row, the null one among them if wanted."""
    if spec.condition.kind == "none":
        return None
    if spec.condition.kind == "label":
        return np.arange(batch, dtype=np.int64) % (spec.condition.classes + with_null)
    rows = noise(seed_rows(3, batch), spec.condition.shape, 0)
    if with_null:
        rows[-1] = 0.0
    return rows


def _row(what: str, batch: int, step: int, theirs: Floats, mine: Floats) -> Row:
    absolute = float(np.max(np.abs(theirs - mine)))
    scale = float(np.max(np.abs(theirs)))
    return Row(what, batch, step, absolute, absolute / scale if scale > 0.0 else absolute)


# form -> what is compared at one batch
COMPARED: dict[str, Callable[[Differentiable, Model, int], list[Row]]] = {
    "network": _networks,
    "likelihood": _products,
    "sampler": _loops,
    "seeded": _samples,
    "unrolled": _samples,
}
