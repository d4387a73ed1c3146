"""What a model file returns, and the one way any network becomes one: grown, compared, sealed, or nothing.

network      prediction = network(x, time, condition)
likelihood   the same and its product J probe
sampler      the network inside a loop over a tableau's rows: x -> sample
seeded       the same from a seed alone, noise inside: seed -> sample, image
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from runtimes import modelfile, session, tableaus
from runtimes.choices import choose
from runtimes.files import write_whole
from runtimes.likelihood import Differentiable
from runtimes.spec import Spec, to_json

from . import fused
from .derivatives import with_product
from .fidelity import judge
from .precision import rewritten
from .sampler import sampler, seeded
from .unrolled import unrolled
from .verify import ParityError, Report, compare

OPSET = 20  # the newest that DirectML runs; torch's own default
Grow = Callable[
    [onnx.ModelProto, Spec, int], onnx.ModelProto
]  # of so many samples, if that is fixed


def write(
    network: onnx.ModelProto,
    spec: Spec,
    path: Path,
    *,
    form: str,
    reference: Differentiable,
    framework: str,
    overwrite: bool,
    tolerance: float,
    batch: int = 1,
    precision: str = "fp32",
    accept: bool = False,
    profile: str = "portable",
) -> Report:
    """Write a network's graph as one model file of that form, and return its parity report.

    network: x float32 (B, *shape), time float32 (B,) and label int64 (B,) or context float32 (B, *context)
    as the spec says; one output `prediction`. reference: what it must compute, in the framework it comes
    from, named by `framework`. batch: of the form unrolled. precision: one of `PRECISIONS`; the graph in
    float32 is compared with the reference first, then the smaller one with it by `fidelity`. accept: write
    that one whatever it says. profile: one of `fused.PROFILES`; its graph is what is compared.
    Raises FileExistsError, ParityError beyond `tolerance` (relative) or that of the precision, and
    what growing the form raises; then nothing is written.
    """
    grow = GROW[choose("form", form, GROW)]
    network = _fused(network, form, profile)
    small = None if precision == "fp32" else _smaller(network, form, precision)
    notes = {modelfile.SPEC_KEY: to_json(spec)}
    if form != modelfile.FORMS[0]:
        notes[modelfile.FORM_KEY] = form
    if form in modelfile.SAMPLERS:
        notes[modelfile.TABLEAUS_KEY] = tableaus.to_json(tableaus.kept(spec))
    proto = grow(network, spec, batch)
    model = _opened(path, proto, notes)
    report = compare(reference, model, framework=framework, tolerance=tolerance)
    if small is not None:
        proto = grow(small, spec, batch)
        found = judge(model, _opened(path, proto, notes), precision)
        report = replace(report, fidelity=found)
        if not (found.passes or accept):
            raise ParityError(
                f"{precision}: expected an end error of at most {found.tolerance:.0e} and a sliced "
                f"Wasserstein distance of at most {found.other_seeds:.1e}, got {found.end_error:.1e} and "
                f"{found.sliced:.1e}; nothing was written: take another precision, or --accept it",
                report,
            )
        notes[modelfile.PRECISION_KEY] = found.to_json()
    notes[modelfile.REPORT_KEY] = report.to_json()
    write_whole(path, sealed(proto, notes), overwrite=overwrite)
    return report


def _fused(network: onnx.ModelProto, form: str, profile: str) -> onnx.ModelProto:
    if profile != "portable" and form in PLAIN:
        raise ValueError(
            f"profile: expected portable for the form {form}, got {profile!r}; leave it out: that form needs "
            "operators of few kinds"
        )
    return fused.rewritten(network, profile)


def _smaller(network: onnx.ModelProto, form: str, precision: str) -> onnx.ModelProto:
    if form == "unrolled":  # its constants are worked out, so no Cast would be left
        raise ValueError(
            f"precision: expected fp32 for the form unrolled, got {precision!r}; leave it out: phones and "
            "NPUs choose their own"
        )
    return rewritten(network, precision)


def _opened(path: Path, proto: onnx.ModelProto, notes: dict[str, str]) -> session.Model:
    """The model as it would be written, on the CPU."""
    return session.open_file(modelfile.check(path, sealed(proto, notes)), provider="cpu")


def example(spec: Spec, batch: int) -> tuple[NDArray[Any], ...]:
    """Arguments to trace a network with: x, time and, where the spec has one, a condition."""
    x, time = np.zeros((batch, *spec.shape), np.float32), np.full(batch, 0.5, np.float32)
    if spec.condition.kind == "label":
        return x, time, np.zeros(batch, np.int64)
    if spec.condition.kind == "context":
        return x, time, np.zeros((batch, *spec.condition.shape), np.float32)
    return x, time


def tried(call: Callable[..., NDArray[Any]], arguments: tuple[NDArray[Any], ...]) -> None:
    """One call in the framework: a module that does not fit its spec says so here, not inside a tracer."""
    takes = ", ".join(f"{array.dtype} {array.shape}" for array in arguments)
    try:
        out = call(*arguments)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"module: expected to take {takes}, got {type(error).__name__}: {reason}; "
            "correct the spec or wrap the module"
        ) from error
    if out.shape != arguments[0].shape or out.dtype != np.float32:
        raise ValueError(
            f"module: expected to return float32 {arguments[0].shape}, got {out.dtype} {out.shape}; "
            "wrap it to return channels last, one prediction per row"
        )


def sealed(proto: onnx.ModelProto, notes: dict[str, str]) -> bytes:
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


def _unrolled(network: onnx.ModelProto, spec: Spec, batch: int) -> onnx.ModelProto:
    best = spec.sampler
    guided = best.guidance != 1.0
    run = tableaus.traced(spec, best.solver, best.steps, best.grid, guided=guided)
    return unrolled(network, spec, batch, run)


PLAIN = ("likelihood", "unrolled")  # have a rule for each operator, and none for larger ones
# what each form of file adds to the network
GROW: dict[str, Grow] = {
    "network": lambda network, spec, batch: network,
    "likelihood": lambda network, spec, batch: with_product(network),
    "sampler": lambda network, spec, batch: sampler(network, spec),
    "seeded": lambda network, spec, batch: seeded(network, spec),
    "unrolled": _unrolled,
}
