"""Somebody else's network.onnx + a spec -> a model file: names, layout and time put right around it.

    spec.json    the spec, and beside its keys "network": {"x": "sample", "time": "timestep", ...}

The network itself stays as it is. The gate compares the new file with the old one on ONNX Runtime.
"""

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, version_converter

from runtimes import modelfile, session
from runtimes.choices import choose, quoted
from runtimes.files import refuse_existing
from runtimes.limits import default_limits
from runtimes.modelfile import ModelError
from runtimes.session import Floats
from runtimes.spec import Spec, from_json, to_json
from runtimes.work import cores

from . import forms
from .nodes import Nodes
from .verify import TOLERANCE, Report

WORDS = {TensorProto.FLOAT: "float32", TensorProto.INT64: "int64"}
OLDEST = 18  # opset: a sampler needs its BitwiseXor


@dataclass(frozen=True)
class Names:
    """What the network calls its values, and how it sees them.

    time of the network = time_scale * t + time_offset, rounded if its input is whole; channels_first:
    whether x and the prediction are (B, C, ...).
    """

    x: str = "x"
    time: str = "time"
    condition: str = ""  # the spec's own word: label or context
    prediction: str = "prediction"
    time_scale: float = 1.0
    time_offset: float = 0.0
    channels_first: bool = False


def export_onnx(
    network: str | os.PathLike[str],
    spec: Spec,
    path: str | os.PathLike[str],
    *,
    names: Names | None = None,
    form: str = "network",
    batch: int = 1,
    precision: str = "fp32",
    accept: bool = False,
    profile: str = "portable",
    overwrite: bool = False,
    tolerance: float = TOLERANCE,
) -> Report:
    """Write the network in the file `network` as one model file at `path`; its parity report.

    Raises FileNotFoundError, FileExistsError, ModelError (a graph that is not safe to open or does not
    fit its spec, with both sides' names and shapes), ValueError and ParityError.
    """
    network, path = Path(network), Path(path)
    refuse_existing(path, overwrite)
    names = names or Names()
    proto, file = _read(network, spec)
    _known(network, proto, spec, names)
    limits = default_limits(len(file.content), sum(file.operators.values()), "cpu")
    opened = session.opened(file, "cpu", cores(), limits)
    reference = OnnxModel(spec, names, network, opened, _kind(proto, names.time))
    return forms.write(
        _converted(network, adapted(proto, spec, names)),
        spec,
        path,
        form=form,
        reference=reference,
        framework=f"{network.name} alone",
        overwrite=overwrite,
        tolerance=tolerance,
        batch=batch,
        precision=precision,
        accept=accept,
        profile=profile,
    )


def read_spec(path: str | os.PathLike[str]) -> tuple[Spec, Names]:
    """The spec in a JSON file and, under its key "network", what the network calls its values."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ValueError(
            f"{path}: expected a spec in JSON, got no text file; see docs/clients.md for one"
        ) from None
    try:
        raw = json.loads(text)
        named: dict[str, Any] = dict(raw.pop("network", {}))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return from_json(text), Names()  # which says what is wrong
    kinds: dict[str, type] = {slot.name: type(slot.default) for slot in fields(Names)}
    for key, value in named.items():
        kind = kinds[choose("spec network key", key, kinds)]
        if type(value) is int and kind is float:
            value = float(value)
        if type(value) is not kind or (isinstance(value, float) and not abs(value) < 1e9):
            raise ValueError(
                f"spec.network.{key}: expected a {kind.__name__}, got {quoted(value)}; correct it"
            )
    return from_json(json.dumps(raw)), Names(**named)


@dataclass(frozen=True)
class OnnxModel:
    """The network as it was, on ONNX Runtime, behind the face of a model."""

    spec: Spec
    names: Names
    path: Path
    session: Any
    time_kind: int

    def network(
        self, x: Floats, t: float | Floats, condition: NDArray[Any] | None = None
    ) -> Floats:
        """One call, in the network's own layout and time."""
        names = self.names
        time = np.full(len(x), t, np.float32) * np.float32(names.time_scale)
        time = time + np.float32(names.time_offset)
        if self.time_kind == TensorProto.INT64:
            time = np.round(time).astype(np.int64)
        feeds = {names.x: np.moveaxis(x, -1, 1) if names.channels_first else x, names.time: time}
        if condition is not None:
            feeds[names.condition or self.spec.condition.kind] = condition
        feeds = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        try:
            (out,) = self.session.run([names.prediction], feeds)
        except Exception as error:  # ONNX Runtime's errors share no base but Exception
            reason = " ".join(str(error).split())[:200]
            raise ModelError(
                f"{self.path}: expected a network that runs on {len(x)} rows, got: {reason}; "
                "correct the spec or the network"
            ) from None
        return np.ascontiguousarray(np.moveaxis(out, 1, -1) if names.channels_first else out)

    def product(
        self, x: Floats, t: float | Floats, condition: NDArray[Any] | None, probe: Floats
    ) -> tuple[Floats, Floats]:
        """Refused: an .onnx has no derivative of its own to compare with."""
        raise ValueError(
            "form: expected one that can be compared with the network itself, got 'likelihood', whose "
            "products an .onnx cannot check; export from torch or MLX"
        )


def adapted(proto: onnx.ModelProto, spec: Spec, names: Names) -> onnx.ModelProto:
    """The same graph with our names and layout at its ends; its own values get a prefix."""
    g, kind, rank = Nodes("a"), spec.condition.kind, len(spec.shape) + 1
    first, last = [0, rank - 1, *range(1, rank - 1)], [0, *range(2, rank), 1]
    x = g.op("Transpose", "x", perm=first) if names.channels_first else "x"
    time = g.op("Mul", "time", g.floats(names.time_scale)) if names.time_scale != 1.0 else "time"
    time = g.op("Add", time, g.floats(names.time_offset)) if names.time_offset != 0.0 else time
    if _kind(proto, names.time) == TensorProto.INT64:
        time = g.op("Cast", g.op("Round", time), to=TensorProto.INT64)
    given = {names.x: x, names.time: time, names.condition or kind: kind}
    weights = []
    for tensor in proto.graph.initializer:
        weights.append(onnx.TensorProto())
        weights[-1].CopyFrom(tensor)
        weights[-1].name = f"own.{tensor.name}"
    for node in proto.graph.node:
        g.again(node, lambda name: given.get(name, f"own.{name}") if name else "")
    out = f"own.{names.prediction}"
    g.named("prediction", g.op("Transpose", out, perm=last) if names.channels_first else out)
    sample: list[int | str] = ["batch", *spec.shape]
    inputs: list[tuple[str, int, list[int | str]]] = [
        ("x", TensorProto.FLOAT, sample),
        ("time", TensorProto.FLOAT, ["batch"]),
    ]
    if kind == "label":
        inputs.append(("label", TensorProto.INT64, ["batch"]))
    elif kind == "context":
        inputs.append(("context", TensorProto.FLOAT, ["batch", *spec.condition.shape]))
    graph = helper.make_graph(
        g.nodes,
        "network",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, sample)],
        [*weights, *g.constants.values()],
    )
    return helper.make_model(
        graph, opset_imports=list(proto.opset_import), ir_version=max(proto.ir_version, 8)
    )


def _read(path: Path, spec: Spec) -> tuple[onnx.ModelProto, modelfile.ModelFile]:
    """The graph in a file, walked as that of any stranger before anything is done with it."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected an .onnx file, got nothing there; check the path"
        )
    content = path.read_bytes()
    if modelfile.SPEC_KEY.encode() in content:
        raise ModelError(
            f"{path}: expected a plain ONNX file, got a model of ours; use it as it is"
        )
    notes = onnx.ModelProto()
    notes.metadata_props.add(key=modelfile.SPEC_KEY, value=to_json(spec))
    file = modelfile.check(path, modelfile.seal(content + notes.SerializeToString()))
    proto = onnx.ModelProto()
    proto.ParseFromString(content)
    return proto, file


def _known(path: Path, proto: onnx.ModelProto, spec: Spec, names: Names) -> None:
    """ModelError unless the values that `names` names are there, float or whole, of the spec's shape."""
    kind = spec.condition.kind
    shape = (spec.shape[-1], *spec.shape[:-1]) if names.channels_first else spec.shape
    weights = {tensor.name for tensor in proto.graph.initializer}
    got = {v.name: _sizes(v) for v in proto.graph.input if v.name not in weights}
    wanted = {names.x: shape, names.time: ()}
    if kind != "none":
        wanted[names.condition or kind] = spec.condition.shape if kind == "context" else ()
    outputs = {value.name: _sizes(value) for value in proto.graph.output}
    kinds = {v.name: v.type.tensor_type.elem_type for v in proto.graph.input}
    whole, real = TensorProto.INT64, TensorProto.FLOAT
    allowed = {names.x: (real,), names.time: (real, whole), names.condition or kind: (real,)}
    if kind == "label":
        allowed[names.condition or kind] = (whole,)
    for name in wanted:
        if name in kinds and kinds[name] not in allowed[name]:
            raise ModelError(
                f"{path}: expected {name} as {' or '.join(WORDS[k] for k in allowed[name])}, got "
                f"{TensorProto.DataType.Name(kinds[name]).lower()}; export the network with it converted"
            )
    fits = got.keys() == wanted.keys() and all(
        len(got[name]) == 1 + len(sizes)
        and not isinstance(got[name][0], int)
        and all(
            a == b or not isinstance(a, int) for a, b in zip(got[name][1:], sizes, strict=True)
        )
        for name, sizes in wanted.items()
    )
    if not fits or names.prediction not in outputs:
        said = ", ".join(f"{name} (B{''.join(f', {n}' for n in s)})" for name, s in wanted.items())
        have = ", ".join(f"{name} ({', '.join(map(str, s))})" for name, s in got.items())
        raise ModelError(
            f"{path}: expected inputs {said} and an output {names.prediction} by its spec, got {have} and "
            f'{", ".join(outputs)}; name them in the spec: "network": {{"x": ...}}'
        )


def _sizes(value: onnx.ValueInfoProto) -> list[int | str]:
    axes = value.type.tensor_type.shape.dim
    return [a.dim_value if a.HasField("dim_value") else a.dim_param or "?" for a in axes]


def _kind(proto: onnx.ModelProto, name: str) -> int:
    kinds = {value.name: value.type.tensor_type.elem_type for value in proto.graph.input}
    return int(kinds.get(name, TensorProto.FLOAT))


def _converted(path: Path, proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in an opset that samplers can be written in."""
    if proto.opset_import[0].version >= OLDEST:
        return proto
    try:
        return version_converter.convert_version(proto, forms.OPSET)
    except Exception as error:  # the converter's own exceptions share no base
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path}: expected opset {OLDEST} or newer, got {proto.opset_import[0].version}, which "
            f"could not be converted ({reason}); export the network anew"
        ) from None
