"""Recipe <-> JSON: everything that decides which weights come out of a training run.

    recipe = default_recipe(load("digits"))
    recipe = dataclasses.replace(recipe, steps=500, lr=1e-3)

Two runs of the same recipe on the same data and machine end in the same bits. Reading is strict, like
that of a spec: an unknown key, a wrong type or a missing value is refused by its name.
"""

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, get_args, get_type_hints

import numpy as np

from runtimes.choices import choose
from runtimes.predictions import PREDICTIONS
from runtimes.schedules import named
from runtimes.spec import Sampler, Spec
from toolkit.data import Data
from toolkit.networks import NETWORKS, condition_of
from toolkit.paths import PAIRINGS, TIME_DRAWS

PRECISIONS = ("fp32", "bf16")
LARGEST_SEED = 2**53 - 1  # JSON readers lose integers beyond it
LAST_RATE = 0.01  # the learning rate ends at this share of its peak


@dataclass(frozen=True)
class Recipe:
    """One training run.

    data: the name of the data set. network, width, depth, heads, patch: see `networks.Sizes`.
    steps: optimiser steps, >= 1. batch: rows per step over all processes. lr: peak learning rate,
    reached after `warmup` steps. decay: weight decay, >= 0. clip: largest norm of a gradient, > 0.
    ema: decay of the averaged weights, in [0, 1). label_dropout: share of rows trained without their
    condition, in [0, 1). save_every, log_every: in steps.
    """

    data: str
    network: str = "dit"
    width: int = 64
    depth: int = 3
    heads: int = 4
    patch: tuple[int, ...] = ()
    schedule: str = "linear"
    prediction: str = "velocity"
    pairing: str = "independent"
    times: str = "uniform"
    steps: int = 2000
    batch: int = 128
    lr: float = 1e-3
    warmup: int = 100
    decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    label_dropout: float = 0.1
    seed: int = 0
    precision: str = "fp32"
    save_every: int = 500
    log_every: int = 10

    def __post_init__(self) -> None:
        for name, (low, high, words) in RANGES.items():
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if isinstance(value, float) and get_type_hints(Recipe)[name] is int:
                number = False
            if not (number and low <= value <= high):  # NaN compares False
                raise ValueError(f"{name}: expected {words}, got {value!r}; correct the recipe")
        for name, choices in NAMES.items():
            choose(name, getattr(self, name), choices)
        named(self.schedule)


def to_json(recipe: Recipe) -> str:
    """JSON with one key per line, in the order of the class."""
    return json.dumps(asdict(recipe), indent=1, allow_nan=False)


def from_json(text: str) -> Recipe:
    """The recipe a JSON text holds; ValueError names the first key that is not as it should be."""
    try:
        raw = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"recipe: expected JSON, got {text[:40]!r} ({error}); train again"
        ) from None
    if not isinstance(raw, dict):
        raise ValueError(f"recipe: expected an object, got {raw!r}; train again")
    hints = get_type_hints(Recipe)
    for key in raw:
        choose("recipe key", key, hints)
    for key in hints:
        if key not in raw:
            raise ValueError(f"recipe.{key}: expected a value, got none; train again")
    return Recipe(**{key: _value(key, hints[key], raw[key]) for key in hints})


def default_recipe(data: Data, network: str | None = None) -> Recipe:
    """What works for data of that kind: images and videos, sets of points, or single points.

    network: a name in NETWORKS to use instead of the usual one, with sizes that suit it.
    """
    kind = "dit" if len(data.shape) > 1 else "mlp"
    recipe = replace(DEFAULTS[choose("network", network or kind, NETWORKS)], data=data.name)
    if recipe.network == "dit":
        recipe = replace(recipe, patch=_patch(data.shape))
    return replace(recipe, batch=min(recipe.batch, len(data.x)))


def rate_at(recipe: Recipe, step: int) -> float:
    """lr * min(1, (step + 1) / warmup) * cosine from 1 to LAST_RATE over the steps. step: from 0."""
    warm = min(1.0, (step + 1) / max(recipe.warmup, 1))
    cosine = 0.5 + 0.5 * math.cos(math.pi * step / recipe.steps)
    return recipe.lr * warm * (LAST_RATE + (1.0 - LAST_RATE) * cosine)


def spec_of(recipe: Recipe, data: Data, **facts: Any) -> Spec:
    """The contract of what this recipe trains on this data. facts: for people, beside the usual."""
    known = {name: getattr(recipe, name) for name in ("network", "steps", "batch", "seed")}
    return Spec(
        name=data.name,
        shape=data.shape,
        schedule=recipe.schedule,
        prediction=recipe.prediction,
        condition=condition_of(data),
        sampler=Sampler("heun", 20),
        value_range=data.value_range,
        training={"data": recipe.data, **known, **facts},
    )


def first_difference(mine: Recipe, theirs: Recipe) -> tuple[str, Any, Any] | None:
    """(key, mine, theirs) of the first key in which two recipes differ, or None."""
    for slot in fields(Recipe):
        pair = getattr(mine, slot.name), getattr(theirs, slot.name)
        if pair[0] != pair[1]:
            return slot.name, *pair
    return None


def _patch(shape: tuple[int, ...]) -> tuple[int, ...]:
    """2 along the axes of a picture that allow it, as often doubled as leaves 256 tokens or fewer."""
    axes = np.array(shape[:-1], dtype=np.int64)
    patch = np.ones_like(axes)
    if len(axes) < 2:
        return tuple(patch.tolist())
    pictures = np.arange(len(axes)) >= len(axes) - 2
    while True:
        double = pictures & (axes % (2 * patch) == 0)
        small = patch.max() > 1 and np.prod(axes // patch) <= 256
        if small or not double.any():
            return tuple(patch.tolist())
        patch = np.where(double, 2 * patch, patch)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _value(key: str, kind: Any, raw: Any) -> Any:
    if get_args(kind) and isinstance(raw, list) and all(type(item) is int for item in raw):
        return tuple(raw)
    if kind is float and type(raw) in (int, float):
        return float(raw)
    if type(raw) is not kind:
        raise ValueError(f"recipe.{key}: expected another type, got {raw!r}; train again")
    return raw


_ABOVE_0 = 1e-300
RANGES: dict[str, tuple[float, float, str]] = {
    "steps": (1, 10**9, "a whole number of 1 or more"),
    "batch": (1, 10**9, "a whole number of 1 or more"),
    "lr": (_ABOVE_0, 1e3, "a finite number above 0"),
    "warmup": (0, 10**9, "a whole number of 0 or more"),
    "decay": (0.0, 1e3, "a finite number of 0 or more"),
    "clip": (_ABOVE_0, 1e300, "a finite number above 0"),
    "ema": (0.0, 1.0 - 1e-12, "a number in [0, 1)"),
    "label_dropout": (0.0, 1.0 - 1e-12, "a number in [0, 1)"),
    "seed": (0, LARGEST_SEED, f"a whole number from 0 to {LARGEST_SEED}"),
    "save_every": (1, 10**9, "a whole number of 1 or more"),
    "log_every": (1, 10**9, "a whole number of 1 or more"),
}
NAMES: dict[str, Any] = {
    "network": NETWORKS,
    "prediction": PREDICTIONS,
    "pairing": PAIRINGS,
    "times": TIME_DRAWS,
    "precision": PRECISIONS,
}
DEFAULTS: dict[str, Recipe] = {
    "dit": Recipe("", "dit", width=64, depth=3, steps=6000, batch=128, lr=3e-3),
    "mlp": Recipe("", "mlp", width=128, depth=3, steps=4000, batch=512, lr=2e-3),
}
