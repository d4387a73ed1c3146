"""`toolkit export`: a run folder or a network in, one model file out, if it passes the gate."""

import importlib.util
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click

from runtimes.choices import choose
from runtimes.modelfile import FORMS

Write = Callable[[dict[str, Any], str, dict[str, Any]], Any]  # (best, out, options)

WRITERS = {"torch": "export_torch", "mlx": "export_mlx"}  # backend -> its verb in `export`


@click.command()
@click.argument("run", metavar="RUN")
@click.option("-o", "--out", required=True, help="The .onnx to write.")
@click.option("--weights", default="ema", show_default=True, help="ema or network.")
@click.option("--backend", default="auto", show_default=True, help="torch or mlx: who traces RUN.")
@click.option("--form", default="network", show_default=True, help=f"One of {', '.join(FORMS)}.")
@click.option("--spec", metavar="FILE.json", help="The spec of a network.onnx that is not ours.")
@click.option("-s", "--solver", help="The solver to recommend and to build in.  [heun]")
@click.option("-k", "--steps", type=int, help="Its steps.  [20]")
@click.option("--grid", help="Its grid.  [uniform]")
@click.option("-g", "--guidance", type=float, help="Its weight of the condition.  [1]")
@click.option("-b", "--batch", default=1, show_default=True, help="Samples of the form unrolled.")
@click.option(
    "--precision", default="fp32", show_default=True, help="fp16, bf16, int8, uint8, w8 or w4."
)
@click.option("--profile", default="portable", show_default=True, help="portable or fast.")
@click.option("--accept", is_flag=True, help="Write a precision that fails its gate.")
@click.option("-f", "--force", is_flag=True, help="Overwrite --out.")
def export(
    run: str,
    out: str,
    weights: str,
    backend: str,
    form: str,
    spec: str | None,
    solver: str | None,
    steps: int | None,
    grid: str | None,
    guidance: float | None,
    batch: int,
    precision: str,
    profile: str,
    accept: bool,
    force: bool,
) -> None:
    """Write the newest checkpoint in RUN, or somebody else's network.onnx, as one self-describing .onnx.

    The network and a 20-step trajectory are compared, torch or MLX against ONNX Runtime, at batch 1 and 7;
    beyond a relative error of 1e-4 the export fails and writes nothing.

    \b
    network     the prediction; the solver runs in whatever opens the file
    sampler     the solver inside, as a table of numbers: noise in, samples out, in any language
    seeded      the noise inside too: a seed in, samples and pictures out
    unrolled    a fixed solver for a fixed --batch, without loops: for phones and NPUs
    likelihood  the prediction and its derivative, for toolkit likelihood

    A --precision keeps the weights in fewer bits: fp16 (half the file, the same speed), bf16 (for weights
    beyond 65504), int8 or uint8 (a quarter; int8 is faster for large networks), w8 or w4 (a quarter and a
    sixth: the matrices alone, the speed stays). Its samples are held against those of fp32 from the same
    seeds; too large an end error writes nothing either. The form unrolled has all but int8 and uint8.

    The --profile fast makes one node of attention: faster on a CPU, with ONNX Runtime 1.23 or newer; not for
    the forms unrolled and likelihood. portable runs everywhere, and is what a network without attention gets.

    What toolkit fit left in RUN goes into the file too.

    \b
    toolkit export runs/digits --out digits.onnx
    toolkit export runs/digits --form sampler --solver dpmpp_2m --steps 10 --out digits-sampler.onnx
    toolkit export runs/digits --backend mlx --out digits.onnx
    toolkit export runs/digits --form unrolled --batch 1 --steps 8 --out digits-unrolled.onnx
    toolkit export runs/digits --precision fp16 --out digits-fp16.onnx
    toolkit export runs/digits --profile fast --out digits-fast.onnx
    toolkit export network.onnx --spec spec.json --form sampler --out theirs.onnx
    """
    from pathlib import Path

    from runtimes.files import refuse_existing

    choose("form", form, FORMS)
    refuse_existing(out, force)  # before a framework is loaded
    from export import ParityError
    from export.fused import PROFILES
    from export.precision import known

    known(precision)
    choose("profile", profile, PROFILES)

    started = time.perf_counter()
    if batch != 1 and form != "unrolled":
        raise ValueError(
            f"batch: expected it for the form unrolled, got it for {form!r}; leave it out"
        )
    options = {
        "form": form, "batch": batch, "precision": precision, "profile": profile, "accept": accept,
        "overwrite": force,
    }  # fmt: skip
    best = {"solver": solver, "steps": steps, "grid": grid, "guidance": guidance}
    source = _stranger if run.endswith(".onnx") else _ours
    write = source(run, weights, backend, spec)
    fitted = _fitted(run, weights, form)  # a broken one is found before anything is written
    try:
        report = write(best, out, options)
    except ParityError as error:
        click.echo(error.report.table())
        raise
    if fitted:
        _put_fitted(fitted, out)
    click.echo(report.table())
    click.echo(f"{out}: {Path(out).stat().st_size:,} bytes, {time.perf_counter() - started:.1f} s")


def _ours(run: str, weights: str, backend: str, spec: str | None) -> Write:
    """From a run folder, whoever trained it: the other framework opens it too."""
    from pathlib import Path

    import export
    from toolkit.cli.train import trainer
    from toolkit.runs import framework_of

    if spec is not None:
        raise ValueError(
            f"spec: expected none beside a run folder, which has its own, got {spec}; leave it out"
        )
    choose("backend", backend, ("auto", *WRITERS))
    wanted = [framework_of(Path(run)), *WRITERS] if backend == "auto" else [backend]
    there = [name for name in wanted if name in WRITERS and importlib.util.find_spec(name)]
    name = (there or wanted)[0]
    module, own = trainer(name).load(Path(run), which=weights)
    write = getattr(export, WRITERS[name])
    return lambda best, out, options: write(module, _with(own, best), out, **options)


def _fitted(run: str, weights: str, form: str) -> Any:
    """What toolkit fit left in a run folder; none for an unrolled file, whose one run is all it has."""
    from pathlib import Path

    from toolkit import fits

    ours = not run.endswith(".onnx") and form != "unrolled"
    return fits.read(Path(run), weights) if ours else ()


def _put_fitted(fitted: Any, out: str) -> None:
    """Into the file just written."""
    from export.fitted import with_fitted
    from runtimes import modelfile

    with_fitted(modelfile.read(out), fitted, out, overwrite=True)


def _stranger(network: str, weights: str, backend: str, spec: str | None) -> Write:
    """From an .onnx and its spec."""
    if weights != "ema" or backend != "auto":
        given = f"weights {weights!r}" if weights != "ema" else f"backend {backend!r}"
        raise ValueError(
            f"{given.split()[0]}: expected none beside an .onnx, got {given}; leave it out"
        )
    if spec is None:
        raise ValueError(
            f"spec: expected the spec of {network}, got none; give --spec spec.json, see docs/clients.md"
        )
    from export.onnx_export import export_onnx, read_spec

    own, names = read_spec(spec)
    return lambda best, out, options: export_onnx(
        network, _with(own, best), out, names=names, **options
    )


def _with(spec: Any, best: dict[str, Any]) -> Any:
    """The spec with what was given put in the place of its recommended sampler."""
    given = {key: value for key, value in best.items() if value is not None}
    return replace(spec, sampler=replace(spec.sampler, **given))
