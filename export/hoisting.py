"""What of a network does not look at x: taken out of the loop, for all rows of a tableau at once.

    time       made of the time alone: once per row of the tableau
    condition  made of the condition alone: once per sample of a call
    both       made of both: once per sample of a call, for every row of the tableau

The features of time, what modulates each layer and the projections of a prompt then cost a few large
products before the loop in place of many small ones inside it. A node goes only if each row of its output
comes from the same row of its inputs, provably: `ROWWISE` knows the operator, and its sizes at two batches
show that the first axis is still the batch.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial

import onnx
from onnx import TensorProto

from runtimes.contracts import MOST_AHEAD

from .flat import Array, Flat, fixed, known, read, types
from .nodes import Nodes
from .tangent import attribute

BATCHES = (7, 11)  # an axis of 7 under the one and 11 under the other is the batch
# what is made of these is made for every row of the tableau, MOST_AHEAD numbers of it at most
ROWS = ("time", "both")
ROUNDS = 20  # of giving up what cannot go; then all of it stays


@dataclass(frozen=True)
class Crossing:
    """Values that the loop reads, side by side: names[i] is float32 (rows, *middle, widths[i])."""

    source: str
    middle: tuple[int, ...]
    names: tuple[str, ...]
    widths: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """Of each row."""
        return math.prod(self.middle) * sum(self.widths)


@dataclass(frozen=True)
class Parts:
    """A network's nodes: those `ahead` of the loop by their source, and `late` ones; each in order.

    constant: what reads constants only, for both. sizes: of all that has a row per sample, without it.
    """

    ahead: Mapping[str, tuple[onnx.NodeProto, ...]]
    late: tuple[onnx.NodeProto, ...]
    constant: tuple[onnx.NodeProto, ...]
    crossings: tuple[Crossing, ...]
    sizes: Mapping[str, tuple[int, ...]]

    def reads(self, name: str) -> bool:
        """Whether the loop still reads that input of the network."""
        return any(name in node.input for node in self.late)


@dataclass(frozen=True)
class Known:
    """What a rule may look at.

    sizes: of the values with a row per sample, without it. constants: all of them; values: of those that
    stand in the graph.
    """

    sizes: Mapping[str, tuple[int, ...]]
    constants: Set[str]
    values: Mapping[str, Array]

    def rank(self, name: str) -> int:
        """Of a value with a row per sample."""
        return 1 + len(self.sizes[name])


def parted(network: onnx.ModelProto) -> Parts:
    """The parts of a network with the inputs x, time and, where there is one, a condition."""
    flat = read(network)
    sizes, rows = _rows(flat)
    constant, names = list[onnx.NodeProto](), {"", *flat.constants}
    for node in flat.nodes:
        if names.issuperset(node.input):
            constant.append(node)
            names.update(node.output)
    seen = Known(sizes, names, {**flat.constants, **known(flat)})
    stuck: set[str] = set()  # values to be made in the loop all the same
    for _ in range(ROUNDS):
        parts = _parted(flat, tuple(constant), seen, stuck)
        more = _too_much(parts) | ({name for one in parts.crossings for name in one.names} - rows)
        if not more:
            return parts
        stuck |= more
    return _parted(flat, tuple(constant), seen, seen.sizes.keys())


def _too_much(parts: Parts) -> set[str]:
    """What is too large to be kept for every row: a value, or one made of such a value; and where those
    that cross are too many, all of them, so that what they are made of crosses instead."""
    found: set[str] = set()
    for source in ROWS:
        for node in parts.ahead[source]:
            near = [name for name in (*node.input, *node.output) if name in parts.sizes]
            if any(math.prod(parts.sizes[name]) > MOST_AHEAD for name in near):
                found.update(node.output)
        crossings = [one for one in parts.crossings if one.source == source]
        if sum(one.numbers for one in crossings) > MOST_AHEAD:
            found.update(name for one in crossings for name in one.names)
    return found


def _rows(flat: Flat) -> tuple[dict[str, tuple[int, ...]], set[str]]:
    """The sizes of every value with a row per sample, without it; and which of them are rows of float32."""
    small, large = (types(fixed(flat, batch)) for batch in BATCHES)
    sizes = {
        name: tuple(int(size) for size in axes[1:] if size is not None)
        for name, (_, axes) in small.items()
        if None not in axes and axes[:1] == BATCHES[:1]
        and large.get(name, (0, ()))[1] == (*BATCHES[1:], *axes[1:])
    }  # fmt: skip
    rows = {name for name in sizes if sizes[name] and small[name][0] == TensorProto.FLOAT}
    return sizes, rows


def _parted(
    flat: Flat, constant: tuple[onnx.NodeProto, ...], seen: Known, stuck: Set[str]
) -> Parts:
    late = list[onnx.NodeProto]()
    sources = {name: source_of(name) for name in flat.inputs}
    ahead: dict[str, list[onnx.NodeProto]] = {"time": [], "condition": [], "both": []}
    for node in flat.nodes:
        moving = {sources.get(name, "x") for name in node.input if name not in seen.constants}
        source = "x" if "x" in moving else "both" if len(moving) > 1 else "".join(moving)
        if not source:
            continue
        if source != "x" and _may_go(node, flat, seen) and not stuck & set(node.output):
            ahead[source].append(node)
            sources.update(dict.fromkeys(node.output, source))
        else:
            late.append(node)
    made = {name for nodes in ahead.values() for node in nodes for name in node.output}
    groups: dict[tuple[str, tuple[int, ...]], dict[str, int]] = {}
    for name in (name for node in late for name in node.input if name in made):
        *middle, width = seen.sizes[name] or (1,)  # a bare number will be stuck
        groups.setdefault((sources[name], tuple(middle)), {})[name] = width
    crossings = tuple(
        Crossing(source, middle, tuple(widths), tuple(widths.values()))
        for (source, middle), widths in groups.items()
    )
    parts = {source: tuple(nodes) for source, nodes in ahead.items()}
    return Parts(parts, tuple(late), constant, crossings, seen.sizes)


def source_of(name: str) -> str:
    """Of an input of the network."""
    return name if name in ("x", "time") else "condition"


def _may_go(node: onnx.NodeProto, flat: Flat, seen: Known) -> bool:
    """Whether each row of what a node makes comes from the same row of what it reads."""
    made = set(node.output)
    rule = ROWWISE.get(node.op_type)
    if rule is None or not made <= seen.sizes.keys() or made & flat.outputs.keys():
        return False
    return rule(node, seen)


def before(
    g: Nodes, network: onnx.ModelProto, parts: Parts, feeds: Mapping[str, str], most: str
) -> list[str]:
    """The values of the crossings, in order, from nodes before the loop.

    feeds: time float32 (K,), and the condition of 2B samples by its name. most: int64 (1,), M, how many
    samples the largest call has. Returns float32 (K, 1, *middle, F) for what is made of the time,
    (2B, *middle, F) of the condition, (K, M, *middle, F) of both; F is the sum of the widths.
    """
    page = Outside(g, parts, feeds, most)
    every = [node for nodes in parts.ahead.values() for node in nodes]
    constant = needed(every, parts.constant)
    g.constants |= weights(network, [*every, *constant], page.constant)
    for node in constant:
        g.again(node, page.constant)
    for source, nodes in parts.ahead.items():
        for node in nodes:
            g.again(node, partial(page.at, source))
    return [page.joined(crossing) for crossing in parts.crossings]


def inside(b: Nodes, crossing: Crossing, value: str, rows: str) -> list[str]:
    """The values of a crossing, in a loop whose call has so many rows.

    value: one row of what `before` returned, or all of a condition's. rows: int64 (1,).
    """
    if crossing.source == "time":
        ones = b.ints(*[1] * (1 + len(crossing.middle)))
        shown = b.op("Expand", value, b.op("Concat", rows, ones, axis=0))
    else:
        shown = b.part(value, 0, 0, rows)
    if len(crossing.names) == 1:
        return [shown]
    return b.ops("Split", len(crossing.names), shown, b.ints(*crossing.widths), axis=-1)


class Outside:
    """The nodes before the loop: every value by its name and the rows in which it is laid out."""

    def __init__(self, g: Nodes, parts: Parts, feeds: Mapping[str, str], most: str) -> None:
        self.g, self.parts, self.most = g, parts, most
        self.there = {
            (source, name) for source, nodes in parts.ahead.items() for node in nodes
            for name in node.output
        }  # fmt: skip
        for name, value in feeds.items():
            self.there.add((source_of(name), name))
            g.named(f"{source_of(name)}.{name}", value)

    def at(self, source: str, name: str) -> str:
        """A value for nodes of that source; for those of both laid out for every row and sample."""
        if name not in self.parts.sizes:
            return self.constant(name)
        if source == "both" and (source, name) not in self.there:
            self.there.add((source, name))
            self.g.named(f"both.{name}", self.spread(name))
        return f"{source}.{name}"

    def constant(self, name: str) -> str:
        """A weight, or what is made of weights alone."""
        return f"ahead.{name}" if name else ""

    def spread(self, name: str) -> str:
        """(K * M, *sizes) of a value that has K rows, or 2B of which the first M count."""
        g, sizes = self.g, self.parts.sizes[name]
        ones = [g.ints(*[1] * len(sizes))] if sizes else []
        if ("time", name) in self.there:
            each = g.op("Unsqueeze", f"time.{name}", g.ints(1))
            shape = g.op("Concat", g.ints(1), self.most, *ones, axis=0)
        else:
            each = g.op("Unsqueeze", g.part(f"condition.{name}", 0, 0, self.most), g.ints(0))
            shape = g.op("Concat", g.size("tableau", 0), g.ints(1), *ones, axis=0)
        return g.op("Reshape", g.op("Expand", each, shape), g.ints(-1, *sizes))

    def joined(self, crossing: Crossing) -> str:
        """The value of a crossing: its values side by side, cut by rows of the tableau."""
        g = self.g
        values = [self.at(crossing.source, name) for name in crossing.names]
        whole = g.op("Concat", *values, axis=-1) if len(values) > 1 else values[0]
        if crossing.source == "time":
            return g.op("Unsqueeze", whole, g.ints(1))
        if crossing.source == "both":
            sizes = g.ints(*crossing.middle, sum(crossing.widths))
            shape = g.op("Concat", g.size("tableau", 0), self.most, sizes, axis=0)
            return g.op("Reshape", whole, shape)
        return whole


def needed(
    nodes: Iterable[onnx.NodeProto], constant: Sequence[onnx.NodeProto]
) -> list[onnx.NodeProto]:
    """Those of the nodes that make constants which these read, in order."""
    wanted, found = {name for node in nodes for name in node.input}, list[onnx.NodeProto]()
    for node in reversed(constant):
        if wanted.intersection(node.output):
            found.insert(0, node)
            wanted.update(node.input)
    return found


def weights(
    network: onnx.ModelProto, nodes: Iterable[onnx.NodeProto], rename: Callable[[str], str]
) -> dict[str, onnx.TensorProto]:
    """The weights that these nodes read, by their names there."""
    read_by, found = {name for node in nodes for name in node.input}, {}
    for tensor in network.graph.initializer:
        if tensor.name in read_by:
            name = rename(tensor.name)
            found[name] = onnx.TensorProto()
            found[name].CopyFrom(tensor)
            found[name].name = name
            del found[name].metadata_props[:]
    return found


def _always(node: onnx.NodeProto, seen: Known) -> bool:
    return True


def _along(node: onnx.NodeProto, seen: Known) -> bool:
    """What works along the attribute `axis`, and leaves sizes as they are: not the first one."""
    return bool(attribute(node, "axis", -1) % seen.rank(node.input[0]))


def _slice(node: onnx.NodeProto, seen: Known) -> bool:
    """Not of the first axis: it might be turned round."""
    axes = seen.values.get(node.input[3]) if len(node.input) > 3 else None
    return axes is not None and bool((axes % seen.rank(node.input[0])).all())


def _gather(node: onnx.NodeProto, seen: Known) -> bool:
    """Rows of a table, or the same places in every row; not the places that one row has in all others."""
    return not set(node.input) <= seen.sizes.keys()


ALWAYS = """
Abs Add And Cast Ceil Clip Concat Cos Div Elu Equal Erf Exp Expand Flatten Floor Gelu Gemm Greater
GreaterOrEqual HardSigmoid HardSwish Identity LeakyRelu Less LessOrEqual Log MatMul Max Mean Min Mish Mod
Mul Neg Not Or Pow Reciprocal ReduceMean ReduceSum Relu Reshape Round Selu Sigmoid Sign Sin Softplus Softsign
Split Sqrt Squeeze Sub Sum Swish Tan Tanh Transpose Unsqueeze Where
"""
# operator -> whether a node of it keeps rows apart, given that its output has one per sample, whatever
# their number: that alone rules out products, sums and turns across the batch
ROWWISE: dict[str, Callable[[onnx.NodeProto, Known], bool]] = {
    **dict.fromkeys(ALWAYS.split(), _always),
    "Gather": _gather,
    "LayerNormalization": _along,
    "LogSoftmax": _along,
    "RMSNormalization": _along,
    "Slice": _slice,
    "Softmax": _along,
}
