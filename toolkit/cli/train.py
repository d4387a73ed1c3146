"""`toolkit train`: a data set in, a run folder out."""

import importlib
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from runtimes.predictions import PREDICTIONS
from runtimes.schedules import SCHEDULES
from toolkit.cli.progress import Bar, clock

SHOWN = 64  # samples in a preview
# framework: what `export` calls its modules when they are sampled; toolkit/train_FRAMEWORK.py trains
BACKENDS = {"torch": "TorchModel", "mlx": "MlxModel"}


@click.command()
@click.argument("data")
@click.option("-o", "--out", required=True, help="The run folder to write.")
@click.option("--network", help="dit or mlp.  [by the data]")
@click.option(
    "--schedule", help=f"One of {', '.join(SCHEDULES)}, or like polynomial(3).  [linear]"
)
@click.option("--prediction", help=f"One of {', '.join(PREDICTIONS)}.  [velocity]")
@click.option("--pairing", help="independent or optimal_transport.  [independent]")
@click.option("--times", help="uniform or logit_normal.  [uniform]")
@click.option("--steps", type=int, help="Optimiser steps.  [by the data]")
@click.option("--batch", type=int, help="Rows per step, over all processes.  [by the data]")
@click.option("--lr", type=float, help="Peak learning rate.  [by the data]")
@click.option("--seed", type=int, help="Of weights, order, times and noise.  [0]")
@click.option(
    "--backend",
    default="auto",
    show_default=True,
    help="torch or mlx; auto is that of the run with --resume, else torch where it is installed.",
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="cpu, cuda or mps; cpu or gpu with --backend mlx.",
)
@click.option("--precision", help="fp32 or bf16.  [fp32]")
@click.option(
    "--resume", is_flag=True, help="Go on from the newest checkpoint in --out, bit for bit."
)
def train(
    data: str,
    out: str,
    network: str | None,
    schedule: str | None,
    prediction: str | None,
    pairing: str | None,
    times: str | None,
    steps: int | None,
    batch: int | None,
    lr: float | None,
    seed: int | None,
    backend: str,
    device: str,
    precision: str | None,
    resume: bool,
) -> None:
    """Train a network on DATA: digits, a 2-D toy, or your own .npz of arrays x [, y].

    The run folder gets checkpoints, spec.json, recipe.json, metrics.jsonl, loss.png and preview.png.
    Ctrl-C or SIGTERM saves a checkpoint first; --resume goes on from it. Under torchrun, or mlx.launch
    for --backend mlx, the same command trains on every process. The folder is the same for both
    backends: whichever is installed exports and samples from it.

    \b
    toolkit train digits --out runs/digits
    toolkit train digits --out runs/digits --backend mlx
    toolkit train two-moons --out runs/moons --steps 2000
    toolkit train mydata.npz --out runs/mine --network dit
    torchrun --nproc-per-node 2 -m toolkit train digits --out runs/digits
    """
    from toolkit import data as data_sets
    from toolkit.recipe import default_recipe
    from toolkit.signals import asked_to_stop

    given = {
        "schedule": schedule,
        "prediction": prediction,
        "pairing": pairing,
        "times": times,
        "steps": steps,
        "batch": batch,
        "lr": lr,
        "seed": seed,
        "precision": precision,
    }
    known = data_sets.load(data)
    recipe = replace(default_recipe(known, network), data=data)
    recipe = replace(recipe, **{key: value for key, value in given.items() if value is not None})

    backend = pick_backend(backend, Path(out), resume)
    framework = trainer(backend)  # after the checks: torch takes seconds to load
    if backend == "mlx":
        from toolkit.processes_mlx import advice

        if words := advice(device):
            click.echo(words, err=True)
    bar = Bar(f"training {known.name}")
    with asked_to_stop() as asked:
        for now in framework.train(
            recipe, known, Path(out), device=device, resume=resume, stop=asked
        ):
            rest = f"loss {now.mean_loss:.3f}  {now.steps_per_second:.1f} steps/s  {clock(now.seconds_left)}"
            bar.show(now.step, now.steps, rest)
            if now.saved is not None and now.step in (now.steps, recipe.steps // 2):
                draw(Path(out), known, backend)
    if asked():
        click.echo(f"{out}: stopped and saved; go on with --resume", err=True)
        raise SystemExit(asked.code)
    click.echo(f"{out}: done; see loss.png and preview.png there")


def pick_backend(name: str, out: Path, resume: bool) -> str:
    """The backend of that name; auto is that of the run to resume, else torch where it is installed."""
    from runtimes.choices import choose
    from toolkit.runs import framework_of

    choose("backend", name, ("auto", *BACKENDS))
    if name != "auto":
        return name
    default = "torch" if importlib.util.find_spec("torch") else "mlx"
    before = framework_of(out) if resume else default
    return before if before in BACKENDS else default


def trainer(backend: str) -> Any:
    """The module that trains with that backend; ImportError says what to install."""
    try:
        return importlib.import_module(f"toolkit.train_{backend}")
    except ImportError as error:
        raise ImportError(
            f"backend: expected {backend}, got {error}; pip install 'toolkit[{backend}]'"
        ) from error


def draw(run: Path, known: Any, backend: str) -> None:
    """Write loss.png and, where samples can be drawn, preview.png into a run folder."""
    import numpy as np

    import export
    import runtimes
    from toolkit import plots, show
    from toolkit.objectives import best_linear_loss

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    module, spec = trainer(backend).load(run)
    model = getattr(export, BACKENDS[backend])(spec, module)
    straight = spec.schedule == "linear" and spec.prediction == "velocity"
    plots.loss_curve(
        run / "loss.png",
        [line["step"] for line in lines],
        [line["loss"] for line in lines],
        floor=best_linear_loss(known.x) if straight else None,
        floor_label="best linear field" if straight else "",
    )
    if show.kind_of(spec.shape) == "arrays":
        return
    request: dict[str, Any] = {}
    if spec.condition.kind == "label":
        request["label"] = list(range(spec.condition.classes))
    elif spec.condition.kind == "context":
        request["context"] = np.resize(known.y, (SHOWN, *known.y.shape[1:]))
    samples = runtimes.sample(model, SHOWN, steps=10, **request)
    show.save_samples(run / "preview.png", samples, spec.value_range)
