"""A network's graph -> a graph that samples: the network once, inside one Scan over a tableau's rows.

    out   = network(sum_i input[i] * slot[i], time, condition)
    slots = update @ [slots, out, noise]                            one MatMul each

The tableau (`runtimes.tableau.dense`) is an input, so one file runs any solver with any number of
steps. A guided row is one call of 2B rows, u + w (c - u); any other one of B rows. What does not look at
x is worked out before the loop (`hoisting`); the other weights stand inside the Scan: outside it ONNX
Runtime does not lay out convolutions anew, and is a quarter slower.

    inputs   x (slots, B, *shape): x[0] the state; slots that are missing are zero
             label (B,) or context (B, *context), as the spec says
             tableau, guidance (1,) or (B,), seed (1,) or (B,): with defaults
    outputs  sample (B, *shape): slot 0; slots (S, B, *shape): the x with which later rows go on
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runtimes.spec import Spec
from runtimes.tableaus import recommended

from .hoisting import Parts, before, inside, needed, parted, weights
from .nodes import Nodes
from .noise_graph import normals, row_seeds

Values = list[onnx.ValueInfoProto]
Sizes = Sequence[int | str | None]
END = 1 << 40  # beyond the end of any axis
PREFIX = "network."  # of every name inside the Scan that was the network's


def sampler(network: onnx.ModelProto, spec: Spec) -> onnx.ModelProto:
    """The sampler of a network whose inputs and output are named as the spec has them."""
    g = Nodes("l")
    sample, slots = loop(g, network, spec, "x", _noise(g, g.size("x", 1), spec))
    g.named("sample", sample)
    g.named("slots", slots)
    inputs = [
        _value("x", TensorProto.FLOAT, ["slots", "batch", *spec.shape]),
        *_condition(spec),
        *_options(spec),
    ]
    outputs = [
        _batch("sample", spec),
        _value("slots", TensorProto.FLOAT, ["kept", "batch", *spec.shape]),
    ]
    return _model(network, g, inputs, outputs, _defaults(spec))


def seeded(network: onnx.ModelProto, spec: Spec) -> onnx.ModelProto:
    """The sampler that needs a seed only: it starts from x = sigma * noise(seed, 0).

    image is uint8 (x - low) / (high - low) * 255, where the spec has a value range.
    """
    g = Nodes("l")
    size, draws, batch = math.prod(spec.shape), _draws(g), g.size("seed", 0)
    every = g.op("Concat", g.ints(0), g.op("Reshape", draws, g.ints(-1)), axis=0)
    noise = normals(g, row_seeds(g, "seed", batch), every, size)
    start = g.op("Mul", g.part(noise, 0, 0, 1), "sigma")
    later = g.op("Reshape", g.part(noise, 0, 1, END), _sizes(g, draws, batch, size), allowzero=1)
    x = g.op("Reshape", start, g.ints(1, -1, *spec.shape))
    sample, _ = loop(g, network, spec, x, later)
    g.named("sample", sample)
    outputs = [_batch("sample", spec)]
    if spec.value_range is not None:
        g.named("image", _pixels(g, sample, spec.value_range))
        outputs.append(_batch("image", spec, TensorProto.UINT8))
    sigma = np.array([recommended(spec).sigma], np.float32)
    seed, *others = reversed(_options(spec))
    seed.type.tensor_type.shape.dim[0].dim_param = "batch"
    inputs = [seed, *_condition(spec), *reversed(others), _value("sigma", TensorProto.FLOAT, [1])]
    defaults = {name: array for name, array in _defaults(spec).items() if name != "seed"}
    return _model(network, g, inputs, outputs, {**defaults, "sigma": sigma})


def loop(g: Nodes, network: onnx.ModelProto, spec: Spec, x: str, noise: str) -> tuple[str, str]:
    """(sample, slots) from x (slots, B, *shape) after all rows of the input `tableau`.

    noise: (K, n, B * size), n = 1 or, for a tableau that draws none, 0.
    """
    batch, kept = g.size(x, 1), g.op("Sub", g.size("tableau", 1), g.ints(1))
    given = g.op("Reshape", x, g.ints(0, -1))
    width = g.size(given, 1)
    missing = g.op("Concat", g.op("Sub", kept, g.size(x, 0)), width, axis=0)
    state = g.op("Concat", given, g.op("Expand", g.floats(0.0), missing), axis=0)
    head, rows = g.part("tableau", 1, 0, 1), g.part("tableau", 1, 1, END)
    second, third = (g.op("Add", kept, g.ints(n)) for n in (1, 2))
    time = g.op("Squeeze", g.part(head, 2, kept, second), g.ints(2))  # (K, 1)
    scanned = {
        "input": g.part(head, 2, 0, kept),
        "update": g.part(rows, 2, 0, -1),
        "noise": noise,
    }
    outer, kind, most = {"batch": batch}, spec.condition.kind, batch
    feeds = {"time": g.op("Reshape", time, g.ints(-1))}
    if kind != "none":
        guided = g.op("Squeeze", g.part(head, 2, second, third), g.ints(2))
        scanned["rows"] = _rows(g, guided, batch)
        most = g.op("ReduceMax", scanned["rows"], g.ints(0), keepdims=0)
        feeds[kind] = outer["condition"] = _with_null(g, spec, batch)
        outer["weight"] = g.op("Reshape", "guidance", g.ints(-1, *[1] * len(spec.shape)))
    parts = parted(network)
    if parts.reads("time"):
        scanned["time"] = g.op("Expand", time, g.op("Concat", g.ints(1), most, axis=0))
    values = before(g, network, parts, feeds, most)
    for number, (crossing, value) in enumerate(zip(parts.crossings, values, strict=True)):
        same = crossing.source == "condition"  # in every row
        (outer if same else scanned)[f"crossing{number}"] = value
    body = _body(network, spec, parts, scanned, outer)
    final = g.op("Scan", state, *scanned.values(), body=body, num_scan_inputs=len(scanned))
    sizes = g.op("Concat", g.ints(-1), batch, g.ints(*spec.shape), axis=0)
    sample = g.op("Reshape", g.part(final, 0, 0, 1), g.ints(-1, *spec.shape))
    return sample, g.op("Reshape", final, sizes)


def _draws(g: Nodes) -> str:
    """int64 (K, n): the number of each row's noise, the last entry of its head where there is one."""
    first = g.op("Add", g.size("tableau", 1), g.ints(1))
    draws = g.op("Squeeze", g.part(g.part("tableau", 1, 0, 1), 2, first, END), g.ints(1))
    return g.op("Cast", draws, to=TensorProto.INT64)


def _sizes(g: Nodes, draws: str, batch: str, size: int) -> str:
    """(K, n, B * size)."""
    return g.op("Concat", g.op("Shape", draws), g.op("Mul", batch, g.ints(size)), axis=0)


def _noise(g: Nodes, batch: str, spec: Spec) -> str:
    """The noise of every row, made before the loop, and only if the tableau draws any."""
    size, draws = math.prod(spec.shape), _draws(g)
    sizes = _sizes(g, draws, batch, size)
    made, none = Nodes("t"), Nodes("e")
    every = made.op("Reshape", draws, made.ints(-1))
    noise = normals(made, row_seeds(made, "seed", batch), every, size)
    branches = {
        "then_branch": (made, made.op("Reshape", noise, sizes)),
        "else_branch": (none, none.op("Expand", none.floats(0.0), sizes)),
    }
    graphs = {
        name: _graph(name, nodes, [], [_value(out, TensorProto.FLOAT, [None] * 3)])
        for name, (nodes, out) in branches.items()
    }
    drawn = g.op("Squeeze", g.op("Greater", g.size(draws, 1), g.ints(0)))
    return g.op("If", drawn, **graphs)


def _rows(g: Nodes, guided: str, batch: str) -> str:
    """int64 (K, 1): 2B where the row is guided and any weight is not 1, else B."""
    away = g.op("Abs", g.op("Sub", "guidance", g.floats(1.0)))
    on = g.op("Greater", g.op("ReduceMax", away), g.floats(0.0))
    on = g.op(
        "Cast", g.op("And", on, g.op("Greater", guided, g.floats(0.0))), to=TensorProto.INT64
    )
    return g.op("Mul", g.op("Add", on, g.ints(1)), batch)


def _with_null(g: Nodes, spec: Spec, batch: str) -> str:
    """The condition of 2B rows: as given, one per row or one for all, then the null one.

    The Reshape fails on any other number of rows, which would be taken for null ones without a word.
    """
    kind, shape = spec.condition.kind, spec.condition.shape
    sizes = g.op("Concat", batch, g.ints(*shape), axis=0) if shape else batch
    given = g.op("Reshape", g.op("Expand", kind, sizes), sizes)
    null = g.ints(spec.condition.classes) if kind == "label" else g.floats(0.0)
    return g.op("Concat", given, g.op("Expand", null, sizes), axis=0)


def _body(
    network: onnx.ModelProto,
    spec: Spec,
    parts: Parts,
    scanned: Mapping[str, str],
    outer: Mapping[str, str],
) -> onnx.GraphProto:
    """One row: the network at a mix of the slots, then the slots anew. `outer` is read from outside."""
    b, kind = Nodes("r"), spec.condition.kind
    mixed = b.op("Reshape", b.op("MatMul", "row.input", "row.state"), b.ints(-1, *spec.shape))
    feeds, rows = {"x": mixed, "time": "row.time"}, outer["batch"]
    if kind != "none":
        rows = "row.rows"
        feeds |= {"x": b.op("Concat", mixed, mixed, axis=0), kind: outer["condition"]}
    feeds = {name: value for name, value in feeds.items() if parts.reads(name)}
    if kind != "none":
        feeds = {name: b.part(value, 0, 0, rows) for name, value in feeds.items()}
    shown = dict[str, str]()
    kinds = {"rows": TensorProto.INT64}
    sizes: dict[str, Sizes] = {"time": ["called"], "rows": [1]}
    for number, crossing in enumerate(parts.crossings):
        name = f"crossing{number}"
        sizes[name] = [None] * (2 + len(crossing.middle))
        pieces = inside(b, crossing, outer.get(name, f"row.{name}"), rows)
        shown |= dict(zip(crossing.names, pieces, strict=True))
    out = _inlined(b, network, parts, feeds, shown)
    if kind != "none":
        strong = b.part(out, 0, 0, outer["batch"])
        weak = b.part(out, 0, b.op("Neg", outer["batch"]), END)  # strong itself on B rows
        away = b.op("Mul", b.op("Sub", strong, weak), outer["weight"])
        out = b.op("Add", weak, away)
    terms = b.op("Concat", "row.state", b.op("Reshape", out, b.ints(1, -1)), "row.noise", axis=0)
    new = b.op("MatMul", "row.update", terms)
    inputs = [_value("row.state", TensorProto.FLOAT, ["kept", "numbers"])] + [
        _value(f"row.{name}", kinds.get(name, TensorProto.FLOAT), sizes.get(name, [None, None]))
        for name in scanned
    ]
    return _graph("row", b, inputs, [_value(new, TensorProto.FLOAT, ["kept", "numbers"])])


def _inlined(
    b: Nodes,
    network: onnx.ModelProto,
    parts: Parts,
    feeds: Mapping[str, str],
    shown: Mapping[str, str],
) -> str:
    """What is left of the network under names of its own, reading `feeds` and what was worked out before
    the loop; the name of its prediction."""

    def name_of(name: str) -> str:
        return shown.get(name, PREFIX + name if name else "")

    for name, value in feeds.items():
        b.named(PREFIX + name, value)
    nodes = [*needed(parts.late, parts.constant), *parts.late]
    for node in nodes:
        b.again(node, name_of)
    b.constants |= weights(network, nodes, name_of)
    return PREFIX + "prediction"


def _pixels(g: Nodes, x: str, value_range: tuple[float, float]) -> str:
    """round((x - low) / (high - low) * 255), 0 to 255."""
    low, high = value_range
    scaled = g.op("Mul", g.op("Sub", x, g.floats(low)), g.floats(255.0 / (high - low)))
    edges = [g.array(np.array(edge, np.float32)) for edge in (0.0, 255.0)]
    return g.op("Cast", g.op("Round", g.op("Clip", scaled, *edges)), to=TensorProto.UINT8)


def _condition(spec: Spec) -> Values:
    if spec.condition.kind == "none":
        return []
    if spec.condition.kind == "label":
        return [_value("label", TensorProto.INT64, ["batch"])]
    return [_value("context", TensorProto.FLOAT, ["batch", *spec.condition.shape])]


def _options(spec: Spec) -> Values:
    """The inputs that have defaults; `guidance` only where there is a condition."""
    tableau = _value("tableau", TensorProto.FLOAT, ["calls", "kept_and_head", "columns"])
    guidance = _value("guidance", TensorProto.FLOAT, ["weights"])
    seed = _value("seed", TensorProto.INT64, ["seeds"])
    return [tableau, *([guidance] if spec.condition.kind != "none" else []), seed]


def _defaults(spec: Spec) -> dict[str, NDArray[Any]]:
    given: dict[str, NDArray[Any]] = {
        "tableau": recommended(spec).tensor,
        "guidance": np.array([spec.sampler.guidance], np.float32),
        "seed": np.zeros(1, np.int64),
    }
    return {value.name: given[value.name] for value in _options(spec)}


def _batch(name: str, spec: Spec, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return _value(name, kind, ["batch", *spec.shape])


def _value(name: str, kind: int, sizes: Sizes) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, sizes)


def _graph(name: str, g: Nodes, inputs: Values, outputs: Values) -> onnx.GraphProto:
    return helper.make_graph(g.nodes, name, inputs, outputs, list(g.constants.values()))


def _model(
    network: onnx.ModelProto,
    g: Nodes,
    inputs: Values,
    outputs: Values,
    defaults: dict[str, NDArray[Any]],
) -> onnx.ModelProto:
    graph = _graph("sampler", g, inputs, outputs)
    graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in defaults.items()
    )
    return helper.make_model(
        graph, opset_imports=list(network.opset_import), ir_version=network.ir_version
    )
