"""name -> shape: the arrays a module has beside those it is given."""

from collections.abc import Mapping
from typing import Any

Shape = tuple[int, ...]


def misfit(
    shapes: Mapping[str, Shape], arrays: Mapping[str, Any]
) -> tuple[str, Shape | None, Shape | None] | None:
    """(name, the module's shape, the given one) of the first that is not alike, or None; None: no such."""
    given = {name: tuple(array.shape) for name, array in arrays.items()}
    for name in (*shapes, *given):
        if shapes.get(name) != given.get(name):
            return name, shapes.get(name), given.get(name)
    return None


def refuse_misfit(shapes: Mapping[str, Shape], arrays: Mapping[str, Any]) -> None:
    """ValueError unless the arrays have exactly the module's names and shapes."""
    wrong = misfit(shapes, arrays)
    if wrong is not None:
        name, mine, given = wrong
        raise ValueError(
            f"{name}: expected {mine or 'no such array'}, got {given or 'none'}; "
            "give the arrays of a network of these sizes"
        )
