"""What a person asks samples to be, checked: labels by number or name, contexts, guidance, counts, arrays.

n samples -> int64 (n,) for labels, float32 (n, *shape) for contexts, None for neither
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .choices import quoted
from .guidance import check_between
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
    given = one_array("context", context)
    rows = given[None] if given.shape == shape else given
    if rows.shape[1:] != shape or len(rows) not in (1, n) or given.dtype.kind != "f":
        raise ValueError(
            f"context: expected float32 {shape} or ({n}, {str(shape)[1:]}, "
            f"got {given.dtype} {given.shape}; give one for all samples or one for each"
        )
    fits("context", n, shape, MOST_BYTES)
    return np.ascontiguousarray(np.broadcast_to(finite("context", rows), (n, *shape)))


def one_array(what: str, given: object) -> NDArray[Any]:
    """`given` as an array; ValueError for rows that do not make one."""
    try:
        return np.asarray(given)
    except ValueError:
        raise ValueError(f"{what}: expected one array, got rows of different lengths") from None


def finite(what: str, array: NDArray[Any]) -> NDArray[np.float32]:
    """The array as float32 in the machine's byte order; ValueError if a number of it is not finite there."""
    with np.errstate(over="ignore"):
        numbers: NDArray[np.float32] = array.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{what}: expected finite numbers, got NaN or infinity; check the array")
    return numbers


def spec_of(what: str, model: object) -> Spec:
    """model.spec; ValueError for what is no opened model, the name of its file for one."""
    spec = getattr(model, "spec", None)
    if not isinstance(spec, Spec):
        raise ValueError(
            f"{what}: expected an opened model, got {quoted(model)}; open it with runtimes.load(path)"
        )
    return spec


def null_condition(spec: Spec, n: int) -> NDArray[Any] | None:
    """What a conditional network takes for "no condition": label `classes`, or a context of zeros."""
    if spec.condition.kind == "none":
        return None
    if spec.condition.kind == "label":
        return np.full(n, spec.condition.classes, np.int64)
    return np.zeros((n, *spec.condition.shape), np.float32)


def guidance_weight(
    spec: Spec, guidance: float | None, cfgpp: float | None, guide: Spec | None
) -> float:
    """The weight asked for by either name, or the model's own; 1 where it cannot be guided.

    guide: of the worse model of autoguidance. Raises ValueError for a request that does not add up.
    """
    asked = guidance if cfgpp is None else cfgpp
    if cfgpp is not None:
        check_between("cfgpp", cfgpp, "0 is without the condition, 0.6 a good start")
        if guidance is not None or guide is not None:
            raise ValueError(
                "cfgpp: expected neither guidance nor guide beside it, got one; drop it"
            )
    if guide is not None:
        for word in ("shape", "schedule", "prediction", "condition"):
            mine, theirs = getattr(spec, word), getattr(guide, word)
            if mine != theirs:
                raise ValueError(
                    f"guide: expected a model of {word} {mine}, got {theirs}; "
                    "take a worse model of the same data and path"
                )
        if asked is None:
            raise ValueError("guidance: expected a weight beside guide, got none; 2 is a start")
        return asked
    if spec.condition.kind == "none":
        if cfgpp is not None or asked not in (None, 1.0):
            word, known = ("guidance", "1") if cfgpp is None else ("cfgpp", "none")
            raise ValueError(
                f"{word}: expected {known} for a model without conditions, got {asked!r}; leave it out"
            )
        return 1.0
    return spec.sampler.guidance if asked is None else asked


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
