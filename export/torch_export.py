"""torch.nn.Module -> .onnx: anyone's module(x, time, condition), with a spec and the parity gate.

The graph has a free batch axis and a time per row: x float32 (B, *shape), time float32 (B,), and label
int64 (B,) or context float32 (B, *context) as the spec says; the output is called `prediction`.
"""

import contextlib
import copy
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray

from runtimes.files import refuse_existing
from runtimes.spec import Spec

from . import forms
from .torch_model import TorchModel
from .verify import TOLERANCE, Report


def export_torch(
    module: torch.nn.Module,
    spec: Spec,
    path: str | os.PathLike[str],
    *,
    form: str = "network",
    batch: int = 1,
    precision: str = "fp32",
    accept: bool = False,
    profile: str = "portable",
    overwrite: bool = False,
    tolerance: float = TOLERANCE,
) -> Report:
    """Write `module` as one model file at `path` and return its parity report.

    module: called as module(x, time) or, when spec.condition is not none, module(x, time, condition).
    form: one of `forms.GROW`; likelihood compares the products with torch's own too. batch: of the form
    unrolled. precision: one of `precision.PRECISIONS`, which has a gate of its own (`fidelity`) unless you
    accept what it says. profile: one of `fused.PROFILES`.
    Raises FileExistsError, ValueError (a module that does not fit its spec or cannot be traced, an
    operator that the form cannot have) and ParityError (beyond `tolerance`, relative); then nothing
    is written.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    module = copy.deepcopy(module).cpu().float().eval()
    reference = TorchModel(spec, module)
    arguments = forms.example(spec, batch=3)
    forms.tried(reference.network, arguments)
    return forms.write(
        _trace(module, spec, arguments),
        spec,
        path,
        form=form,
        reference=reference,
        framework=f"torch {torch.__version__.split('+')[0]}",
        overwrite=overwrite,
        tolerance=tolerance,
        batch=batch,
        precision=precision,
        accept=accept,
        profile=profile,
    )


def _trace(
    module: torch.nn.Module, spec: Spec, arguments: tuple[NDArray[Any], ...]
) -> onnx.ModelProto:
    names = ["x", "time"] + ([] if len(arguments) == 2 else [spec.condition.kind])
    batch = torch.export.Dim("batch")
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                tuple(torch.from_numpy(array) for array in arguments),
                dynamo=True,
                input_names=names,
                output_names=["prediction"],
                dynamic_shapes=tuple({0: batch} for _ in arguments),
                opset_version=forms.OPSET,
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
