"""`toolkit conformance`: solvers, schedules and predictions against known densities on this machine."""

import click

from toolkit.cli.progress import Bar


@click.command()
@click.option(
    "-o", "--out", metavar="DIR", help="Keep the .onnx files there, for clients of your own."
)
@click.option("--solver", "solvers", multiple=True, help="Only this one; may be repeated.  [all]")
@click.option(
    "--schedule", "schedules", multiple=True, help="Only this one; may be repeated.  [all]"
)
@click.option("--prediction", "predictions", multiple=True, help="Likewise.  [all]")
@click.option("--jobs", type=int, help="Processes at once.  [as many as cores, at most 4]")
def conformance(
    out: str | None,
    solvers: tuple[str, ...],
    schedules: tuple[str, ...],
    predictions: tuple[str, ...],
    jobs: int | None,
) -> None:
    """Hold the installed ONNX Runtime, on each of its providers, against exact answers.

    Gaussian, mixtures and Ornstein-Uhlenbeck paths, with labels and contexts, are written as .onnx files
    without any training. Printed are every solver's measured order and end error and how far float32 is
    from float64. Exit code 1 when one of them is off.

    \b
    toolkit conformance
    toolkit conformance --schedule linear --out densities
    """
    import os
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from export import conformance as suite
    from runtimes.choices import choose
    from runtimes.conditions import whole
    from runtimes.predictions import PREDICTIONS
    from runtimes.schedules import SCHEDULES
    from runtimes.solvers import SOLVERS

    for what, given, known in (
        ("solver", solvers, SOLVERS),
        ("schedule", schedules, SCHEDULES),
        ("prediction", predictions, PREDICTIONS),
    ):
        for name in given:
            choose(what, name, known)
    solvers, schedules, predictions = (
        tuple(dict.fromkeys(given)) for given in (solvers, schedules, predictions)
    )
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise FileExistsError(f"{out}: expected a folder or none, got a file; give another name")
    if jobs is not None:
        whole("jobs", jobs, 1, 1024)
    cores = min(os.cpu_count() or 1, 4)
    with TemporaryDirectory() as scratch:
        folder = Path(out or scratch)
        files = suite.write_all(folder, schedules=schedules, predictions=predictions)
        pairs = len(schedules or SCHEDULES) * len(predictions or PREDICTIONS)
        total = pairs * len(suite.providers())
        bar, found = Bar("measuring"), []
        measured = suite.measure(
            folder,
            solvers=solvers,
            schedules=schedules,
            predictions=predictions,
            jobs=min(cores, total) if jobs is None else jobs,
        )
        for done, rows in enumerate(measured, 1):
            found += rows
            bar.show(done, total)
    off = sum(row.off for row in found)
    click.echo(suite.table(found))
    click.echo(
        f"{files} files{f' in {out}' if out else ''}, {len(found)} measurements, {off} off: a gap above "
        f"{suite.GAP:g}, or an order below {suite.SHARE} of the declared one"
    )
    if off:
        raise SystemExit(1)
