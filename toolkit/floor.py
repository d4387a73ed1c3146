"""The floor of a sampler's time: so many calls of its network, on the same rows, and nothing around them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import runtimes
from runtimes.conditions import null_condition
from runtimes.session import Model

from .peers import Contender, is_network


def bare_calls(
    contenders: Sequence[Contender],
    batch: int,
    request: Mapping[str, Any],
    counts: Iterable[int],
) -> dict[int, Callable[[], None]]:
    """Number of calls -> what makes them on the first file of the form network; empty without one."""
    plain = network_of(contenders)
    if plain is None:
        return {}
    feeds, session = feeds_of(plain.model, batch, request), plain.model.session
    return {count: partial(_call, session, feeds, count) for count in sorted(set(counts))}


def network_of(contenders: Sequence[Contender]) -> Contender | None:
    """Whose network is called: the first file of the form network."""
    return next((one for one in contenders if is_network(one)), None)


def feeds_of(model: Model, batch: int, request: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """What a run on request hands to the network at its first call: 2B rows where guided."""
    todo = runtimes.plan(model, batch, **{**request, "solver": "euler", "steps": 1})
    x, condition = todo.first(0, batch, todo.times[0]), todo.condition
    if condition is not None and todo.weight != 1.0:
        x = np.concatenate([x, x])
        condition = np.concatenate([condition, null_condition(model.spec, batch)])
    feeds = {"x": x, "time": np.full(len(x), todo.times[0], np.float32)}
    return feeds if condition is None else {**feeds, model.spec.condition.kind: condition}


def _call(session: Any, feeds: Mapping[str, NDArray[Any]], count: int) -> None:
    for _ in range(count):
        session.run(["prediction"], feeds)
