"""`toolkit plot KIND MODEL.onnx`: what solvers cost on a model, or its flow in the plane."""

from typing import Any

import click

from toolkit.cli.progress import Bar
from toolkit.cli.words import one_line

KINDS = ("error", "flow")


@click.command()
@click.argument("kind", metavar="KIND")
@click.argument("model", metavar="MODEL.onnx")
@click.option("-o", "--out", help="Where to, a .png.  [KIND.png]")
@click.option("-n", "--count", type=int, help="How many samples.  [256, or 2500 for flow]")
@click.option(
    "-l", "--label", help="A label, or several to cycle through.  [all, or none for flow]"
)
@click.option("-g", "--guidance", type=float, help="[the model's own]")
@click.option("--data", help="Data set to compare with.  [what the model was trained on]")
@click.option("--seed", default=0, show_default=True, help="Of the samples.")
@click.option("-f", "--force", is_flag=True, help="Overwrite --out.")
def plot(
    kind: str,
    model: str,
    out: str | None,
    count: int | None,
    label: str | None,
    guidance: float | None,
    data: str | None,
    seed: int,
    force: bool,
) -> None:
    """Draw how MODEL.onnx behaves.

    KIND error: the end error and the energy distance of every deterministic solver against its network
    calls, and the cheapest that is as close as Euler with 50 steps. KIND flow, for models of points in
    the plane: density, velocity and particles over t, the ODE beside the SDE.

    \b
    toolkit plot error digits.onnx
    toolkit plot flow moons.onnx --out moons-flow.png
    """
    import runtimes
    from runtimes.choices import choose, quoted
    from runtimes.files import refuse_existing
    from runtimes.limits import stopped_by_signals
    from toolkit import drawings, plots
    from toolkit.cli.sample import labels
    from toolkit.pictures import require_ending

    choose("kind", kind, KINDS)
    out = f"{kind}.png" if out is None else out
    refuse_existing(out, force)
    require_ending(out, ".png")
    if kind == "flow" and data is not None:
        raise ValueError(f"data: expected none for plot flow, got {quoted(data)}; leave it out")
    plots.figure(1, 1)  # without matplotlib this ends here
    opened = runtimes.load(model)
    request: dict[str, Any] = {"guidance": guidance, "seed": seed}
    if label is not None:
        request["label"] = labels(label)
    with stopped_by_signals():
        if kind == "flow":
            request.setdefault("label", "none" if opened.spec.condition.kind == "label" else None)
            seen = drawings.portrait(opened, request, drawings.CLOUD if count is None else count)
            plots.save(out, drawings.portrait_figure(opened, seen, request))
            click.echo(f"{out}: {one_line(opened.spec.name)}, the ODE beside the SDE")
        else:
            _error(out, opened, request, 256 if count is None else count, data)


def _error(out: str, model: Any, request: dict[str, Any], n: int, data: str | None) -> None:
    from toolkit import costs, drawings, plots

    real = _real(model, request, n, data)
    measured = costs.measure(model, n, real, progress=Bar("sampling").show, request=request)
    best, usual = costs.recommend(measured)
    plots.save(out, drawings.cost_figure(measured))
    click.echo(f"{out}: {len(measured.rows)} runs of {n} samples")
    for row in (*costs.cheapest(measured), usual):
        click.echo(
            f"  {row.solver:<12} {row.steps:>3} steps {row.calls:>3} calls   "
            f"end error {row.error:.2e}   energy distance {row.distance:.3g}"
        )
    click.echo(
        f"{best.solver} {best.steps} steps: same quality as {usual.solver} {usual.steps}; "
        f"toolkit sample --solver {best.solver} --steps {best.steps}"
    )


def _real(model: Any, request: dict[str, Any], n: int, name: str | None) -> Any:
    """Held-out data to compare with, or None; its rows' conditions go into the request."""
    import numpy as np

    from toolkit import data as data_sets

    kind, asked = model.spec.condition.kind, name is not None
    found = data_sets.of_model(model.spec, name)
    known = None if found is None else found.held_out
    if known is None or known.x.shape[1:] != model.spec.shape:
        if asked:
            got = "no such rows" if known is None else f"rows of shape {known.x.shape[1:]}"
            raise ValueError(
                f"data: expected held-out rows of shape {model.spec.shape}, got {got} in {name}; "
                "leave it out to compare with fine samples"
            )
        if kind == "label":
            request.setdefault("label", list(range(model.spec.condition.classes)))
        return None
    if kind != "none" and kind not in request:
        request[kind] = np.resize(known.y, (n, *known.y.shape[1:]))
        return known.x
    if kind == "label":
        return None  # one label asked for: real data of all labels would be the wrong yardstick
    return known.x
