"""`toolkit likelihood`: how likely data is under a model, by ONNX Runtime alone."""

import math
import time
from typing import Any

import click

from runtimes.adaptive import PAIRS
from toolkit.cli import numbers
from toolkit.cli.progress import Bar


@click.command()
@click.argument("model", metavar="MODEL.onnx")
@click.argument("data", metavar="DATA")
@click.option("-n", "--count", type=int, help="The first so many rows.  [all]")
@click.option("-l", "--label", help="One label for all, or none.  [the data's own y]")
@click.option(
    "--probes",
    type=int,
    help="0 takes the trace exactly, else so many random probes, at most 1000.  "
    "[0 up to 16 numbers in a sample, else 1]",
)
@click.option(
    "--step",
    type=float,
    help="Distance of two grey levels, to dequantise by; 0 is continuous data.  [the data set's own]",
)
@click.option(
    "-s", "--solver", default="dopri5", show_default=True, help=f"One of {', '.join(PAIRS)}."
)
@click.option("--tolerance", default=1e-5, show_default=True, help="1e-12 to 1.")
@click.option("--seed", default=0, show_default=True, help="Of probes and dequantisation.")
@click.option("--batch", default=64, show_default=True, help="Samples per network call.")
@click.option(
    "--provider",
    default="auto",
    show_default=True,
    help="cpu, cuda, tensorrt, coreml or directml.",
)
@click.option(
    "--threads", default="0", show_default=True, help="So many, all, or 0: by the network's size."
)
@click.option("-o", "--out", help="A .npz for every row's figures.")
@click.option("-f", "--force", is_flag=True, help="Overwrite --out.")
def likelihood(
    model: str,
    data: str,
    count: int | None,
    label: str | None,
    probes: int | None,
    step: float | None,
    solver: str,
    tolerance: float,
    seed: int,
    batch: int,
    provider: str,
    threads: str,
    out: str | None,
    force: bool,
) -> None:
    """Say how likely DATA, a .npz or .npy or a named data set, is under MODEL.onnx.

    MODEL.onnx is of the form likelihood (toolkit export --form likelihood). Of a named set the rows held
    out from training are taken. Grey levels are dequantised: uniform noise one level wide is added, and
    bits per dimension are those of the levels, an upper bound; without levels, those of the density.

    \b
    toolkit likelihood digits-likelihood.onnx digits -n 64
    toolkit likelihood moons-likelihood.onnx moons.npz --out nats.npz
    """
    import runtimes
    from runtimes.choices import choose
    from runtimes.files import refuse_existing
    from runtimes.integrate import check_tolerance
    from runtimes.likelihood import bits_per_dimension, dequantised
    from runtimes.limits import stopped_by_signals
    from toolkit.cli.sample import labels

    if out is not None:
        _check_out(out)
        refuse_existing(out, force)
    choose("solver", solver, PAIRS)
    check_tolerance("tolerance", tolerance)
    rows, condition, known_step = _rows(data, count)
    step = known_step if step is None else step
    with stopped_by_signals():
        opened = runtimes.load(
            model,
            provider=provider,
            threads=numbers.threads(threads),
            rows=min(batch, len(rows)),
        )
        kind, started = opened.spec.condition.kind, time.perf_counter()
        request: dict[str, Any] = {} if kind == "none" else {kind: condition}
        if label is not None:
            request["label"] = labels(label)
        x = dequantised(rows, step, seed) if step else rows
        result = runtimes.likelihood(
            opened,
            x,
            probes=probes,
            method=solver,
            rtol=tolerance,
            atol=tolerance,
            seed=seed,
            batch=batch,
            progress=Bar("likelihood").show,
            **request,
        )
    size = math.prod(opened.spec.shape)
    bits = bits_per_dimension(result.log_density, size, step or 1.0)
    if out is not None:
        _save(out, force, result, bits)
    for word, text in _words(result, bits, size, step, solver, tolerance):
        click.echo(f"{word:<18} {text}")
    seconds = time.perf_counter() - started
    click.echo(f"{'time':<18} {seconds:.2f} s on {opened.provider}")


def _rows(data: str, count: int | None) -> tuple[Any, Any, float | None]:
    """(x, y, step): all rows of a file, or those a named set holds out."""
    from pathlib import Path

    from runtimes.conditions import whole
    from toolkit.data import DATA, load
    from toolkit.data.arrays import read

    if data in DATA:
        known = load(data)
        held_out = known.held_out or known
        x, y, step = held_out.x, held_out.y, known.step
    else:
        x, y = read(Path(data))
        step = None
    n = len(x) if count is None else whole("count", count, 1, len(x))
    return x[:n], None if y is None else y[:n], step


def _words(
    result: Any, bits: Any, size: int, step: float | None, solver: str, tolerance: float
) -> list[tuple[str, str]]:
    """(word, text) lines: the two figures with their standard errors, then how they were made."""
    n, probes = len(bits), result.probes
    calls = result.calls
    how = f"uniform noise of one level, {step:g}, added: an upper bound" if step else "continuous"
    trace = f"{probes} random probe{'s' if probes > 1 else ''} a row" if probes else "exact"
    return [
        (
            "log p(x)",
            f"{_mean(result.log_density)} nats over {size} numbers, at t = {result.time:g}",
        ),
        ("bits per dimension", f"{_mean(bits)} ({how})"),
        ("rows", f"{n}"),
        ("trace", trace),
        ("steps", f"{solver}, tolerance {tolerance:g}, {result.accepted.mean():.1f} taken a row"),
        ("network calls", f"{calls.min()} to {calls.max()} a row, {calls.mean():.0f} on average"),
    ]


def _mean(values: Any) -> str:
    """Mean and its standard error."""
    error = f" +- {values.std(ddof=1) / math.sqrt(len(values)):.4f}" if len(values) > 1 else ""
    return f"{values.mean():.4f}{error}"


def _check_out(out: str) -> None:
    if not out.endswith(".npz"):
        raise ValueError(f"out: expected a file ending in .npz, got {out}; rename it")


def _save(out: str, force: bool, result: Any, bits: Any) -> None:
    from toolkit.show import save_arrays

    save_arrays(
        out,
        overwrite=force,
        log_density=result.log_density,
        bits_per_dimension=bits,
        calls=result.calls,
        accepted=result.accepted,
        rejected=result.rejected,
        noise=result.noise,
    )
