"""w <- w - lr AdamW(gradient of the loss): training in PyTorch, on one device or under torchrun.

    for progress in train(recipe, data, Path("runs/digits")):
        print(progress.step, progress.mean_loss)

The run folder gets recipe.json, spec.json, metrics.jsonl and checkpoints, see `runs`. All randomness
comes from (seed, step), see `draws`; so a resumed run is the uninterrupted one bit for bit on the same
machine, and a run on two processes differs from that on one by rounding only.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolkit import ema, networks, objectives, runs
from toolkit.checkpoints import Checkpoint
from toolkit.data import Data
from toolkit.draws import Draw, draw, key
from toolkit.lock import locked
from toolkit.objectives import Row
from toolkit.paths import PAIRINGS
from toolkit.processes import Processes
from toolkit.processes_torch import anybody, mean, pick_device, processes, together, wrap
from toolkit.recipe import Recipe, rate_at, spec_of
from toolkit.run_torch import Run, arrays_of, load, made_with, restore
from toolkit.runs import Progress

__all__ = ["Progress", "load", "spec_of", "train"]


def train(
    recipe: Recipe,
    data: Data,
    out: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Progress]:
    """Train and yield a Progress after every step; mistakes are raised before the first one.

    device: auto, cpu, cuda or mps. resume: go on from the newest checkpoint in `out`; FileNotFoundError
    if there is none, ValueError if it is of another recipe, other data or MLX. Without it `out` must be
    empty or absent (FileExistsError), and no other process may be training in it. stop() is asked after
    every step: True saves a checkpoint and ends the run there. FloatingPointError at the first loss
    that is not finite.
    """
    ours = processes()
    where = pick_device(device, ours)
    machine = made_with(where, ours)
    checkpoint = runs.begin(recipe, data, out, ours, "torch", machine, resume)
    return _train(recipe, data, out, where, ours, checkpoint, stop)


def loss_at(
    network: torch.nn.Module,
    recipe: Recipe,
    row: Row,
    x: Tensor,
    noise: Tensor,
    told: Tensor | None,
) -> Tensor:
    """The loss of the network on rows x with this noise, at the times and numbers of `row`."""
    given = (objectives.point(row, x, noise), row.time, *(() if told is None else (told,)))
    with torch.autocast(x.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        answer = network(*given)
    return objectives.loss(row, answer.float(), objectives.target(row, x, noise))


def _train(
    recipe: Recipe,
    data: Data,
    out: Path,
    device: torch.device,
    ours: Processes,
    checkpoint: Checkpoint | None,
    stop: Callable[[], bool],
) -> Iterator[Progress]:
    with locked(out) if ours.first else nullcontext(), together(ours, device):
        run = _start(recipe, data, out, device, ours, checkpoint)
        asked = partial(anybody, ours, device)
        yield from runs.follow(run, partial(_step, run), partial(arrays_of, run), asked, stop)
        run.network = run.module  # the wrapper must not outlive the process group


def _start(
    recipe: Recipe,
    data: Data,
    out: Path,
    device: torch.device,
    ours: Processes,
    checkpoint: Checkpoint | None,
) -> Run:
    """The run at its first step, or where the checkpoint left it."""
    module = networks.build(recipe, data).to(device)
    weights = list(module.parameters())
    run = Run(
        recipe=recipe,
        data=data,
        out=out,
        ours=ours,
        framework="torch",
        made_with=made_with(device, ours),
        count=sum(weight.numel() for weight in weights),
        device=device,
        module=module,
        network=module,
        average={name: array.detach().clone() for name, array in module.named_parameters()},
        optimiser=torch.optim.AdamW(
            weights,
            lr=recipe.lr,
            betas=(0.9, 0.99),
            weight_decay=recipe.decay,
            fused=device.type in ("cpu", "cuda"),
        ),
    )
    if checkpoint is not None:
        restore(run, checkpoint)
    run.network = wrap(ours, module, device)
    return run


def _step(run: Run) -> float:
    """One optimiser step; the loss before it, the mean over all processes."""
    recipe = run.recipe
    share = run.ours.share(recipe.batch)
    drawn = draw(recipe, run.data, run.step)
    x, noise = _batch(run, drawn, share)
    row = drawn.row.to(lambda values: _tensor(run, values[share]))
    told = None if drawn.condition is None else _tensor(run, drawn.condition[share])
    loss = loss_at(run.network, recipe, row, x, noise, told)

    run.optimiser.param_groups[0]["lr"] = rate_at(recipe, run.step)
    run.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(run.module.parameters(), recipe.clip)
    value, size = mean(run.ours, torch.stack([loss.detach(), norm]))
    runs.check_finite(run, value, size)  # before the weights are touched
    run.optimiser.step()
    _average(run)
    return value


@torch.no_grad()
def _average(run: Run) -> None:
    decay = ema.decay_at(run.step, run.recipe.ema)
    for name, weight in run.module.named_parameters():
        run.average[name] = ema.update(run.average[name], weight, decay)


def _batch(run: Run, drawn: Draw, share: slice) -> tuple[Tensor, Tensor]:
    """(data, noise) of this process's rows, paired; every process draws the noise of all rows."""
    recipe, data = run.recipe, run.data
    x = data.x[drawn.rows]
    noise = torch.empty(x.shape, device=run.device).normal_(generator=_generator(run, "noise"))
    if recipe.pairing != "independent":
        pairs = PAIRINGS[recipe.pairing](x, noise.cpu().numpy(), drawn.groups)
        noise = noise[_tensor(run, pairs)]
    mine = _tensor(run, x[share])
    if data.step is not None:
        dither = torch.empty(x.shape, device=run.device)
        dither.uniform_(-0.5 * data.step, 0.5 * data.step, generator=_generator(run, "dequantise"))
        mine = mine + dither[share]
    return mine, noise[share]


def _generator(run: Run, stream: str) -> torch.Generator:
    return torch.Generator(run.device).manual_seed(key(run.recipe, run.step, stream))


def _tensor(run: Run, array: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(run.device)
