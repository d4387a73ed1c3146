"""From a solver to its tableau: run it once on symbols and write down what it did.

A symbol is factor * node. Adding symbols makes a node; a network call or a draw of noise makes a leaf.
Counting the calls made gives every node a birth, and reading it a last use. The nodes born before a
call and read after it, less those that are sums of the others, are the slots the state needs there:
Euler 1, Heun and AB2 2, RK4 4.
"""

from dataclasses import dataclass, field
from functools import lru_cache

from .flow import flow
from .stochastic import Diffusion
from .tableau import Row, Tableau, Weights


@lru_cache(maxsize=64)
def trace(
    solver: str,
    times: tuple[float, ...],
    *,
    schedule: str = "linear",
    prediction: str = "velocity",
    chart: str = "straight",
    eta: float = 1.0,
    diffusion: str | Diffusion = "sigma",
    guided: tuple[float, float] | None = None,
) -> Tableau:
    """The tableau of one run over `times`; guided: the interval of t where guidance is on, or None."""
    tape = Tape()
    states = flow(
        solver,
        tape.call,
        Symbol(tape.root),
        times,
        schedule=schedule,
        prediction=prediction,
        chart=chart,
        draw=tape.draw,
        eta=eta,
        diffusion=diffusion,
    )
    for state in states:
        tape.shown[tape.calls] = state
    boundaries = tape.boundaries()
    return Tableau(
        rows=tuple(
            tape.row(k, boundaries[k], boundaries[k + 1], guided) for k in range(tape.calls)
        ),
        slots=max(len(slots) for slots in boundaries),
    )


@dataclass(eq=False)
class Node:
    """A state born after so many calls: a sum of scaled nodes, or a leaf (root, output, noise)."""

    tape: "Tape"
    born: int
    terms: tuple["Symbol", ...] | None = None  # none of a leaf; () is a sum of nothing, zero
    last_use: int = -1  # the largest `born` among the sums that read it


@dataclass(frozen=True)
class Symbol:
    """factor * node: what a solver holds in place of an array."""

    node: Node
    factor: float = 1.0

    def __mul__(self, other: float) -> "Symbol":
        return Symbol(self.node, self.factor * other)

    def __add__(self, other: "Symbol") -> "Symbol":
        return self.node.tape.add(self, other)


@dataclass(eq=False)
class Tape:
    """What a solver did: each call's input and time, the noise drawn after it, the states shown."""

    inputs: list[Symbol] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    outputs: list[Node] = field(default_factory=list)
    drawn: dict[int, tuple[int, Node]] = field(default_factory=dict)  # call -> (step, noise)
    shown: dict[int, Symbol] = field(default_factory=dict)  # calls made -> state
    nodes: list[Node] = field(default_factory=list)

    @property
    def calls(self) -> int:
        return len(self.inputs)

    @property
    def root(self) -> Node:
        """The state a run starts from."""
        return self.nodes[0] if self.nodes else self._new(None)

    def add(self, *symbols: Symbol) -> Symbol:
        terms = tuple(symbol for symbol in symbols if symbol.factor != 0.0)
        for symbol in terms:
            symbol.node.last_use = self.calls
        return Symbol(self._new(terms))

    def call(self, x: Symbol, t: float) -> Symbol:
        """Stands in for the network."""
        self.inputs.append(x)
        self.times.append(t)
        self.outputs.append(self._new(None))
        return Symbol(self.outputs[-1])

    def draw(self, step: int) -> Symbol:
        """Stands in for the source of noise."""
        if self.calls == 0 or self.calls - 1 in self.drawn:
            raise ValueError(
                f"tableau: expected one draw of noise after each call, got another at call {self.calls}; "
                "run this solver through `flow`"
            )
        self.drawn[self.calls - 1] = (step, self._new(None))
        return Symbol(self.drawn[self.calls - 1][1])

    def boundaries(self) -> list[list[Symbol]]:
        """The slots before each call and after the last."""
        alive: list[list[Node]] = [[] for _ in range(self.calls + 1)]
        for node in self.nodes:
            for k in range(node.born, node.last_use):
                alive[k].append(node)
        return [self._slots(k, nodes) for k, nodes in enumerate(alive)]

    def _slots(self, k: int, alive: list[Node]) -> list[Symbol]:
        """A state to show first, then what a later sum or the next call reads and no sum gives."""
        if k == 0:
            return [Symbol(self.root)]
        kept = [self.shown[k]] if k in self.shown else []
        wanted = [Symbol(node) for node in alive] + ([self.inputs[k]] if k < self.calls else [])
        for symbol in wanted:
            if _weights(symbol, kept, (), k) is None:
                kept.append(symbol)
        return kept

    def row(
        self, k: int, before: list[Symbol], after: list[Symbol], guided: tuple[float, float] | None
    ) -> Row:
        step, noise = self.drawn.get(k, (None, None))
        leaves = (self.outputs[k],) if noise is None else (self.outputs[k], noise)
        return Row(
            time=self.times[k],
            guided=guided is not None and guided[0] <= self.times[k] <= guided[1],
            input=_sum(self.inputs[k], before, (), k),
            update=tuple(_sum(slot, before, leaves, k) for slot in after),
            draw=step,
            ends_step=k + 1 in self.shown,
        )

    def _new(self, terms: tuple[Symbol, ...] | None) -> Node:
        self.nodes.append(Node(self, self.calls, terms))
        return self.nodes[-1]


def _sum(symbol: Symbol, slots: list[Symbol], leaves: tuple[Node, ...], born: int) -> Weights:
    weights = _weights(symbol, slots, leaves, born)
    if weights is None:
        raise RuntimeError("tableau: a state is read that no slot keeps")
    return tuple((index, weight) for index, weight in sorted(weights.items()) if weight != 0.0)


def _weights(
    symbol: Symbol, slots: list[Symbol], leaves: tuple[Node, ...], born: int
) -> dict[int, float] | None:
    """`symbol` as weights on the slots and leaves, or None where they do not suffice.

    Only sums at least as young as `born` are taken apart: an older one has a slot if it is needed.
    """
    found: dict[int, dict[int, float] | None] = {
        id(slot.node): {index: 1.0 / slot.factor} for index, slot in enumerate(slots)
    }
    found |= {id(leaf): {len(slots) + index: 1.0} for index, leaf in enumerate(leaves)}

    def of(node: Node) -> dict[int, float] | None:
        if id(node) not in found:
            known = node.terms is not None and node.born >= born
            found[id(node)] = total(node.terms or ()) if known else None
        return found[id(node)]

    def total(terms: tuple[Symbol, ...]) -> dict[int, float] | None:
        weights: dict[int, float] = {}
        for term in terms:
            part = of(term.node)
            if part is None:
                return None
            for index, weight in part.items():
                weights[index] = weights.get(index, 0.0) + weight * term.factor
        return weights

    return total((symbol,))
