"""What each form of file takes, takes with defaults and returns, and whether a graph does.

A free batch is None; that of an unrolled file is a number.
"""

from collections.abc import Callable
from typing import Any

from .modelfile import ModelError, ModelFile
from .spec import Spec
from .tableau import MOST_ROWS

Value = tuple[str, list[int | None]]  # element type and sizes; None is a free one
Contract = tuple[dict[str, Value], dict[str, Value], dict[str, Value]]
FLOAT = "tensor(float)"
MOST_BATCH = 4096  # of an unrolled file
# numbers that a sampler may keep from before its loop for each row of a tableau, and each sample of a call
# where they depend on the condition too
MOST_AHEAD = 4096


def match(file: ModelFile, spec: Spec, session: Any) -> None:
    """The graph's inputs and outputs against the spec: names, element types and sizes.

    session: an onnxruntime.InferenceSession. Raises ModelError.
    """
    batch = _batch(file, session) if file.form == "unrolled" else None
    inputs, options, outputs = CONTRACTS[file.form](spec, batch)
    _same(file, "inputs", inputs, session.get_inputs())
    _same(file, "inputs with defaults", options, session.get_overridable_initializers())
    _same(file, "outputs", outputs, session.get_outputs())
    rows, *_ = file.tableau or (1,)
    if not 0 < rows <= MOST_ROWS:
        raise ModelError(
            f"{file.path}: expected a tableau of 1 to {MOST_ROWS} rows, got {rows}; export it again"
        )
    if spec.condition.kind == "label" and set(file.label_rows) - {spec.condition.classes + 1}:
        raise ModelError(
            f"{file.path}: expected a table of {spec.condition.classes} classes and no label by its "
            f"spec, got {min(file.label_rows)} rows; export the network again"
        )


def _batch(file: ModelFile, session: Any) -> int | None:
    """The fixed batch of an unrolled file."""
    sizes = next((value.shape for value in session.get_inputs() if value.name == "x"), [None])
    batch = sizes[0] if sizes and isinstance(sizes[0], int) else None
    if batch is not None and not 1 <= batch <= MOST_BATCH:
        raise ModelError(
            f"{file.path}: expected a batch of 1 to {MOST_BATCH}, got {batch}; export it again"
        )
    return batch


def _same(file: ModelFile, what: str, expected: dict[str, Value], found: list[Any]) -> None:
    """Every value by name: its element type, and its sizes, free where they must be."""
    got = {
        value.name: (value.type, [n if isinstance(n, int) else None for n in value.shape])
        for value in found
    }
    if got == expected:
        return
    fixed = any(got[name][1][:1] != [None] for name in got if name in expected)
    free = any(None in sizes for _, sizes in expected.values())
    raise ModelError(
        f"{file.path}: expected {what} {_show(expected)} by its spec, "
        f"got {_show({value.name: (value.type, value.shape) for value in found})}"
        f"{' without a free batch axis' if fixed and free else ''}; export the network again"
    )


def _show(values: dict[str, tuple[str, list[Any]]]) -> str:
    return (
        ", ".join(
            f"{name} {kind[7:-1]} ({', '.join('B' if n is None else str(n) for n in sizes)})"
            for name, (kind, sizes) in values.items()
        )
        or "none"
    )


def _condition(spec: Spec, batch: int | None) -> dict[str, Value]:
    if spec.condition.kind == "label":
        return {"label": ("tensor(int64)", [batch])}
    if spec.condition.kind == "context":
        return {"context": (FLOAT, [batch, *spec.condition.shape])}
    return {}


def _network(spec: Spec, batch: int | None) -> Contract:
    sample: Value = (FLOAT, [batch, *spec.shape])
    inputs = {"x": sample, "time": (FLOAT, [batch]), **_condition(spec, batch)}
    return inputs, {}, {"prediction": sample}


def _likelihood(spec: Spec, batch: int | None) -> Contract:
    inputs, _, outputs = _network(spec, batch)
    return {**inputs, "probe": inputs["x"]}, {}, {**outputs, "product": inputs["x"]}


def _sampler(spec: Spec, batch: int | None) -> Contract:
    slots: Value = (FLOAT, [None, batch, *spec.shape])
    options: dict[str, Value] = {"tableau": (FLOAT, [None] * 3), "seed": ("tensor(int64)", [None])}
    if spec.condition.kind != "none":
        options["guidance"] = (FLOAT, [None])
    outputs: dict[str, Value] = {"sample": (FLOAT, [batch, *spec.shape]), "slots": slots}
    return {"x": slots, **_condition(spec, batch)}, options, outputs


def _seeded(spec: Spec, batch: int | None) -> Contract:
    _, options, outputs = _sampler(spec, batch)
    inputs = {"seed": options.pop("seed"), **_condition(spec, batch)}
    outputs = {"sample": outputs["sample"]}
    if spec.value_range is not None:
        outputs["image"] = ("tensor(uint8)", outputs["sample"][1])
    return inputs, {**options, "sigma": (FLOAT, [1])}, outputs


def _unrolled(spec: Spec, batch: int | None) -> Contract:
    sample: Value = (FLOAT, [batch, *spec.shape])
    inputs = {"x": sample, **_condition(spec, batch)}
    if spec.condition.kind == "label":
        inputs["label"] = (FLOAT, [batch, spec.condition.classes + 1])
    if spec.condition.kind != "none" and spec.sampler.guidance != 1.0:
        inputs["guidance"] = (FLOAT, [batch])
    return inputs, {}, {"sample": sample}


# form -> (inputs, inputs with defaults, outputs) of a file with that spec and batch
CONTRACTS: dict[str, Callable[[Spec, int | None], Contract]] = {
    "network": _network,
    "likelihood": _likelihood,
    "sampler": _sampler,
    "seeded": _seeded,
    "unrolled": _unrolled,
}
