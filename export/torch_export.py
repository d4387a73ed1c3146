"""torch.nn.Module -> .onnx: anyone's module(x, time, condition), with a spec and the parity gate.

The graph has a free batch axis and a time per row: x float32 (B, *shape), time float32 (B,), and label
int64 (B,) or context float32 (B, *context) as the spec says; the output is called `prediction`.
"""

import contextlib
import copy
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from runtimes import modelfile, session
from runtimes.files import refuse_existing, write_whole
from runtimes.spec import Spec, to_json

from .derivatives import with_product
from .torch_model import TorchModel
from .verify import TOLERANCE, Report, compare

OPSET = 20  # the newest that DirectML runs; torch's own default


def export_torch(
    module: torch.nn.Module,
    spec: Spec,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    tolerance: float = TOLERANCE,
) -> Report:
    """Write `module` as one model file at `path` and return its parity report.

    module: called as module(x, time) or, when spec.condition is not none, module(x, time, condition).
    Raises FileExistsError, ValueError (a module that does not fit its spec or cannot be traced) and
    ParityError (beyond `tolerance`, relative); then nothing is written.
    """
    return _export(module, spec, Path(path), "network", overwrite, tolerance)


def export_likelihood(
    module: torch.nn.Module,
    spec: Spec,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    tolerance: float = TOLERANCE,
) -> Report:
    """`export_torch` with one more input, `probe`, and one more output, `product` = J probe.

    J = d prediction / d x, which `runtimes.likelihood` needs; the products are compared with torch's
    own too. Raises what `export_torch` does, and ValueError for an operator without a derivative.
    """
    return _export(module, spec, Path(path), "likelihood", overwrite, tolerance)


def _export(
    module: torch.nn.Module, spec: Spec, path: Path, form: str, overwrite: bool, tolerance: float
) -> Report:
    refuse_existing(path, overwrite)
    module = copy.deepcopy(module).cpu().float().eval()
    reference = TorchModel(spec, module)
    example = _example(spec, batch=3)
    _try(reference, example)
    proto = GROW[form](_trace(module, spec, example))
    notes = {modelfile.SPEC_KEY: to_json(spec)}
    if form != session.FORMS[0]:
        notes[modelfile.FORM_KEY] = form
    unproven = modelfile.check(path, _content(proto, notes))
    model = session.open_file(unproven, provider="cpu")
    report = compare(
        reference, model, framework=f"torch {torch.__version__.split('+')[0]}", tolerance=tolerance
    )
    notes[modelfile.REPORT_KEY] = report.to_json()
    write_whole(path, _content(proto, notes), overwrite=overwrite)
    return report


def _example(spec: Spec, batch: int) -> tuple[NDArray[Any], ...]:
    """Arguments to trace with: x, time and, where the spec has one, a condition."""
    x, time = np.zeros((batch, *spec.shape), np.float32), np.full(batch, 0.5, np.float32)
    if spec.condition.kind == "label":
        return x, time, np.zeros(batch, np.int64)
    if spec.condition.kind == "context":
        return x, time, np.zeros((batch, *spec.condition.shape), np.float32)
    return x, time


def _try(reference: TorchModel, example: tuple[NDArray[Any], ...]) -> None:
    """One call in torch: a module that does not fit its spec says so here, not inside the tracer."""
    takes = ", ".join(f"{array.dtype} {array.shape}" for array in example)
    try:
        out = reference.network(*example)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"module: expected to take {takes}, got {type(error).__name__}: {reason}; "
            "correct the spec or wrap the module"
        ) from error
    if out.shape != example[0].shape or out.dtype != np.float32:
        raise ValueError(
            f"module: expected to return float32 {example[0].shape}, got {out.dtype} {out.shape}; "
            "wrap it to return channels last, one prediction per row"
        )


def _trace(
    module: torch.nn.Module, spec: Spec, example: tuple[NDArray[Any], ...]
) -> onnx.ModelProto:
    names = ["x", "time"] + ([] if len(example) == 2 else [spec.condition.kind])
    batch = torch.export.Dim("batch")
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                tuple(torch.from_numpy(array) for array in example),
                dynamo=True,
                input_names=names,
                output_names=["prediction"],
                dynamic_shapes=tuple({0: batch} for _ in example),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"module: expected one torch.onnx can trace with a free batch, got: {reason}; "
            "avoid Python branches and sizes that depend on the batch"
        ) from error
    if program is None:
        raise ValueError(
            "module: expected an ONNX program from torch.onnx.export, got none; update torch"
        )
    proto = program.model_proto
    if any(not value.type.tensor_type.shape.dim[0].dim_param for value in proto.graph.input):
        raise ValueError(
            "module: expected a forward with a free batch, got one whose graph depends on the batch size; "
            "avoid Python branches on it"
        )
    return proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporter warns and logs about packages that nobody asked for."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _content(proto: onnx.ModelProto, notes: dict[str, str]) -> bytes:
    """The sealed bytes: the graph without the exporter's notes, then ours (spec, report) and the seal."""
    clean = onnx.ModelProto()
    clean.CopyFrom(proto)
    del clean.metadata_props[:]
    del clean.graph.value_info[:]
    del clean.graph.metadata_props[:]
    for node in clean.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*clean.graph.input, *clean.graph.output, *clean.graph.initializer):
        del value.metadata_props[:]
    clean.producer_name, clean.producer_version = "toolkit", ""
    for key, text in notes.items():
        clean.metadata_props.add(key=key, value=text)
    return modelfile.seal(clean.SerializeToString(deterministic=True))


# what each form of file adds to the traced network
GROW: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "network": lambda proto: proto,
    "likelihood": with_product,
}
