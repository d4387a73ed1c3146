"""A network's graph -> the same in fewer, larger nodes that ONNX Runtime runs faster: what --profile chooses.

    portable    as it came: opset 20 from torch and MLX, which every runtime takes
    fast        attention as one node: opset 23, so ONNX Runtime 1.23 or newer

Standard operators only. A pattern is replaced where sizes, axes and constants prove that the two are equal
and no one else reads a value inside; the parity gate of `forms.write` then compares the outcome with the
framework as it does any other.

A rule is here because it pays on the CPU (ONNX Runtime 1.32). Measured and left out: scale and shift inside
LayerNormalization (half its time for one sample, twice for more, where it has only a slow way for them),
Attention on four axes (its Transposes stay), Gemm for MatMul and Add, one product for all modulations, the 1
of 1 + s inside a bias. It fuses Gelu and RMSNormalization by itself, and has no kernel for Swish.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import helper

from runtimes.choices import choose

from .flat import Flat, folded, proto, read
from .patterns import NEW, View, replaced
from .tangent import attribute

NEWER = 23  # the opset that has Attention
CHANGED = {"DFT", "GridSample", "GroupNormalization"}  # mean something else there than in opset 18
# orders of axes: heads before tokens; the same and width before tokens; width before tokens; parts first
HEADS, KEYS, TURNED, PARTS = [0, 2, 1, 3], [0, 2, 3, 1], [0, 1, 3, 2], [2, 0, 3, 1, 4]
Rule = Callable[[Flat], Flat]


def rewritten(network: onnx.ModelProto, profile: str) -> onnx.ModelProto:
    """The network by the rules of one of `PROFILES`; the one given is not changed.

    Raises ValueError for an unknown profile, and what `flat.read` raises.
    """
    rules = PROFILES[choose("profile", profile, PROFILES)]
    if not rules:
        return network
    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    flat = folded(read(copy))
    for rule in rules:
        flat = rule(flat)
    return proto(flat, network.graph.name)


def turned(flat: Flat) -> Flat:
    """One Transpose of the last two axes for the nine nodes by which torch's own call turns its keys."""
    return replaced(View(flat), _turned)


def _turned(view: View, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """(B, H, L, d) -> (B H, L, d) -> (B H, d, L) -> (B, H, d, L)."""
    flipped = view.before(node.input[0], [0, 2, 1]) if node.op_type == "Reshape" else None
    first = view.maker(flipped, "Reshape") if flipped else None
    if not first:
        return []
    a, flat = view.inner(first.input[0], 4), view.inner(first.output[0], 3)
    if not a or flat != a[1:] or view.inner(node.output[0], 4) != (a[0], a[2], a[1]):
        return []
    return [helper.make_node("Transpose", [first.input[0]], list(node.output), perm=TURNED)]


@dataclass(frozen=True)
class Heads:
    """What was cut into heads: float32 (rows, tokens, count * width of a head), and nodes that make it."""

    name: str
    rows: int | None
    tokens: int
    count: int
    width: int
    nodes: tuple[onnx.NodeProto, ...] = ()


def attention(flat: Flat) -> Flat:
    """softmax(scale q k^T) v on tokens (B, L, H d) is one Attention: heads are multiplied where they lie.

    Not where something stands between the product and softmax, such as a mask, and not where an operator
    of the graph would mean something else in the opset that has Attention.
    """
    if flat.opset < NEWER and any(node.op_type in CHANGED for node in flat.nodes):
        return flat
    found = replaced(View(flat), _attention)
    there = any(node.op_type == "Attention" for node in found.nodes)
    return replace(found, opset=max(flat.opset, NEWER)) if there else flat


def _attention(view: View, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Reshape(Transpose(MatMul(Softmax(scale MatMul(q, k)), v)))."""
    back = view.before(node.input[0], HEADS) if node.op_type == "Reshape" else None
    seen = view.maker(back, "MatMul") if back else None
    softmax = view.maker(seen.input[0], "Softmax") if seen else None
    if not (seen and softmax and attribute(softmax, "axis", -1) in (-1, 3)):
        return []
    name, scale = _scaled(view, softmax.input[0])
    scores = view.maker(name, "MatMul")
    if not scores:
        return []
    (left, by_left), (right, by_right) = (_scaled(view, name) for name in scores.input)
    q, k, v = _heads(view, left), _keys(view, right), _heads(view, seen.input[1])
    scale *= by_left * by_right
    if not (q and k and v and 0.0 < scale < np.inf):
        return []
    alike = {(part.rows, part.count) for part in (q, k, v)}  # else one is repeated to fit
    if len(alike) > 1 or view.inner(node.output[0], 3) != (q.tokens, v.count * v.width):
        return []
    made = helper.make_node(
        "Attention",
        [q.name, k.name, v.name],
        list(node.output),
        scale=scale,
        q_num_heads=q.count,
        kv_num_heads=q.count,
    )
    return [*q.nodes, *k.nodes, *v.nodes, made]


def _scaled(view: View, name: str) -> tuple[str, float]:
    """(a, c) of a value a c or a / c, c a constant; (itself, 1) of any other."""
    node = view.maker(name, "Mul", "Div")
    for a, c in (node.input, reversed(node.input)) if node else ():
        factor = view.number(c)
        if factor is not None and node and node.op_type == "Mul":
            return a, factor
        if factor and node and node.input[1] == c:
            return a, 1.0 / factor
    return name, 1.0


def _heads(view: View, name: str) -> Heads | None:
    """Behind a value (B, H, L, d)."""
    tokens = view.before(name, HEADS)
    return _cut(view, tokens) if tokens else _part(view, name)


def _keys(view: View, name: str) -> Heads | None:
    """Behind a value (B, H, d, L)."""
    tokens, heads = view.before(name, KEYS), view.before(name, TURNED)
    return _cut(view, tokens) if tokens else _heads(view, heads) if heads else None


def _cut(view: View, name: str) -> Heads | None:
    """Behind a value (B, L, H, d) that is (B, L, H d) reshaped."""
    node = view.maker(name, "Reshape")
    whole, cut = (view.inner(node.input[0], 3), view.inner(name, 4)) if node else ((), ())
    if not (node and whole and cut) or whole != (cut[0], cut[1] * cut[2]):
        return None
    return Heads(node.input[0], view.rows(node.input[0]), cut[0], cut[1], cut[2])


def _part(view: View, name: str) -> Heads | None:
    """Behind one of P values (B, H, L, d) that are (B, L, P H d) cut together: a slice of it."""
    together, index = _taken(view, name)
    parts = view.makers.get(together)
    node = view.maker(parts.input[0], "Reshape") if parts else None
    if not (parts and node and attribute(parts, "perm", []) == PARTS):
        return None
    whole, cut = view.inner(node.input[0], 3), view.inner(node.output[0], 5)
    if not (whole and cut) or whole != (cut[0], cut[1] * cut[2] * cut[3]):
        return None
    tokens, count, heads, width = cut
    if view.readers[together] != count or index >= count:
        return None
    first, size = index * heads * width, heads * width
    ends = [view.whole(number) for number in (first, first + size, 2)]
    made = helper.make_node("Slice", [node.input[0], *ends], [f"{NEW}{name}"])
    return Heads(made.output[0], view.rows(node.input[0]), tokens, heads, width, (made,))


def _taken(view: View, name: str) -> tuple[str, int]:
    """(a, i) of a value a[i], by Gather or by Slice and Squeeze; ("", 0) of any other."""
    gather, squeeze = view.maker(name, "Gather"), view.maker(name, "Squeeze")
    first = squeeze is not None and view.number(squeeze.input[-1]) == 0
    cut = view.maker(squeeze.input[0], "Slice") if squeeze and first else None
    node = gather or cut
    numbers = [view.number(value) for value in node.input[1:]] if node else [None]
    index = numbers[0]
    if not node or index is None or index < 0:
        return "", 0
    if node is gather and attribute(node, "axis", 0) != 0:
        return "", 0
    if node is cut and numbers != [index, index + 1, 0]:
        return "", 0
    return node.input[0], int(index)


# profile -> the rules that a network's graph goes through, one after the other
PROFILES: dict[str, tuple[Rule, ...]] = {
    "portable": (),
    "fast": (turned, attention),
}
