"""`toolkit export`: a run folder in, one model file out, if it passes the parity gate."""

import time

import click


@click.command()
@click.argument("run", metavar="RUN")
@click.option("-o", "--out", required=True, help="The .onnx to write.")
@click.option("--weights", default="ema", show_default=True, help="ema or network.")
@click.option(
    "--form",
    default="network",
    show_default=True,
    help="network, or likelihood: also says what toolkit likelihood asks, at twice the work.",
)
@click.option("-f", "--force", is_flag=True, help="Overwrite --out.")
def export(run: str, out: str, weights: str, form: str, force: bool) -> None:
    """Write the newest checkpoint in RUN as one self-describing .onnx.

    The network and a 20-step trajectory are compared, torch against ONNX Runtime, at batch 1 and 7;
    beyond a relative error of 1e-4 the export fails and writes nothing.

    \b
    toolkit export runs/digits --out digits.onnx
    toolkit export runs/digits --form likelihood --out digits-likelihood.onnx
    """
    from pathlib import Path

    from runtimes.choices import choose
    from runtimes.files import refuse_existing
    from runtimes.modelfile import FORMS

    choose("form", form, FORMS)
    refuse_existing(out, force)  # before torch is loaded
    from export import ParityError, export_torch
    from toolkit.train_torch import load

    started = time.perf_counter()
    module, spec = load(Path(run), which=weights)
    try:
        report = export_torch(module, spec, out, form=form, overwrite=force)
    except ParityError as error:
        click.echo(error.report.table())
        raise
    click.echo(report.table())
    click.echo(f"{out}: {Path(out).stat().st_size:,} bytes, {time.perf_counter() - started:.1f} s")
