"""MLX program -> Program: what mx.export_function says at several batch sizes, fitted into one.

    steps: primitive(arguments, inputs) -> outputs, every number a whole one or a size with the batch

Traced on the CPU stream, where MLX decomposes alike on every machine, with compilation off and with
the calls of `mlx_marks` marked. Nothing is evaluated.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from .mlx_marks import Mark, marked
from .sizes import BATCHES, Factor, Size, Unfitted, fit, fit_factor

TRACING = threading.Lock()  # MLX's own functions are marked meanwhile
Output = tuple[str, tuple[int | Size, ...], str]  # name, sizes, element type


@dataclass(frozen=True)
class Step:
    """One primitive, or one marked call, of the traced program; inputs are names."""

    name: str
    arguments: Any
    inputs: tuple[str, ...]
    outputs: tuple[Output, ...]


@dataclass(frozen=True)
class Program:
    """A traced function with a free batch: names of inputs, constants, steps in order, one output."""

    inputs: tuple[Output, ...]
    constants: dict[str, NDArray[Any] | Factor]
    steps: tuple[Step, ...]
    output: Output


@dataclass
class Trace:
    """What one trace said."""

    inputs: list[Output] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    constants: dict[str, mx.array] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    def hear(self, said: dict[str, Any]) -> None:
        """One callback of mx.export_function."""
        kind = said["type"]
        if kind == "inputs":
            self.inputs = [_output(item) for item in said["inputs"]]
        elif kind == "outputs":
            self.outputs = [_output(item) for item in said["outputs"]]
        elif kind == "constants":
            self.constants = dict(said["constants"])
        elif kind == "primitive":
            self.steps.append(
                Step(
                    said["name"],
                    said["arguments"],
                    tuple(name for name, *_ in said["inputs"]),
                    tuple(_output(item) for item in said["outputs"]),
                )
            )


def program(
    function: Callable[..., Any],
    example: Callable[[int], Sequence[NDArray[Any]]],
    *,
    marks: bool = True,
) -> Program:
    """Trace function(*example(batch)) at every batch of `BATCHES`; marks: see `mlx_marks`.

    Raises ValueError for a function that cannot be traced, or whose trace depends on the batch.
    """
    try:
        traces = [_trace(function, example(batch), marks) for batch in BATCHES]
    except ValueError as error:
        if "Not implemented for Depends" not in str(error):
            raise
        traces = [_trace(function, example(batch), False) for batch in BATCHES]
    names = [[(step.name, step.inputs) for step in trace.steps] for trace in traces]
    if any(other != names[0] for other in names[1:]):
        raise ValueError(
            "module: expected the same operations at every batch size, got a graph whose structure "
            f"changes with it{_where(names)}; avoid Python branches on the batch size"
        )
    steps = tuple(_step(steps) for steps in zip(*(trace.steps for trace in traces), strict=True))
    (output,) = _fitted([trace.outputs for trace in traces])
    return Program(
        _fitted([trace.inputs for trace in traces]),
        {name: _constant([trace.constants for trace in traces], name, steps)
         for name in traces[0].constants},
        steps,
        output,
    )  # fmt: skip


def _trace(function: Callable[..., Any], example: Sequence[NDArray[Any]], marks: bool) -> Trace:
    trace, kept = Trace(), dict[int, Mark]()
    arrays = [mx.array(array) for array in example]
    try:
        with (
            TRACING,
            _uncompiled(),
            _same_draws(),
            mx.stream(mx.cpu),
            marked(kept if marks else None),
        ):
            mx.export_function(trace.hear, function, *arrays)
    except Exception as error:
        raise ValueError(_reason(error, trace)) from error
    trace.steps = [_unmarked(step, trace.constants, kept) for step in trace.steps]
    trace.steps = _needed(trace.steps, {name for name, *_ in trace.outputs})
    used = {name for step in trace.steps for name in step.inputs}
    used |= {name for name, *_ in trace.outputs}
    trace.constants = {name: a for name, a in trace.constants.items() if name in used}
    return trace


def _reason(error: Exception, trace: Trace) -> str:
    text = " ".join(str(error).split())[:300]
    if "Attempting to eval" in text:
        return (
            "module: expected a forward whose steps do not depend on values, got one that looks at them "
            "(if, float(), .item()); use mx.where"
        )
    if "Unable to get state for primitive" in text:
        sizes = f" on {trace.steps[-1].outputs[0][1]}" if trace.steps else ""
        return (
            f"module: expected primitives that MLX can export, got {text.split()[-1]}{sizes}; "
            "write the network without it"
        )
    return (
        f"module: expected one that mx.export_function can trace, got {type(error).__name__}: {text}; "
        "write the forward as plain operations on arrays"
    )


def _unmarked(step: Step, constants: dict[str, mx.array], kept: dict[int, Mark]) -> Step:
    """A marked call as the step it stands for; MLX's own depends is its first input."""
    if step.name != "Depends":
        return step
    tag = constants.get(step.inputs[-1])
    number: Any = tag.item() if tag is not None and tag.dtype == mx.int32 and tag.size == 1 else -1
    mark = kept.get(number)
    if mark is None:
        return Step("Depends", [], step.inputs[: len(step.outputs)], step.outputs)
    return Step(mark.kind, mark.arguments, step.inputs[1:-1], step.outputs)


def _needed(steps: Sequence[Step], wanted: set[str]) -> list[Step]:
    """Without what nothing needs: the bodies of marked calls above all."""
    kept = []
    for step in reversed(steps):
        if any(name in wanted for name, *_ in step.outputs):
            kept.append(step)
            wanted.update(step.inputs)
    return kept[::-1]


def _output(item: tuple[str, tuple[int, ...], mx.Dtype]) -> Output:
    name, shape, dtype = item
    return name, tuple(shape), str(dtype).rsplit(".", 1)[-1]


def _fitted(outputs: Sequence[Sequence[Output]]) -> tuple[Output, ...]:
    """The same arrays of every trace as one."""
    return tuple(
        (name, fit([there[k][1] for there in outputs]), dtype)
        for k, (name, _, dtype) in enumerate(outputs[0])
    )


def _step(steps: Sequence[Step]) -> Step:
    """The same step of every trace as one."""
    first = steps[0]
    try:
        outputs = _fitted([step.outputs for step in steps])
        return Step(first.name, fit([step.arguments for step in steps]), first.inputs, outputs)
    except Unfitted as error:
        raise ValueError(
            f"module: expected sizes that are a + b * batch, got {error} in {first.name}; "
            "write it without products of the batch size"
        ) from None


def _constant(
    constants: Sequence[dict[str, mx.array]], name: str, steps: Sequence[Step]
) -> NDArray[Any] | Factor:
    """The constant of that name, the same in every trace; or a scalar that moves with the batch."""
    arrays = [there[name] for there in constants]
    first, *others = arrays
    if all(other.shape == first.shape for other in others):
        if all(mx.array_equal(other, first, equal_nan=True).item() for other in others):
            return numpy(first, steps, name)
        if first.size == 1:
            with suppress(Unfitted):
                numbers: list[Any] = [array.item() for array in arrays]
                return fit_factor(numbers)
    what = [array.item() if array.size == 1 else f"an array {array.shape}" for array in arrays]
    raise ValueError(
        f"module: expected constants that do not depend on the batch, got {what[0]} at "
        f"{BATCHES[0]} and {what[1]} at {BATCHES[1]}; compute it from the input in MLX"
    )


def numpy(array: mx.array, steps: Sequence[Step] = (), name: str = "") -> NDArray[Any]:
    """An MLX array as numpy sees it, halves as float32."""
    if array.dtype in (mx.float64, mx.complex64):
        where = next((step.name for step in steps if name in step.inputs), "a constant")
        raise ValueError(unfit(str(array.dtype).rsplit(".", 1)[-1], array.shape, where))
    if array.dtype in (mx.bfloat16, mx.float16):
        array = array.astype(mx.float32)
    return np.array(array)


def unfit(dtype: str, shape: Sequence[Any], where: str) -> str:
    """The words for an element type that no model file holds."""
    sizes = "(" + ", ".join(str(size) for size in shape) + ")"
    return (
        f"module: expected float32, halves, whole numbers or bool, got {dtype} {sizes} in {where}; "
        "cast to float32"
    )


def _where(names: Sequence[Sequence[tuple[str, Any]]]) -> str:
    """The first step that differs, in words."""
    for steps in zip(*names, strict=False):
        kinds = [name for name, _ in steps]
        if len(set(kinds)) > 1:
            return f" ({kinds[0]} at batch {BATCHES[0]}, {kinds[-1]} at {BATCHES[-1]})"
    return ""


@contextmanager
def _same_draws() -> Iterator[None]:
    """MLX's own random key as it was, so that every trace of a draw is the same."""
    state: Any = mx.random.state
    key = state[0]
    high, low = key.tolist()
    try:
        yield
    finally:
        mx.random.seed(high << 32 | low)


@contextmanager
def _uncompiled() -> Iterator[None]:
    """mx.compile off, and on again if it was on."""
    was = _compiles()
    mx.disable_compile()
    try:
        yield
    finally:
        if was:
            mx.enable_compile()


def _compiles() -> bool:
    """Whether mx.compile is on, which MLX does not say: a compiled function runs in Python once."""
    if "MLX_DISABLE_COMPILE" in os.environ:
        return False
    calls = []

    @mx.compile
    def probe(x: mx.array) -> mx.array:
        calls.append(1)
        return x

    for _ in range(2):
        probe(mx.array(0.0))
    return len(calls) == 1
