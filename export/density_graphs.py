"""Known densities as .onnx files: any client, in any language, can be held against them.

`write` makes a model file whose network is exact, c data + d noise with the posterior means of
`densities`, for any schedule and prediction; `write_laws` one with the two posterior means, the
score and the log-density as outputs. The numbers alpha, sigma, c, d and the input scale come from a
table over time by cubic interpolation, so that every entry of the registries has its graph. In
float32 the files are within 1e-5 of the largest number they return.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runtimes import modelfile, predictions
from runtimes.files import write_whole
from runtimes.schedules import SCHEDULES
from runtimes.spec import Sampler, Spec, to_json

from .densities import DENSITIES, Density

OPSET, IR = 20, 10
CELLS = 4096  # of the table over time; u = (2 / pi) atan(sqrt(t / (1 - t))) is even in it


def spec_of(name: str, schedule: str, prediction: str) -> Spec:
    """The spec of that density's model file."""
    density = DENSITIES[name]
    return Spec(
        f"{name} {schedule} {prediction}",
        density.shape,
        schedule,
        prediction,
        density.condition,
        Sampler("heun", 20),
        training={"data": f"known density {name}, exact"},
    )


def write(path: str | os.PathLike[str], name: str, schedule: str, prediction: str) -> Path:
    """The exact network of DENSITIES[name] as a sealed model file; one that is there is overwritten."""
    graph = _Graph(DENSITIES[name], table(schedule, prediction))
    parts = graph.ends()
    data, noise = (graph.op("MatMul", graph.op("Mul", scale, part), "back")
                   for scale, part in zip(("c", "d"), parts, strict=True))  # fmt: skip
    total = graph.op("Add", data, noise)
    if graph.shift:
        total = graph.op("Add", total, graph.op("Mul", "c", graph.shift))
    proto = graph.proto({"prediction": graph.shaped(total)})
    helper.set_model_props(
        proto, {modelfile.SPEC_KEY: to_json(spec_of(name, schedule, prediction))}
    )
    return write_whole(path, modelfile.seal(proto.SerializeToString(deterministic=True)))


def write_laws(path: str | os.PathLike[str], name: str, schedule: str) -> Path:
    """A plain .onnx: (x, time, condition) -> data, noise, score (B, *shape) and log_density (B,)."""
    density = DENSITIES[name]
    graph = _Graph(density, table(schedule, "data"))
    data, noise = (graph.op("MatMul", part, "back") for part in graph.ends())
    if graph.shift:
        data = graph.op("Add", data, graph.shift)
    log_spread = graph.op("ReduceSum", graph.op("Log", "spread"), "last", keepdims=0)
    graph.constant("two_pi", density.variances.size * math.log(2 * math.pi))
    volume = graph.op("Mul", "half", graph.op("Add", log_spread, "two_pi"))
    total = graph.op("ReduceLogSumExp", "logits", "last", keepdims=0)
    outputs = {
        "data": graph.shaped(data),
        "noise": graph.shaped(noise),
        "score": graph.shaped(graph.op("MatMul", graph.op("Neg", "white"), "back")),
        "log_density": graph.op("Add", total, volume),
    }
    return write_whole(path, graph.proto(outputs).SerializeToString(deterministic=True))


def table(schedule: str, prediction: str) -> NDArray[np.float32]:
    """alpha, sigma, c, d and the input scale at CELLS + 1 times; infinities become the next finite row."""
    u = np.linspace(0.0, 1.0, CELLS + 1)
    scales = SCHEDULES[schedule](np.sin(0.5 * np.pi * u) ** 2)
    with np.errstate(all="ignore"):
        c, d = predictions.PREDICTIONS[prediction](scales)
        columns = (scales.alpha, scales.sigma, c, d, predictions.input_scale(prediction, scales))
    rows = np.stack([np.broadcast_to(column, u.shape) for column in columns], axis=1)
    good = np.flatnonzero(np.isfinite(rows).all(1))
    nearest = good[np.clip(np.searchsorted(good, np.arange(len(u))), 0, len(good) - 1)]
    return rows[nearest].astype(np.float32)


class _Graph:
    """An ONNX graph under construction: nodes by name, weights by name, inputs from the density."""

    def __init__(self, density: Density, scales: NDArray[np.float32]) -> None:
        self.density, self.scales, self.shift = density, scales, ""
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: Any, kind: Any = np.float32) -> str:
        self.weights[name] = numpy_helper.from_array(np.asarray(value, kind), name)
        return name

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        out = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attributes))
        return out

    def interpolated(self) -> None:
        """time -> alpha, sigma, c, d, scale, each (B, 1): the cubic through the four nearest rows."""
        self.constant("one", 1.0)
        self.constant("cells", 2.0 * CELLS / np.pi)
        self.constant("table", self.scales)
        self.constant("second", [1], np.int64)
        self.constant("around", [[-1, 0, 1, 2]], np.int64)
        # Lagrange's weights at -1, 0, 1, 2 as polynomials in f
        cubic = [[0, -2, 3, -1], [6, -3, -6, 3], [0, 6, 3, -3], [0, -1, 0, 1]]
        self.constant("cubic", np.array(cubic).T / 6.0)
        odds = self.op("Div", "time", self.op("Sub", "one", "time"))
        place = self.op("Mul", self.op("Atan", self.op("Sqrt", odds)), "cells")
        low, high = self.constant("low", 1.0), self.constant("high", CELLS - 2.0)
        cell = self.op("Clip", self.op("Floor", place), low, high)
        f = self.op("Unsqueeze", self.op("Sub", place, cell), "second")
        square = self.op("Mul", f, f)
        unit = self.op("Add", self.op("Mul", f, self.constant("nought", 0.0)), "one")
        powers = self.op("Concat", unit, f, square, self.op("Mul", square, f), axis=1)
        weights = self.op("Unsqueeze", self.op("MatMul", powers, "cubic"), "second")
        index = self.op("Unsqueeze", self.op("Cast", cell, to=TensorProto.INT64), "second")
        rows = self.op("Gather", "table", self.op("Add", index, "around"))  # (B, 4, 5)
        row = self.op("Squeeze", self.op("MatMul", weights, rows), "second")
        for column, name in enumerate(("alpha", "sigma", "c", "d", "scale")):
            self.op(
                "Gather",
                row,
                self.constant(f"column_{name}", [column], np.int64),
                axis=1,
                name=name,
            )

    def ends(self) -> tuple[str, str]:
        """data (without the context's shift) and noise in the axes' coordinates, (B, D)."""
        density = self.density
        self.interpolated()
        self.constant("flat", [-1, density.variances.size], np.int64)
        self.constant("means", density.means @ density.axes)
        self.constant("variances", density.variances)
        self.constant("turn", density.axes)
        self.constant("back", density.axes.T)
        self.constant("half", -0.5)
        self.constant("last", [-1], np.int64)
        x = self.op("Div", self.op("Reshape", "x", "flat"), "scale")
        if density.lift is not None:
            self.constant("lift", density.lift)
            context = self.constant("flat_context", [-1, len(density.lift)], np.int64)
            self.shift = self.op("MatMul", self.op("Reshape", "context", context), "lift")
            x = self.op("Sub", x, self.op("Mul", "alpha", self.shift))
        z = self.op("MatMul", x, "turn")
        square = self.op("Mul", self.op("Mul", "alpha", "alpha"), "variances")
        self.op("Add", square, self.op("Mul", "sigma", "sigma"), name="spread")
        centre = self.op("MatMul", self.op("Softmax", self.logits(z), axis=-1), "means")
        self.op("Div", self.op("Sub", z, self.op("Mul", "alpha", centre)), "spread", name="white")
        pull = self.op("Mul", self.op("Mul", "alpha", "variances"), "white")
        return self.op("Add", centre, pull), self.op("Mul", "sigma", "white")

    def logits(self, z: str) -> str:
        """log p_k - sum (z - alpha means_k)^2 / 2 S, (B, K)."""
        alpha = self.op("Unsqueeze", "alpha", "second")
        away = self.op("Sub", self.op("Unsqueeze", z, "second"), self.op("Mul", alpha, "means"))
        spread = self.op("Unsqueeze", "spread", "second")
        scaled = self.op("Div", self.op("Mul", away, away), spread)
        distance = self.op("Mul", self.op("ReduceSum", scaled, "last", keepdims=0), "half")
        if self.density.condition.kind == "label":
            every = np.arange(len(self.density.means) + 1)
            prior = self.op("Gather", self.constant("priors", self.density.priors(every)), "label")
        else:
            prior = self.constant("priors", self.density.priors(None))
        return self.op("Add", distance, prior, name="logits")

    def shaped(self, rows: str) -> str:
        shape = self.constant("shape", [-1, *self.density.shape], np.int64)
        return self.op("Reshape", rows, shape)

    def proto(self, outputs: dict[str, str]) -> onnx.ModelProto:
        """The model with these values under these names."""
        for name, value in outputs.items():
            self.op("Identity", value, name=name)
        density, FLOAT = self.density, TensorProto.FLOAT
        inputs: list[tuple[str, int, Sequence[str | int | None]]] = [
            ("x", FLOAT, ["B", *density.shape]),
            ("time", FLOAT, ["B"]),
        ]
        if density.condition.kind == "label":
            inputs.append(("label", TensorProto.INT64, ["B"]))
        if density.condition.kind == "context":
            inputs.append(("context", FLOAT, ["B", *density.condition.shape]))
        shapes: dict[str, Sequence[str | int | None]] = {
            name: ["B"] if name == "log_density" else ["B", *density.shape] for name in outputs
        }
        used = {name for node in self.nodes for name in node.input}
        graph = helper.make_graph(
            self.nodes,
            "density",
            [helper.make_tensor_value_info(name, kind, dims) for name, kind, dims in inputs],
            [helper.make_tensor_value_info(name, FLOAT, dims) for name, dims in shapes.items()],
            [tensor for name, tensor in self.weights.items() if name in used],
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=IR, producer_name="toolkit"
        )
