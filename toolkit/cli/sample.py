"""`toolkit sample`: noise in, a picture or an array out, by ONNX Runtime alone."""

import time
from functools import partial
from typing import Any

import click

from runtimes.adaptive import PAIRS
from runtimes.charts import CHARTS
from runtimes.choices import quoted
from runtimes.grids import GRIDS
from runtimes.solvers import SOLVERS
from runtimes.stochastic import DIFFUSIONS
from runtimes.ways import WAYS
from toolkit.cli import numbers
from toolkit.cli.numbers import REAL, WHOLE
from toolkit.cli.progress import Bar
from toolkit.cli.words import one_line


@click.command()
@click.argument("model", metavar="MODEL.onnx")
@click.option(
    "-n", "--count", type=int, help="How many samples.  [16, or as many as --from holds]"
)
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
    "--calls", type=int, help="The fitted tableau of so many network calls, from toolkit fit."
)
@click.option(
    "-g", "--guidance", type=float, help="Weight of the condition; 1 is off.  [the model's own]"
)
@click.option(
    "--interval", default="0,1", show_default=True, help="The t in which guidance is on."
)
@click.option(
    "--rescale", default=0.0, show_default=True, help="Keep the unguided spread: 0 to 1."
)
@click.option("--cfgpp", type=float, help="CFG++ in place of --guidance, 0 to 1.")
@click.option("--guide", metavar="WORSE.onnx", help="A worse model to be guided away from.")
@click.option("--from", "start", metavar="FILE.npy", help="Data to start from: see --strength.")
@click.option("--strength", type=float, help="How far back to noise --from goes, 0 to 1.  [0.6]")
@click.option("--mask", metavar="FILE.npy", help="1 where --from is kept, 0 where it is painted.")
@click.option("--invert", is_flag=True, help="Write the noise that leads to --from.")
@click.option("--noise", metavar="FILE.npy", help="Noise to start from, such as --invert wrote.")
@click.option("--interpolate", type=int, metavar="SEED", help="From --seed to this seed.")
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
@click.option(
    "--batch",
    type=int,
    help="Samples per network call.  [2048 pixels, at most 1024; 64 off the CPU]",
)
@click.option(
    "--provider",
    default="auto",
    show_default=True,
    help="cpu, cuda, tensorrt, coreml or directml.",
)
@click.option(
    "--how",
    default="auto",
    show_default=True,
    help=f"Who runs the loop: one of {', '.join(WAYS)}; what a file can do is known to it.",
)
@click.option(
    "--threads", default="0", show_default=True, help="So many, all, or 0: by the network's size."
)
@click.option("-o", "--out", required=True, help="Where to: .png, .gif, .npy or .npz.")
@click.option("--show-trajectory", is_flag=True, help="Write the path from noise to data instead.")
@click.option("-f", "--force", is_flag=True, help="Overwrite --out.")
def sample(
    model: str,
    count: int | None,
    label: str | None,
    context: str | None,
    solver: str | None,
    tolerance: float | None,
    steps: int | None,
    grid: str | None,
    calls: int | None,
    guidance: float | None,
    interval: str,
    rescale: float,
    cfgpp: float | None,
    guide: str | None,
    start: str | None,
    strength: float | None,
    mask: str | None,
    invert: bool,
    noise: str | None,
    interpolate: int | None,
    chart: str,
    eta: float,
    diffusion: str,
    seed: int,
    batch: int | None,
    provider: str,
    how: str,
    threads: str,
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
    toolkit sample digits.onnx --from mine.npy --strength 0.5 --label 3 --out threes.png
    toolkit sample digits.onnx --from mine.npy --mask known.npy --label 3 --out whole.png
    """
    import runtimes
    from runtimes.conditions import MOST_BYTES, fits
    from runtimes.files import refuse_existing
    from runtimes.limits import stopped_by_signals
    from runtimes.sample import collect
    from runtimes.work import BATCH, LARGEST_BATCH
    from toolkit import show
    from toolkit.cli import adaptive, controls

    refuse_existing(out, force)
    if invert and show_trajectory:
        raise ValueError("show-trajectory: expected none beside --invert, got both; leave one out")
    with stopped_by_signals():
        rows = min(controls.COUNT if count is None else count, batch or LARGEST_BATCH)
        load = partial(
            runtimes.load, provider=provider, threads=numbers.threads(threads), rows=rows
        )
        opened = load(model)
        request: dict[str, Any] = {
            "label": None if label is None else labels(label),
            "context": None if context is None else controls.array("context", context),
            "solver": solver,
            "steps": steps,
            "grid": _times(grid),
            "calls": calls,
            "guidance": guidance,
            "interval": tuple(_numbers("interval", interval, 2)),
            "rescale": rescale,
            "cfgpp": cfgpp,
            "guide": None if guide is None else load(guide),
            "chart": chart,
            "eta": eta,
            "diffusion": diffusion,
            "seed": seed,
            "how": how,
        }
        show.check(out, opened.spec.shape, trajectory=show_trajectory)
        wanted = controls.Wanted(start, strength, mask, invert, noise, interpolate)
        bar, started = Bar("sampling"), time.perf_counter()
        if solver in PAIRS:
            result = adaptive.integrate(
                opened,
                count,
                request,
                wanted,
                tolerance=tolerance,
                trajectory=show_trajectory,
                batch=BATCH if batch is None else batch,
                bar=bar,
            )
            path, times, cost = result.path, result.times, adaptive.cost(result)
            count = len(result.calls)
        else:
            adaptive.refuse_tolerance(tolerance)
            todo = controls.plan(opened, count, wanted, request)
            count, times = len(todo.seeds), todo.times
            ran = controls.ran(todo, every_state=show_trajectory)
            cost = f"{todo.calls} network calls each{_halves(todo, calls)}{ran}"
            if show_trajectory:  # every state is kept
                fits("n", count * len(times), opened.spec.shape, MOST_BYTES)
                path = [_shown(bar, state) for state in todo.states(0, count)]
            else:
                path = [controls.finished(todo, collect(todo, batch=batch, progress=bar.show))]
        if show_trajectory:
            show.save_trajectory(out, path, times, opened.spec.value_range)
        else:
            show.save_samples(out, path[-1], opened.spec.value_range)
    seconds = time.perf_counter() - started
    click.echo(f"{one_line(out)}: {count} samples, {cost}, {seconds:.2f} s on {opened.provider}")


def labels(text: str) -> list[int | str]:
    """'0,1,cat' -> [0, 1, 'cat']."""
    words = [word.strip() for word in text.split(",")]
    return [int(word) if WHOLE.fullmatch(word) else word for word in words]


def _halves(todo: Any, calls: int | None) -> str:
    """How many calls of a fitted tableau are made of both halves, for these cost two."""
    both = 0 if calls is None else sum(row.guided for row in todo.tableau.rows)
    return f", {both} of them guided and worth two" if both else ""


def _shown(bar: Bar, state: Any) -> Any:
    bar.show(state.step, state.steps, f"t = {state.t:.2f}")
    return state.x


def _times(grid: str | None) -> str | list[float] | None:
    if grid is None or "," not in grid or "(" in grid:  # beta(0.6,0.6) is a name
        return grid
    return _numbers("grid", grid, None)


def _numbers(what: str, text: str, count: int | None) -> list[float]:
    words = [word.strip(" ") for word in text.split(",")]
    plain = all(REAL.fullmatch(word) for word in words)
    if not plain or (count is not None and len(words) != count):
        wanted, like = ("numbers", "0,0.5,1") if count is None else (f"{count} numbers", "0,0.8")
        raise ValueError(
            f"{what}: expected {wanted} with commas between, got {quoted(text)}; like {like}"
        )
    return [float(word) for word in words]
