"""A whole run as one flat graph: the network once per row of its tableau, its weights once.

    x, label or context, guidance -> sample

No loop, no branch, every size and every time a constant, so that a phone's processor takes all of it in
one piece (`portable`). What depends on the time alone has been computed: of each row's time embedding
only the numbers are left. The price is a graph that grows with the steps, and one file for one batch.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from runtimes.conditions import whole
from runtimes.contracts import MOST_BATCH
from runtimes.graph import MOST_NODES
from runtimes.spec import Spec
from runtimes.tableau import Tableau, Weights

from .flat import Array, Flat, proto, pruned, read
from .portable import portable
from .writer import Writer


def unrolled(
    network: onnx.ModelProto, spec: Spec, batch: int, tableau: Tableau
) -> onnx.ModelProto:
    """The run of a tableau without noise on `batch` samples.

    Inputs: x float32 (B, *shape), the state at the first time; label float32 (B, classes + 1), one-hot, or
    context float32 (B, *context); guidance float32 (B,), where a row is guided: one call of 2B rows with
    out = uncond + guidance (cond - uncond). Output: sample, float32 like x.
    Raises ValueError for a tableau with noise, too many steps, or a network that cannot be made portable.
    """
    whole("batch", batch, 1, MOST_BATCH)
    if tableau.noisy:
        raise ValueError(
            "solver: expected one without noise for the form 'unrolled', got one that draws some; "
            "take heun or dpmpp_2m, or the form sampler"
        )
    inputs = _inputs(spec, batch, any(row.guided for row in tableau.rows))
    flat = read(network)
    outputs = {"sample": _value("sample", inputs["x"])}
    page = Writer(Flat((), flat.constants, inputs, outputs, flat.opset), {})
    calls = Calls(page, flat, spec, batch)
    slots: list[str | None] = ["x"]
    for number, row in enumerate(tableau.rows, 1):
        x = combine(page, row.input, slots) or page.constant(_zeros(batch, spec.shape))
        out = calls.guided(x, row.time) if row.guided else calls.plain(x, row.time)
        slots = [combine(page, weights, [*slots, out]) for weights in row.update]
        if len(page.nodes) > MOST_NODES:
            raise ValueError(
                f"steps: expected an unrolled graph of at most {MOST_NODES} nodes, got more at call "
                f"{number} of {tableau.calls}; take fewer steps, or the form sampler"
            )
    page.names["sample"] = slots[0] or page.constant(_zeros(batch, spec.shape))
    return proto(pruned(page.flat()), "unrolled")


def combine(page: Writer, weights: Weights, terms: list[str | None]) -> str | None:
    """sum_i weight_i * terms[i] in nodes; None is zero, and costs none."""
    parts = [page.scaled(term, w) for i, w in weights if (term := terms[i]) is not None]
    return page.chain("Add", parts) if parts else None


class Calls:
    """Copies of the network on a page: one per call, the weights shared, the rest as small as it gets."""

    def __init__(self, page: Writer, flat: Flat, spec: Spec, batch: int) -> None:
        self.page, self.flat, self.spec, self.batch = page, flat, spec, batch
        self.bodies: dict[tuple[float, int], Flat] = {}
        self.both = self.weight = ""  # the conditions of 2B rows and the weights, where wanted

    def plain(self, x: str, time: float) -> str:
        """network(x, time, condition) on B rows."""
        return self._call(x, time, self.spec.condition.kind, self.batch)

    def guided(self, x: str, time: float) -> str:
        """uncond + w (cond - uncond) from one call of 2B rows."""
        page, batch = self.page, self.batch
        kind = self.spec.condition.kind
        if not self.both:
            null = page.constant(_null(self.spec, batch))
            self.both = page.op("Concat", kind, null, axis=0)
            self.weight = page.reshaped("guidance", (batch, *[1] * len(self.spec.shape)))
        out = self._call(page.op("Concat", x, x, axis=0), time, self.both, 2 * batch)
        strong, weak = page.split(out, (batch, batch))
        return page.op("Add", weak, page.op("Mul", page.op("Sub", strong, weak), self.weight))

    def _call(self, x: str, time: float, condition: str, rows: int) -> str:
        if (time, rows) not in self.bodies:
            times = {"time": np.full(rows, time, np.float32)}
            self.bodies[time, rows] = portable(self.flat, rows, times)
        body = self.bodies[time, rows]
        self._check(body)
        names = {"x": x, self.spec.condition.kind: condition}
        names |= {name: self._shared(name, value) for name, value in body.constants.items()}
        for node in body.nodes:
            inputs = (names.get(name, name) for name in node.input)
            names.update(zip(node.output, self.page.again(node, *inputs), strict=True))
        return names["prediction"]

    def _shared(self, name: str, value: Array) -> str:
        """A weight keeps its name, whatever call it serves; other constants are named by what they hold."""
        shared = value is self.flat.constants.get(name)
        return self.page.at(name) if shared else self.page.constant(value)

    def _check(self, body: Flat) -> None:
        """Raise ValueError where the network's label is not as its spec says."""
        condition = self.spec.condition
        if condition.kind == "label":
            axes = body.inputs["label"].type.tensor_type.shape.dim
            if [axis.dim_value for axis in axes[1:]] not in ([], [condition.classes + 1]):
                raise ValueError(
                    f"network: expected a table of {condition.classes + 1} labels by its spec, got "
                    f"{axes[1].dim_value}; correct the spec"
                )


def _inputs(spec: Spec, batch: int, guided: bool) -> Mapping[str, onnx.ValueInfoProto]:
    condition = spec.condition
    sizes: dict[str, tuple[int, ...]] = {"x": (batch, *spec.shape)}
    if condition.kind == "label":
        sizes["label"] = (batch, condition.classes + 1)
    elif condition.kind == "context":
        sizes["context"] = (batch, *condition.shape)
    if guided:
        sizes["guidance"] = (batch,)
    return {
        name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in sizes.items()
    }


def _null(spec: Spec, batch: int) -> Array:
    """What stands for "no condition": the last label, or a context of zeros."""
    if spec.condition.kind == "label":
        return np.eye(spec.condition.classes + 1, dtype=np.float32)[[-1] * batch]
    return _zeros(batch, spec.condition.shape)


def _zeros(batch: int, shape: tuple[int, ...]) -> Array:
    return np.zeros((batch, *shape), np.float32)


def _value(name: str, like: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(like)
    copy.name = name
    return copy
