"""Spec <-> JSON: the versioned contract a model carries in its metadata and a run in its folder.

A spec says what the network generates (shape, value range, labels), how it was trained (schedule,
prediction) and how it is best sampled. Reading is strict: an unknown or missing key, a wrong type or a
newer version is refused with the key's name, because a guess here would be a wrong picture later.
"""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from . import grids, schedules
from .choices import choose, quoted
from .guidance import check as check_guidance
from .predictions import PREDICTIONS
from .solvers import SOLVERS

VERSION = 1
CONDITIONS = ("none", "label", "context")
LONGEST = 1 << 22  # characters of JSON: room for a hundred thousand label names


@dataclass(frozen=True)
class Condition:
    """What a sample is conditioned on.

    kind: "none"; "label", int64 (B,) in 0..classes-1 with index `classes` as the null label; or
    "context", float32 (B, *shape) with shape (D,) or (L, D), whose null is all zeros.
    names: one word per label, or none.
    """

    kind: str = "none"
    classes: int = 0
    names: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        choose("condition", self.kind, CONDITIONS)
        if (self.kind == "label") != (self.classes > 0):
            raise ValueError(
                f"condition.classes: expected a count above 0 for kind 'label' and 0 otherwise, "
                f"got {self.classes} for {self.kind!r}; correct the spec"
            )
        if self.names and len(self.names) != self.classes:
            raise ValueError(
                f"condition.names: expected {self.classes} names, got {len(self.names)}; "
                "give one per label or none"
            )
        if (self.kind == "context") != (len(self.shape) in (1, 2)) or any(
            d < 1 for d in self.shape
        ):
            raise ValueError(
                f"condition.shape: expected (D,) or (L, D) for kind 'context' and () otherwise, "
                f"got {self.shape} for {self.kind!r}; correct the spec"
            )


@dataclass(frozen=True)
class Sampler:
    """The recommended way to sample: what `sample` does when it is told nothing else."""

    solver: str = "heun"
    steps: int = 20
    grid: str = "uniform"
    guidance: float = 1.0

    def __post_init__(self) -> None:
        choose("solver", self.solver, SOLVERS)
        grids.named(self.grid)
        grids.check_steps(self.steps)
        check_guidance(self.guidance, (0.0, 1.0))


@dataclass(frozen=True)
class Spec:
    """One model in words: `shape` of a sample (channels last), path, prediction, condition, sampler.

    value_range: (low, high) of the data, or None where it is unbounded. `training` is free text
    facts (data set, steps, parameters) for people; nothing computes with it.
    """

    name: str
    shape: tuple[int, ...]
    schedule: str = "linear"
    prediction: str = "velocity"
    condition: Condition = field(default_factory=Condition)
    sampler: Sampler = field(default_factory=Sampler)
    value_range: tuple[float, float] | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION

    def __post_init__(self) -> None:
        schedules.named(self.schedule)
        choose("prediction", self.prediction, PREDICTIONS)
        object.__setattr__(self, "shape", tuple(self.shape))  # a list is as good
        low, high = self.value_range or (0.0, 1.0)
        if not -math.inf < low < high < math.inf:
            raise ValueError(
                f"value_range: expected (low, high) with low < high, got {self.value_range}; "
                "or None where the data is unbounded"
            )
        if not self.shape or any(size < 1 for size in self.shape):
            raise ValueError(
                f"shape: expected sizes of at least 1, got {self.shape}; "
                "give one sample's shape, channels last"
            )


def to_json(spec: Spec) -> str:
    """One line of JSON with sorted keys; NaN and infinity are refused (they are not JSON)."""
    return json.dumps(asdict(spec), sort_keys=True, allow_nan=False, separators=(",", ":"))


def from_json(text: str) -> Spec:
    """The spec a JSON text holds; ValueError names the first key that is not as it should be."""
    if len(text) > LONGEST:
        raise ValueError(
            f"spec: expected at most {LONGEST} characters of JSON, got {len(text)}; export again"
        )
    try:
        raw = json.loads(
            text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"spec: expected JSON, got {text[:40]!r} ({error}); export the model again"
        ) from None
    version = raw.get("version") if isinstance(raw, dict) else None
    if type(version) is int and version != VERSION:
        whose, fix = (
            ("a newer", "update this toolkit")
            if version > VERSION
            else ("an unknown", "export again")
        )
        raise ValueError(
            f"spec.version: expected {VERSION}, got {version}: made by {whose} version; {fix}"
        )
    return _record(Spec, raw, "spec")


T = TypeVar("T")


def _record(kind: type[T], raw: object, where: str) -> T:
    """A dataclass from a JSON object: every key known and of its annotated type, none missing."""
    if not isinstance(raw, dict):
        raise ValueError(f"{where}: expected an object, got {quoted(raw)}; export the model again")
    hints = get_type_hints(kind)
    for key in raw:
        choose(f"{where} key", key, hints)
    for slot in fields(kind):  # type: ignore[arg-type]
        optional = slot.default is not MISSING or slot.default_factory is not MISSING
        if slot.name not in raw and (slot.name == "version" or not optional):
            raise ValueError(f"{where}.{slot.name}: expected a value, got none; add the key")
    return kind(**{key: _value(hints[key], raw[key], f"{where}.{key}") for key in raw})


def _value(kind: Any, raw: object, where: str) -> Any:
    """One JSON value checked against its annotation: a record, a tuple, or a plain number or word."""
    if isinstance(kind, type) and kind in (Condition, Sampler):
        return _record(kind, raw, where)
    if type(None) in get_args(kind):
        inner = next(option for option in get_args(kind) if option is not type(None))
        return None if raw is None else _value(inner, raw, where)
    if get_origin(kind) is tuple and isinstance(raw, list):
        inner, *rest = get_args(kind)
        if rest == [Ellipsis] or len(raw) == 1 + len(rest):
            return tuple(_value(inner, item, f"{where}[{i}]") for i, item in enumerate(raw))
    if get_origin(kind) is Mapping and isinstance(raw, dict):
        return raw
    if kind is float and type(raw) in (int, float) and abs(raw) <= sys.float_info.max:  # type: ignore[arg-type]
        return float(raw)  # type: ignore[arg-type]
    if kind in (int, str) and type(raw) is kind:
        return raw
    raise ValueError(
        f"{where}: expected {_words(kind)}, got {quoted(raw)}; export the model again"
    )


def _words(kind: Any) -> str:
    return {int: "a whole number", float: "a finite number", str: "a text"}.get(kind, "a list")


def _finite(number: str) -> float:
    value = float(number)  # NaN, Infinity or 1e999 would pass Python's reader
    if not math.isfinite(value):
        raise ValueError(f"{number[:40]} is not a number in JSON")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError("a key stands twice")
    return dict(pairs)
