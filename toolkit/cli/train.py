"""`toolkit train`: a data set in, a run folder out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from runtimes.predictions import PREDICTIONS
from runtimes.schedules import SCHEDULES
from toolkit.cli.progress import Bar, clock


@click.command()
@click.argument("data")
@click.option("-o", "--out", required=True, help="The run folder to write.")
@click.option("--network", help="dit or mlp.  [by the data's shape]")
@click.option("--schedule", help=f"One of {', '.join(SCHEDULES)}.  [linear]")
@click.option("--prediction", help=f"One of {', '.join(PREDICTIONS)}.  [velocity]")
@click.option("--pairing", help="independent or optimal_transport.  [independent]")
@click.option("--times", help="uniform or logit_normal.  [uniform]")
@click.option("--steps", type=int, help="Optimiser steps.  [by the data]")
@click.option("--batch", type=int, help="Rows per step, over all processes.  [by the data]")
@click.option("--lr", type=float, help="Peak learning rate.  [by the data]")
@click.option("--seed", type=int, help="Of weights, order, noise: 0 to 2^53-1.  [0]")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or mps.")
@click.option("--precision", help="fp32 or bf16.  [fp32]")
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in --out, bit for bit.")
def train(data: str, out: str, device: str, resume: bool, **given: Any) -> None:
    """Train a network on DATA: digits, a 2-D toy, or your own .npz of arrays x [, y].

    The run folder gets checkpoints, spec.json, metrics.jsonl, loss.png and a preview of samples.
    Under torchrun the same command trains on every process.

    \b
    toolkit train digits --out runs/digits
    toolkit train two-moons --out runs/moons --steps 2000
    toolkit train mydata.npz --out runs/mine --network dit
    torchrun --nproc-per-node 2 -m toolkit train digits --out runs/digits
    """
    from toolkit import data as data_sets
    from toolkit.recipe import default_recipe

    known = data_sets.load(data)
    recipe = default_recipe(known)
    changes = {key: value for key, value in given.items() if value is not None}
    recipe = replace(recipe, **changes)

    from toolkit.train_torch import train as steps_of

    bar = Bar(f"training {known.name}")
    for now in steps_of(recipe, known, Path(out), device=device, resume=resume):
        rest = f"loss {now.mean_loss:.3f}  {now.steps_per_second:.1f} steps/s  {clock(now.seconds_left)} left"
        bar.show(now.step, now.steps, rest)
        if now.saved is not None:
            _preview(Path(out), known)
    click.echo(f"{out}: {recipe.steps} steps, see {Path(out) / 'loss.png'} and {Path(out) / 'preview.png'}")
