"""size = a + b * batch: every number of a traced program that moves with the batch, fitted.

A network is traced at several batch sizes. A number that stays is itself, one that moves becomes a
`Size` with rational a and b from the first two traces, checked on the others. A scalar constant that
moves, such as the 1 / batch of a mean, becomes a `Factor`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

BATCHES = (11, 13, 19)  # primes that no layer is likely to have as a size of its own


class Unfitted(Exception):
    """Numbers of several traces that no formula of the batch explains; its text says which."""


@dataclass(frozen=True)
class Size:
    """a + b * batch, b not 0."""

    a: Fraction
    b: Fraction

    def __str__(self) -> str:
        times = "batch" if self.b == 1 else f"{self.b} batch"
        return f"{self.a} + {times}" if self.a else times


@dataclass(frozen=True)
class Factor:
    """scale * batch ** power."""

    scale: float
    power: float


Number = int | Size
BATCH = Size(Fraction(0), Fraction(1))


def fit(values: Sequence[Any]) -> Any:
    """What the same argument was in every trace, as one: whole numbers that move become sizes."""
    first = values[0]
    if isinstance(first, list | tuple):
        if len({len(value) for value in values}) > 1:
            raise Unfitted(f"lists of {[len(value) for value in values]} numbers")
        return tuple(fit(parts) for parts in zip(*values, strict=True))
    if isinstance(first, dict):
        return {key: fit([value[key] for value in values]) for key in first}
    if all(value == first for value in values):
        return first
    if all(isinstance(value, int | float) and value == int(value) for value in values):
        return _line([int(value) for value in values])
    raise Unfitted(f"{list(values)}")


def _line(values: Sequence[int]) -> Size:
    b = Fraction(values[1] - values[0], BATCHES[1] - BATCHES[0])
    size = Size(values[0] - b * BATCHES[0], b)
    if any(size.a + size.b * n != value for n, value in zip(BATCHES, values, strict=True)):
        raise Unfitted(f"{list(values)} at batches {list(BATCHES)}")
    return size


def fit_factor(values: Sequence[float]) -> Factor:
    """A scalar constant that moves with the batch: the power of the batch that explains it."""
    for power in (-1.0, 1.0, -0.5, 0.5, -2.0, 2.0):
        scale = values[0] / BATCHES[0] ** power
        wanted = [scale * n**power for n in BATCHES]
        if all(
            abs(value - want) <= 1e-6 * abs(want)
            for value, want in zip(values, wanted, strict=True)
        ):
            return Factor(scale, power)
    raise Unfitted(f"{list(values)} at batches {list(BATCHES)}")


def total(sizes: Sequence[Number]) -> Number:
    """How many numbers an array of these sizes holds; one of them may move."""
    fixed, moving = 1, None
    for size in sizes:
        if not isinstance(size, Size):
            fixed *= size
        elif moving is None:
            moving = size
        else:
            raise ValueError(
                f"module: expected sizes that are a + b * batch, got ({size}) times ({moving}); "
                "write it without products of the batch size"
            )
    return fixed if moving is None else Size(moving.a * fixed, moving.b * fixed)


def count(sizes: Sequence[Number]) -> float:
    """How many numbers an array of these sizes holds, at a large batch: to see which is larger."""
    product = 1.0
    for size in sizes:
        product *= float(size.a + 997 * size.b) if isinstance(size, Size) else size
    return product
