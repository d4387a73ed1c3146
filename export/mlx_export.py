"""mlx.nn.Module -> .onnx, in pure Python: anyone's module(x, time, condition), from MLX's own trace.

The graph is that of `torch_export`: a free batch axis, a time per row, the output called `prediction`,
channels last at the boundary, weights float32. `mlx_trace` records the program, `mlx_ops` writes it.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.nn

from runtimes.files import refuse_existing
from runtimes.spec import Spec

from . import forms
from .mlx_model import MlxModel
from .mlx_ops import translate
from .mlx_trace import program
from .verify import TOLERANCE, Report

MODULE: Any = mlx.nn.Module  # type: ignore[attr-defined]  # its stubs do not name what it imports


def export_mlx(
    module: Callable[..., Any],
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

    module: an mlx.nn.Module or any function of MLX arrays, called as module(x, time) or, when
    spec.condition is not none, module(x, time, condition). form: one of `forms.GROW`; batch: of the
    form unrolled; precision, accept, profile: see `export_torch`.
    Raises FileExistsError, ValueError (a module that does not fit its spec or cannot be traced, a
    primitive without a function, an operator that the form cannot have) and ParityError (beyond
    `tolerance`, relative); then nothing is written.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    reference = MlxModel(spec, module)
    arguments = forms.example(spec, batch=3)
    names = ["x", "time", spec.condition.kind][: len(arguments)]
    with _evaluating(module):
        forms.tried(reference.network, arguments)  # evaluates the weights too
        network = translate(
            program(module, partial(forms.example, spec)), names, output="prediction"
        )
        return forms.write(
            network,
            spec,
            path,
            form=form,
            reference=reference,
            framework=f"mlx {version('mlx')}",
            overwrite=overwrite,
            tolerance=tolerance,
            batch=batch,
            precision=precision,
            accept=accept,
            profile=profile,
        )


@contextmanager
def _evaluating(module: Callable[..., Any]) -> Iterator[None]:
    """Every part of a module without dropout and with kept statistics; then each as it was."""
    parts = [part for _, part in module.named_modules()] if isinstance(module, MODULE) else []
    before = [part.training for part in parts]
    try:
        for part in parts:
            part.train(False)
        yield
    finally:
        for part, training in zip(parts, before, strict=True):  # parents before their children
            part.train(training)
