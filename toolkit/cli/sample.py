"""`toolkit sample`: noise in, a picture or an array out, by ONNX Runtime alone."""

import time
from typing import Any

import click

from runtimes.adaptive import PAIRS
from runtimes.charts import CHARTS
from runtimes.choices import quoted
from runtimes.grids import GRIDS, check_steps
from runtimes.solvers import SOLVERS
from runtimes.stochastic import DIFFUSIONS
from toolkit.cli.numbers import REAL, WHOLE
from toolkit.cli.progress import Bar
from toolkit.cli.words import one_line


@click.command()
@click.argument("model", metavar="MODEL.onnx")
@click.option("-n", "--count", default=16, show_default=True, help="How many samples.")
@click.option("-l", "--label", help="A label, or several to cycle through: 7, '0,1,2', cat, none.")
@click.option("--context", metavar="FILE.npy", help="Context vectors: one for all, or one each.")
@click.option("-s", "--solver", help=f"One of {', '.join((*SOLVERS, *PAIRS))}.  [the model's own]")
@click.option("--tolerance", type=float, help=f"Of {' and '.join(PAIRS)}, 1e-12 to 1.  [1e-5]")
@click.option(
    "-k", "--steps", type=int, help="Intervals of the grid, 1 to 10000.  [the model's own]"
)
@click.option(
    "--grid",
    help=f"One of {', '.join(GRIDS)} (or like karras(5)), or your own times '0,0.2,1'.  [the model's own]",
)
@click.option(
    "-g", "--guidance", type=float, help="Weight of the condition; 1 is off.  [the model's own]"
)
@click.option(
    "--interval", default="0,1", show_default=True, help="The t in which guidance is on."
)
@click.option(
    "--chart", default="straight", show_default=True, help=f"One of {', '.join(CHARTS)}."
)
@click.option("--eta", default=1.0, show_default=True, help="Strength of a noisy solver, 0 to 10.")
@click.option(
    "--diffusion",
    default="sigma",
    show_default=True,
    help=f"g^2 of euler_maruyama and stochastic_heun: one of {', '.join(DIFFUSIONS)}.",
)
@click.option("--seed", default=0, show_default=True, help="Sample i uses seed + i; 0 to 2^53-1.")
@click.option("--batch", default=64, show_default=True, help="Samples per network call.")
@click.option(
    "--provider", default="auto", show_default=True, help="cpu, cuda, coreml or directml."
)
@click.option("--threads", default=0, show_default=True, help="0 lets ONNX Runtime choose.")
@click.option("-o", "--out", required=True, help="Where to: .png, .gif, .npy or .npz.")
@click.option("--show-trajectory", is_flag=True, help="Write the path from noise to data instead.")
@click.option("-f", "--force", is_flag=True, help="Overwrite --out.")
def sample(
    model: str,
    count: int,
    label: str | None,
    context: str | None,
    solver: str | None,
    tolerance: float | None,
    steps: int | None,
    grid: str | None,
    guidance: float | None,
    interval: str,
    chart: str,
    eta: float,
    diffusion: str,
    seed: int,
    batch: int,
    provider: str,
    threads: int,
    out: str,
    show_trajectory: bool,
    force: bool,
) -> None:
    """Draw samples from MODEL.onnx and write them to --out.

    The same seed gives the same noise everywhere, and sample i does not depend on how many there are.

    \b
    toolkit sample digits.onnx -n 64 --label 7 --steps 20 --guidance 2 --out sevens.png
    toolkit sample digits.onnx -n 8 --label 0,1,2 --show-trajectory --out path.gif
    toolkit sample digits.onnx -n 8 --label 7 --solver dopri5 --tolerance 1e-4 --out sevens.png
    """
    import runtimes
    from runtimes.files import refuse_existing
    from runtimes.limits import stopped_by_signals
    from toolkit import show

    refuse_existing(out, force)
    with stopped_by_signals():
        opened = runtimes.load(model, provider=provider, threads=threads)
        request: dict[str, Any] = {
            "label": None if label is None else labels(label),
            "context": None if context is None else _contexts(context),
            "solver": solver,
            "steps": steps,
            "grid": _times(grid),
            "guidance": guidance,
            "interval": tuple(_numbers("interval", interval, 2)),
            "chart": chart,
            "eta": eta,
            "diffusion": diffusion,
            "seed": seed,
        }
        show.check(out, opened.spec.shape, trajectory=show_trajectory)
        bar, started = Bar("sampling"), time.perf_counter()
        if solver in PAIRS:
            request["times"] = _asked_times(steps, request.pop("grid"), eta, show_trajectory)
            del request["steps"], request["eta"], request["diffusion"]
            calls = _integrate(opened, out, count, request, tolerance, batch, show_trajectory, bar)
        else:
            if tolerance is not None:
                raise ValueError(
                    f"tolerance: expected none for a solver that walks a grid, got {tolerance}; "
                    f"use --solver {' or '.join(PAIRS)}"
                )
            calls = _walk(opened, out, count, request, batch, show_trajectory, bar)
    seconds = time.perf_counter() - started
    click.echo(f"{one_line(out)}: {count} samples, {calls}, {seconds:.2f} s on {opened.provider}")


def _walk(
    opened: Any,
    out: str,
    count: int,
    request: dict[str, Any],
    batch: int,
    trajectory: bool,
    bar: Bar,
) -> str:
    """Sample along a grid into `out`; what it cost, in words."""
    import runtimes
    from runtimes.conditions import MOST_BYTES, fits
    from toolkit import show

    todo = runtimes.plan(opened, count, **request)
    if trajectory:  # every state is kept
        fits("n", count * len(todo.times), opened.spec.shape, MOST_BYTES)
        states = [_shown(bar, state) for state in todo.states(0, count)]
        show.save_trajectory(out, states, todo.times, opened.spec.value_range)
    else:
        samples = runtimes.sample(opened, count, batch=batch, progress=bar.show, **request)
        show.save_samples(out, samples, opened.spec.value_range)
    return f"{todo.tableau.calls} network calls each"


def _integrate(
    opened: Any,
    out: str,
    count: int,
    request: dict[str, Any],
    tolerance: float | None,
    batch: int,
    trajectory: bool,
    bar: Bar,
) -> str:
    """Sample with steps of each sample's own into `out`; what it cost, in words."""
    import runtimes
    from toolkit import show

    tolerance = 1e-5 if tolerance is None else tolerance
    method = request.pop("solver")
    result = runtimes.integrate(
        opened,
        count,
        method=method,
        rtol=tolerance,
        atol=tolerance,
        batch=batch,
        progress=bar.show,
        **request,
    )
    if trajectory:
        show.save_trajectory(out, result.path, result.times, opened.spec.value_range)
    else:
        show.save_samples(out, result.x, opened.spec.value_range)
    calls = result.calls
    return f"{calls.min()} to {calls.max()} network calls each ({calls.mean():.0f} on average)"


def _asked_times(
    steps: int | None, grid: str | list[float] | None, eta: float, trajectory: bool
) -> list[float]:
    """The times at which an adaptive solver's states are wanted: one's own, or evenly spaced ones."""
    if isinstance(grid, list):
        return grid
    for name, given in (
        ("eta", eta != 1.0),
        ("grid", grid is not None),
        ("steps", steps is not None and not trajectory),
    ):
        if given:
            raise ValueError(
                f"{name}: expected none for {' or '.join(PAIRS)}, which choose their own steps, got one; "
                "leave it out, or give --tolerance"
            )
    count = check_steps((steps or 20) if trajectory else 1)
    return [k / count for k in range(count + 1)]


def labels(text: str) -> list[int | str]:
    """'0,1,cat' -> [0, 1, 'cat']."""
    words = [word.strip() for word in text.split(",")]
    return [int(word) if WHOLE.fullmatch(word) else word for word in words]


def _shown(bar: Bar, state: Any) -> Any:
    bar.show(state.step, state.steps, f"t = {state.t:.2f}")
    return state.x


def _contexts(path: str) -> Any:
    from pathlib import Path

    from toolkit.data.arrays import arrays_in

    try:
        (array,) = arrays_in(Path(path)).values()
    except (OSError, ValueError) as error:
        raise ValueError(f"context: expected a .npy file of one array, got {error}") from None
    return array


def _times(grid: str | None) -> str | list[float] | None:
    if grid is None or "," not in grid or "(" in grid:  # beta(0.6,0.6) is a name
        return grid
    return _numbers("grid", grid, None)


def _numbers(what: str, text: str, count: int | None) -> list[float]:
    words = [word.strip(" ") for word in text.split(",")]
    plain = all(REAL.fullmatch(word) for word in words)
    if not plain or (count is not None and len(words) != count):
        wanted = "numbers" if count is None else f"{count} numbers"
        raise ValueError(
            f"{what}: expected {wanted} with commas between, got {quoted(text)}; like 0,0.5,1"
        )
    return [float(word) for word in words]
