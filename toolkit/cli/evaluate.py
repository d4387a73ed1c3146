"""`toolkit evaluate`: samples against held-out data, each figure beside its floor and its baseline."""

from typing import Any

import click

from toolkit.cli.progress import Bar


@click.command()
@click.argument("model", metavar="MODEL.onnx")
@click.option("--data", help="Data set name or .npz.  [what the model was trained on]")
@click.option(
    "-n", "--count", type=int, help="How many samples.  [as many as were held out, at most 5000]"
)
@click.option("-s", "--solver", help="[the model's own]")
@click.option("-k", "--steps", type=int, help="[the model's own]")
@click.option("-g", "--guidance", type=float, help="[the model's own]")
@click.option("--seed", default=0, show_default=True, help="Of the samples.")
@click.option(
    "--provider",
    default="auto",
    show_default=True,
    help="cpu, cuda, tensorrt, coreml or directml.",
)
def evaluate(
    model: str,
    data: str | None,
    count: int | None,
    solver: str | None,
    steps: int | None,
    guidance: float | None,
    seed: int,
    provider: str,
) -> None:
    """Judge MODEL.onnx against data it was never trained on.

    The floor is real data against real data, the baseline a Gaussian fitted to the training data (one
    per label): a model worth having lies between them. Exit code 1 when a gate is missed.

    \b
    toolkit evaluate digits.onnx
    """
    import numpy as np

    import runtimes
    from runtimes.limits import stopped_by_signals
    from toolkit import data as data_sets
    from toolkit import metrics

    opened = runtimes.load(model, provider=provider)
    known = data_sets.of_model(opened.spec, data)
    if known is None:
        says = str(opened.spec.training.get("data", opened.spec.name))
        raise ValueError(
            f"data: expected --data for a model of your own arrays, got none; it says {says!r}"
        )
    held_out = known.held_out
    if held_out is None:
        raise ValueError(
            f"data: expected rows held out, got none in {known.name}; give 1000 rows or more"
        )
    n = min(len(held_out.x), 5000) if count is None else count
    request: dict[str, Any] = {
        "solver": solver,
        "steps": steps,
        "guidance": guidance,
        "seed": seed,
    }
    if opened.spec.condition.kind != "none":
        request[opened.spec.condition.kind] = np.resize(held_out.y, (n, *held_out.y.shape[1:]))
    with stopped_by_signals():
        samples = runtimes.sample(opened, n, progress=Bar("sampling").show, **request)
    rows = metrics.evaluate(samples, request.get("label"), known, seed=seed)
    click.echo(metrics.table(rows, n))
    missed = [row.name for row in rows if row.missed]
    if missed:
        click.echo(f"missed: {', '.join(missed)}", err=True)
        raise SystemExit(1)
