"""`toolkit compare`: the same run by torch, MLX and ONNX Runtime, and how far they are apart."""

from typing import Any

import click

from toolkit.cli.progress import Bar
from toolkit.cli.words import one_line


@click.command()
@click.argument("models", metavar="[RUN] [MODEL.onnx]...", nargs=-1)
@click.option("-n", "--count", default=8, show_default=True, help="How many samples.")
@click.option("-l", "--label", help="A label, or several to cycle through.  [all]")
@click.option("--context", metavar="FILE.npy", help="Context vectors.  [drawn at random]")
@click.option("-s", "--solver", help="[the reference's own]")
@click.option("-k", "--steps", type=int, help="[the reference's own]")
@click.option("-g", "--guidance", type=float, help="[the reference's own]")
@click.option("--seed", default=0, show_default=True, help="Sample i uses seed + i.")
@click.option("--tolerance", default=1e-4, show_default=True, help="Largest relative error.")
@click.option("--rounds", default=5, show_default=True, help="Runs of each that are timed.")
@click.option("--no-speed", is_flag=True, help="Leave rates, cold starts and memory out.")
@click.option("--node", metavar="DIR", help="Node too: examples/node, where npm ci ran.")
@click.option("-o", "--out", metavar="FILE.html", help="A report with pictures.")
@click.option(
    "--json", "json_out", metavar="FILE", help="All numbers; - is stdout, without the table."
)
@click.option("-f", "--force", is_flag=True, help="Overwrite --out and --json.")
def compare(
    models: tuple[str, ...],
    count: int,
    label: str | None,
    context: str | None,
    solver: str | None,
    steps: int | None,
    guidance: float | None,
    seed: int,
    tolerance: float,
    rounds: int,
    no_speed: bool,
    node: str | None,
    out: str | None,
    json_out: str | None,
    force: bool,
) -> None:
    """Run the same sampler from the same noise with everything that is here, and compare every state.

    RUN is the folder of a training run: its network runs in torch and in MLX. Model files run in ONNX
    Runtime on each of its providers. The first of them is the reference. What is not here is listed with
    the reason. Exit code 1 when one of them is outside the tolerance.

    \b
    toolkit compare runs/digits digits.onnx
    toolkit compare runs/digits digits.onnx digits-sampler.onnx --guidance 2 --out report.html
    toolkit compare runs/digits                # torch beside MLX
    toolkit compare digits.onnx digits-sampler.onnx --node examples/node
    """
    from runtimes.conditions import whole
    from runtimes.files import refuse_existing, write_whole
    from runtimes.limits import stopped_by_signals
    from toolkit import plots
    from toolkit.cli import controls
    from toolkit.cli.sample import labels
    from toolkit.compare import compare as measure
    from toolkit.compare import timed
    from toolkit.pictures import require_ending
    from toolkit.reports import table, to_json

    whole("rounds", rounds, 1, 1000)
    for path in (out, json_out):
        if path not in (None, "-"):
            refuse_existing(path, force)
    if out is not None:
        require_ending(out, ".html")
        plots.figure(1, 1)  # without matplotlib this ends here
    request: dict[str, Any] = {
        "label": None if label is None else labels(label),
        "context": None if context is None else controls.array("context", context),
        "solver": solver,
        "steps": steps,
        "guidance": guidance,
        "seed": seed,
    }
    with stopped_by_signals():
        backends, absent = _found(models, node)
        bar = Bar("comparing").show
        result = measure(backends, count, request=request, tolerance=tolerance, progress=bar)
        if not no_speed:
            result = timed(result, rounds=rounds, progress=Bar("timing").show)
    if json_out == "-":
        click.echo(to_json(result, absent))
    else:
        text = table(result, absent)
        click.echo("".join(c if c.isprintable() or c == "\n" else "?" for c in text))
    if json_out not in (None, "-"):
        write_whole(json_out, to_json(result, absent).encode(), overwrite=force)
    if out is not None:
        from toolkit.pages import html

        write_whole(out, html(result, absent).encode(), overwrite=force)
        click.echo(f"{one_line(out)}: open it in a browser", err=json_out == "-")
    if result.outside:
        raise SystemExit(1)


def _found(models: tuple[str, ...], node: str | None) -> Any:
    """The backends and what is absent. A changed or broken model file is a finding: exit code 1."""
    from runtimes import ModelError
    from toolkit.backends import find
    from toolkit.node import find_node

    files = [path for path in models if path.endswith(".onnx")]
    runs = [path for path in models if path not in files]
    if len(runs) > 1:
        raise ValueError(
            f"compare: expected one run folder at most, got {' and '.join(runs)}; "
            "export one of them and give its .onnx"
        )
    try:
        backends, absent = find(runs[0] if runs else None, files)
        more, lacking = find_node(node, backends)
        return [*backends, *more], [*absent, *lacking]
    except ModelError as error:
        raise click.ClickException(str(error)) from error
