"""The ways a plan's rows are run: who holds the state, and how often the host hears of it.

host      the loop of `tableau.run` here, one call of the network per row
graph     the loop inside a sampler file, as many rows at once as the caller's patience allows
step      the same with the rows of one step at a time; the slots stay on the device
seeded    the whole of a seeded file, noise included
unrolled  the whole of an unrolled file: its own solver and steps, its own batch; on CUDA in one launch
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from . import bound
from .contracts import MOST_AHEAD
from .noise import noise
from .session import Floats, Model, onnxruntime
from .tableau import Tableau, dense, run
from .tableaus import traced

if TYPE_CHECKING:
    from .sample import Plan

MOST_BEFORE = 1 << 28  # bytes for what a graph works out before its loop, for all rows it is given
DEVICES = {"cuda": "cuda", "tensorrt": "cuda"}  # providers with memory of their own, by its name
Steps = Iterator[tuple[int, Floats]]


@dataclass(frozen=True)
class Task:
    """Some samples of a plan, a tableau to follow from x, `before` steps into the run.

    pace: seconds between two states that are asked for; 0 asks for all, infinity for the last.
    """

    plan: "Plan"
    rows: slice
    tableau: Tableau
    x: Floats
    before: int
    pace: float


def pick(plan: "Plan", tableau: Tableau) -> str:
    """The way that a plan's rows run: as asked, or the best that its file and its request allow.

    Raises ValueError where the asked way, or the only one a file has, cannot do what is requested.
    """
    ways = of(plan.model)
    obstacle = _obstacle(plan, tableau)
    if plan.how == "auto":
        return "host" if obstacle and "host" in ways else _allowed(ways[0], obstacle)
    if plan.how not in ways:
        raise ValueError(
            f"how: expected {' or '.join(ways)} for this model, got {plan.how!r}; "
            "leave it at auto, or export the form sampler"
        )
    return plan.how if plan.how == "host" else _allowed(plan.how, obstacle)


def of(model: Any) -> tuple[str, ...]:
    """The ways a model has, the best one first."""
    if not isinstance(model, Model):
        return ("host",)
    if model.form == "sampler":
        return (
            ("step", "graph", "host") if model.provider in DEVICES else ("graph", "step", "host")
        )
    return (model.form,) if model.form in ("seeded", "unrolled") else ("host",)


def _allowed(way: str, obstacle: str) -> str:
    if obstacle:
        raise ValueError(
            f"how: expected a request that a graph can run, got {obstacle}; leave it out, or use a file "
            "of the form network or sampler and the host's loop"
        )
    return way


def _obstacle(plan: "Plan", tableau: Tableau) -> str:
    """What of a request is no part of a graph, in words, or nothing."""
    found = {
        "rescale": plan.rescale != 0.0,
        "a guide": plan.guide is not None,
        "cfgpp": callable(plan.weight),
        "noise of its own for a noisy solver": tableau.noisy and plan.source is not noise,
    }
    return ", ".join(word for word, there in found.items() if there)


def host(task: Task) -> Steps:
    """The loop here."""
    plan, rows = task.plan, task.rows
    seeds, shape = plan.seeds[rows], plan.model.spec.shape
    states = run(
        task.tableau,
        plan.network(rows),
        task.x,
        lambda k: plan.source(seeds, shape, task.before + k + 1),
    )
    for step, (_, x) in enumerate(states, 1):
        yield step, x


def graph(task: Task) -> Steps:
    """The loop in the graph; after a first step, as many steps at once as `pace` has seconds for."""
    yield from _chunks(task, task.pace)


def step(task: Task) -> Steps:
    """The loop in the graph, one step at a time."""
    yield from _chunks(task, 0.0)


def _chunks(task: Task, pace: float) -> Steps:
    loop, table = _loop(task), dense(task.tableau, before=task.before)
    ends = [row + 1 for row in task.tableau.ends]  # how many rows are done after each step
    most = max(1, MOST_BEFORE // _before(task))
    done, rows, started = 0, 0, time.perf_counter()
    while done < len(ends):
        each = max((time.perf_counter() - started) / max(done, 1), 1e-9)  # clocks may stand still
        count = 1 if pace < math.inf and done == 0 else max(1, int(min(pace / each, 1e9)))
        last = min(done + count, len(ends))
        while last > done + 1 and ends[last - 1] - rows > most:
            last -= 1
        x = loop(table[rows : ends[last - 1]])
        done, rows = last, ends[last - 1]
        yield done, x


def _before(task: Task) -> int:
    """Bytes that a row needs before the loop, at most: for its noise, and for what both halves of a guided
    call have of time and condition."""
    samples = 1 if task.plan.condition is None else 2 * len(task.x)
    return 12 * MOST_AHEAD * samples + (60 * task.x.size if task.tableau.noisy else 0)


class Loop(Protocol):
    """A sampler's graph between two chunks of rows."""

    def __call__(self, rows: NDArray[np.float32]) -> Floats:
        """The state after these rows of a tableau, from the slots that the last ones left."""


def _loop(task: Task) -> Loop:
    model = cast(Model, task.plan.model)  # `of` has seen to that
    x = np.ascontiguousarray(task.x, np.float32)
    device = DEVICES.get(model.provider)
    loop = _Host(model, _feeds(task), x[None])
    if device is None:
        return loop
    there: Loop = model.watched(lambda _: _Device(model, device, loop.feeds, x[None]), len(x))
    return there


@dataclass
class _Host:
    """The slots in the host's memory, where ONNX Runtime takes and leaves them without a copy."""

    model: Model
    feeds: dict[str, NDArray[Any]]
    slots: Floats

    def __call__(self, rows: NDArray[np.float32]) -> Floats:
        """See Loop."""
        session, feeds = self.model.session, {**self.feeds, "x": self.slots, "tableau": rows}
        found = self.model.watched(
            lambda options: session.run(["sample", "slots"], feeds, options),
            self.slots.shape[1],
            len(rows),
        )
        sample, self.slots = found
        return cast(Floats, sample)


class _Device:
    """The slots in the device's memory, bound from one run to the next."""

    def __init__(
        self, model: Model, device: str, feeds: dict[str, NDArray[Any]], slots: Floats
    ) -> None:
        self.model, self.device, self.batch = model, device, slots.shape[1]
        self.binding = model.session.io_binding()
        self.put("x", slots, device)
        for name, array in feeds.items():
            self.put(name, array)

    def put(self, name: str, array: NDArray[Any], device: str = "cpu") -> None:
        """Bind an input. As an OrtValue: those with defaults cannot be bound as numpy arrays."""
        value = onnxruntime().OrtValue.ortvalue_from_numpy(array, device)
        self.binding.bind_ortvalue_input(name, value)

    def __call__(self, rows: NDArray[np.float32]) -> Floats:
        """See Loop."""
        self.put("tableau", rows)
        self.binding.bind_output("sample")
        self.binding.bind_output("slots", self.device)
        session = self.model.session
        self.model.watched(
            lambda options: session.run_with_iobinding(self.binding, options),
            self.batch,
            len(rows),
        )
        sample, slots = self.binding.get_outputs()
        self.binding.clear_binding_outputs()
        self.binding.bind_ortvalue_input("x", slots)
        return cast(Floats, sample.numpy())


def _feeds(task: Task) -> dict[str, NDArray[Any]]:
    """Condition, weight of guidance and seeds, as a sampler takes them."""
    plan, spec = task.plan, task.plan.model.spec
    feeds: dict[str, NDArray[Any]] = {"seed": plan.seeds[task.rows]}
    if plan.condition is not None:
        condition = np.ascontiguousarray(plan.condition[task.rows])
        if isinstance(plan.model, Model):
            plan.model.check(task.x, condition)
        feeds[spec.condition.kind] = condition
        feeds["guidance"] = np.array([plan.weight], np.float32)
    return feeds


def seeded(task: Task) -> Steps:
    """The whole run from its seeds, of as many samples at once as there is memory for all of its rows."""
    plan, model = task.plan, cast(Model, task.plan.model)
    if plan.source is not noise or plan.data is not None or task.before:
        raise ValueError(
            "how: expected a run from noise of its seeds, got a start of its own, which a seeded file "
            "has no input for; use a file of the form sampler"
        )
    sigma, table = plan.scales(plan.times[0]).sigma, dense(task.tableau)
    feeds, parts = _feeds(task), []
    feeds |= {"tableau": table, "sigma": np.array([float(sigma)], np.float32)}
    own = {"seed", plan.model.spec.condition.kind} & feeds.keys()  # a row for each sample
    most = max(1, MOST_BEFORE * len(task.x) // (_before(task) * len(table)))
    for start in range(0, len(task.x), most):
        given = feeds | {name: feeds[name][start : start + most] for name in own}
        parts += model.run(["sample"], given, len(given["seed"]), len(table))
    yield len(task.tableau.ends), np.concatenate(parts)


def unrolled(task: Task) -> Steps:
    """The whole run in batches of the file's own size, the last one filled up with its last sample."""
    plan, model = task.plan, cast(Model, task.plan.model)
    spec, best, table = model.spec, model.spec.sampler, dense(task.tableau)
    takes = {value.name: value.shape for value in model.session.get_inputs()}
    own = dense(
        traced(spec, best.solver, best.steps, best.grid, guided=bool(_guided(table).any()))
    )
    if not np.array_equal(table, own) or (_guided(table).any() and "guidance" not in takes):
        raise ValueError(
            f"how: expected {best.solver} with {best.steps} steps on the grid {best.grid} and guidance "
            f"{'throughout' if 'guidance' in takes else 'of 1'}, which this file was unrolled with, got "
            "another run; leave them out, or use a file of the form sampler"
        )
    batch = takes["x"][0]
    feeds = {"x": task.x, **{name: one for name, one in _feeds(task).items() if name in takes}}
    if "label" in feeds:
        feeds["label"] = np.eye(spec.condition.classes + 1, dtype=np.float32)[feeds["label"]]
    if "guidance" in feeds:
        feeds["guidance"] = np.full(len(task.x), plan.weight, np.float32)
    device, parts = DEVICES.get(model.provider), []
    for start in range(0, len(task.x), batch):
        rows = np.minimum(np.arange(start, start + batch), len(task.x) - 1)
        given = {name: one[rows] for name, one in feeds.items()}
        parts.append(
            model.run(["sample"], given, batch, len(table))[0]
            if device is None
            else bound.run(model, device, given, len(table))
        )
    yield len(task.tableau.ends), np.concatenate(parts)[: len(task.x)]


def _guided(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """The guidance flag of every row."""
    return table[:, 0, table.shape[1]]


WAYS: dict[str, Callable[[Task], Steps]] = {
    "host": host,
    "graph": graph,
    "step": step,
    "seeded": seeded,
    "unrolled": unrolled,
}
