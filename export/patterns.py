"""A graph as rules see it that replace one of its patterns: who makes a value, who reads it, its sizes."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import onnx

from .flat import Array, Flat, Types, pruned, types
from .tangent import attribute

NEW = "fused/"  # how the names of what rules add begin: no framework's names have a /


@dataclass(frozen=True)
class View:
    """A flat graph looked at; `added`: the constants that rules asked for."""

    flat: Flat
    added: dict[str, Array] = field(default_factory=dict)

    @cached_property
    def types(self) -> Types:
        """Of every value."""
        return types(self.flat)

    @cached_property
    def makers(self) -> dict[str, onnx.NodeProto]:
        """The node behind every value."""
        return {name: node for node in self.flat.nodes for name in node.output}

    @cached_property
    def readers(self) -> Counter[str]:
        """How often a value is read; to be an output of the graph counts too."""
        inside = (name for node in self.flat.nodes for name in node.input)
        return Counter([*inside, *self.flat.outputs])

    def maker(self, name: str, *kinds: str) -> onnx.NodeProto | None:
        """The node of one of these kinds behind a value that is read once."""
        node = self.makers.get(name)
        fits = node is not None and node.op_type in kinds and self.readers[name] == 1
        return node if fits else None

    def before(self, name: str, order: list[int]) -> str | None:
        """a, where the value is a with its axes in that order and is read once."""
        node = self.maker(name, "Transpose")
        return node.input[0] if node and attribute(node, "perm", []) == order else None

    def rows(self, name: str) -> int | None:
        """The size of a value's first axis, None for one that moves with the batch."""
        return self.types.get(name, (0, (None,)))[1][0]

    def inner(self, name: str, axes: int) -> tuple[int, ...]:
        """The other sizes of a float32 value of so many axes; () if one is not known."""
        kind, sizes = self.types.get(name, (0, ()))
        known = tuple(size for size in sizes[1:] if size is not None)
        whole = kind == onnx.TensorProto.FLOAT and len(sizes) == axes == len(known) + 1
        return known if whole else ()

    def number(self, name: str) -> float | None:
        """The value of a constant that is one number and has at most one axis."""
        value = self.flat.constants.get(name)
        return float(value.item()) if value is not None and value.shape in ((), (1,)) else None

    def whole(self, number: int) -> str:
        """A constant, int64 (1,)."""
        name = f"{NEW}{number}"
        self.added[name] = np.array([number], np.int64)
        return name


def replaced(view: View, rule: Callable[[View, onnx.NodeProto], list[onnx.NodeProto]]) -> Flat:
    """The graph with what a rule gives in the place of a node; [] leaves it as it is."""
    nodes = [new for node in view.flat.nodes for new in rule(view, node) or [node]]
    constants = {**view.flat.constants, **view.added}
    return pruned(replace(view.flat, nodes=tuple(nodes), constants=constants))
