"""What a person asks samples to be, checked: labels by number or name, context vectors, counts.

n samples -> int64 (n,) for labels, float32 (n, *shape) for contexts, None for neither
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .choices import quoted
from .spec import Spec

MOST_BYTES = 4 << 30  # of the samples of one call, or of their contexts
Label = int | str | Sequence[int | str]
Context = NDArray[np.float32]


def conditions(
    spec: Spec, n: int, label: Label | None, context: Context | None
) -> NDArray[Any] | None:
    """The checked condition of n samples: int64 (n,), float32 (n, *shape), or None."""
    kind = spec.condition.kind
    for word, given in (("label", label), ("context", context)):
        if given is not None and kind != word:
            raise ValueError(
                f"{word}: expected none for a model whose condition is {kind!r}, got one; leave it out"
            )
    if kind == "label":
        return _labels(spec, n, label)
    return _contexts(spec, n, context) if kind == "context" else None


def _labels(spec: Spec, n: int, label: Label | None) -> NDArray[np.int64]:
    condition = spec.condition
    numbers = tuple(str(index) for index in range(len(condition.names)))
    words = ", ".join(quoted(name, 40)[1:-1] for name in condition.names[:20])
    words = f" ({words})" if condition.names != numbers else ""
    known = f"labels are 0..{condition.classes - 1}{words}, or none for no label"
    if label is None:
        raise ValueError(f"label: expected one for a labelled model, got none; {known}")
    several = isinstance(label, Sequence | np.ndarray) and not isinstance(label, str | bytes)
    given: list[Any] = list(label) if several and np.ndim(label) else [label]  # type: ignore[arg-type]
    if not given:
        raise ValueError(f"label: expected at least one, got an empty list; {known}")
    rows = []
    for item in given:
        if isinstance(item, str):
            index = condition.classes if item == "none" else -1
            index = condition.names.index(item) if item in condition.names else index
        else:
            whole_number = isinstance(item, int | np.integer) and not isinstance(item, bool)
            index = int(item) if whole_number and 0 <= item < condition.classes else -1
        if index < 0:
            raise ValueError(f"label: expected one of this model's, got {quoted(item)}; {known}")
        rows.append(index)
    return np.resize(np.array(rows, np.int64), n)


def _contexts(spec: Spec, n: int, context: Context | None) -> NDArray[np.float32]:
    shape = spec.condition.shape
    if context is None:
        raise ValueError(f"context: expected float32 {shape} or (n, *{shape}), got none; give one")
    try:
        given = np.asarray(context)
    except ValueError:
        raise ValueError("context: expected one array, got rows of different lengths") from None
    rows = given[None] if given.shape == shape else given
    if rows.shape[1:] != shape or len(rows) not in (1, n) or given.dtype.kind != "f":
        raise ValueError(
            f"context: expected float32 {shape} or ({n}, {str(shape)[1:]}, "
            f"got {given.dtype} {given.shape}; give one for all samples or one for each"
        )
    fits("context", n, shape, MOST_BYTES)
    with np.errstate(over="ignore"):
        rows = rows.astype(np.float32)  # the machine's byte order too
    if not np.isfinite(rows).all():
        raise ValueError("context: expected finite numbers, got NaN or infinity; check the array")
    return np.ascontiguousarray(np.broadcast_to(rows, (n, *shape)))


def null_condition(spec: Spec, n: int) -> NDArray[Any] | None:
    """What a conditional network takes for "no condition": label `classes`, or a context of zeros."""
    if spec.condition.kind == "none":
        return None
    if spec.condition.kind == "label":
        return np.full(n, spec.condition.classes, np.int64)
    return np.zeros((n, *spec.condition.shape), np.float32)


def fits(what: str, n: int, shape: tuple[int, ...], most: int) -> None:
    """Raise ValueError if n float32 arrays of this shape take more than so many bytes."""
    each = 4 * math.prod(shape)
    if n * each > most:
        raise ValueError(
            f"{what}: expected at most {most // each} for arrays {shape} ({most >> 20} MiB), got {n}; "
            "take several parts: sample i uses seed + i, so they fit together"
        )


def whole(what: str, value: object, low: int, high: int) -> int:
    """`value`, if it is a whole number within low..high; else ValueError."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | np.integer)
        or not low <= value <= high
    ):
        raise ValueError(
            f"{what}: expected a whole number from {low} to {high}, got {quoted(value)}"
        )
    return int(value)
