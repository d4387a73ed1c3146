"""w <- w - lr AdamW(gradient of the loss): training in PyTorch, on one device or under torchrun.

    for progress in train(recipe, data, Path("runs/digits")):
        print(progress.step, progress.mean_loss)

The run folder gets recipe.json, spec.json, metrics.jsonl and checkpoints. All randomness comes from
(seed, step), see `draws`; so a resumed run is the uninterrupted one bit for bit on the same machine,
and a run on two processes differs from that on one by rounding only.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runtimes.files import write_whole
from runtimes.spec import to_json as spec_to_json
from toolkit import checkpoints, ema, networks, objectives
from toolkit import recipe as recipes
from toolkit.checkpoints import Checkpoint
from toolkit.data import Data
from toolkit.draws import Draw, draw, key
from toolkit.lock import locked
from toolkit.paths import PAIRINGS
from toolkit.processes_torch import Processes, pick_device, processes
from toolkit.recipe import Recipe, rate_at, spec_of
from toolkit.run_torch import Run, check_same, load, restore, snapshot

__all__ = ["Progress", "load", "spec_of", "train"]


@dataclass(frozen=True)
class Progress:
    """After step `step` of `steps`. saved: the checkpoint just written, if one was (first process only).

    loss: of this step; mean_loss: its moving average over about a hundred steps.
    """

    step: int
    steps: int
    loss: float
    mean_loss: float
    steps_per_second: float
    seconds_left: float
    saved: Path | None = None


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
    if there is none, ValueError if it is of another recipe or other data. Without it `out` must be
    empty or absent (FileExistsError), and no other process may be training in it. stop() is asked after
    every step: True saves a checkpoint and ends the run there. FloatingPointError at the first loss
    that is not finite.
    """
    ours = processes()
    where = pick_device(device, ours)
    _check(recipe, data, ours)
    checkpoint = checkpoints.latest(out) if resume else None
    if checkpoint is not None:
        check_same(recipe, data, out, checkpoint, where, ours)
    elif ours.first and out.is_dir() and any(p.name[0] != "." for p in out.iterdir()):
        raise FileExistsError(
            f"{out}: expected no such folder or an empty one, got files in it; "
            "give --resume or another --out"
        )
    return _train(recipe, data, out, where, ours, checkpoint, stop)


def _train(
    recipe: Recipe,
    data: Data,
    out: Path,
    device: torch.device,
    ours: Processes,
    checkpoint: Checkpoint | None,
    stop: Callable[[], bool],
) -> Iterator[Progress]:
    with locked(out) if ours.first else nullcontext(), ours.together(device):
        run = _start(recipe, data, out, device, ours, checkpoint)
        if ours.first:
            _open_folder(run, fresh=checkpoint is None)
        loss = run.mean_loss
        run.clock.append(time.perf_counter())
        asked = False
        while run.step < recipe.steps and not asked:
            loss = _step(run)
            run.clock.append(time.perf_counter())
            (share,) = ours.mean(torch.tensor([float(stop())], device=device))
            asked = share > 0.0  # one process asked: all stop after the same step
            yield _report(run, loss, asked)
        if ours.first:
            _write_spec(run, loss=round(run.mean_loss, 6))
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
    optimiser = torch.optim.AdamW(
        weights,
        lr=recipe.lr,
        betas=(0.9, 0.99),
        weight_decay=recipe.decay,
        fused=device.type in ("cpu", "cuda"),
    )
    average = {name: array.detach().clone() for name, array in module.named_parameters()}
    run = Run(recipe, data, out, device, ours, module, module, average, optimiser)
    if checkpoint is not None:
        restore(run, checkpoint)
    run.network = ours.wrap(module, device)
    return run


def _step(run: Run) -> float:
    """One optimiser step; the loss before it, the mean over all processes."""
    recipe = run.recipe
    share = run.ours.share(recipe.batch)
    drawn = draw(recipe, run.data, run.step)
    x, noise = _batch(run, drawn, share)
    row = drawn.row.to(lambda values: _tensor(run, values[share]))
    told = () if drawn.condition is None else (_tensor(run, drawn.condition[share]),)
    with torch.autocast(run.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        answer = run.network(objectives.point(row, x, noise), row.time, *told)
    loss = objectives.loss(row, answer.float(), objectives.target(row, x, noise))

    rate = rate_at(recipe, run.step)
    run.optimiser.param_groups[0]["lr"] = rate
    run.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(run.module.parameters(), recipe.clip)
    value, size = run.ours.mean(torch.stack([loss.detach(), norm]))
    if not math.isfinite(value + size):  # before the weights are touched
        raise FloatingPointError(
            f"step {run.step + 1}: expected a finite loss, got {value} with a gradient of {size}; "
            f"lower lr (it is {rate:.2g} now) or look at the data"
        )
    run.optimiser.step()
    _average(run)
    run.mean_loss = ema.update(run.mean_loss, value, ema.decay_at(run.step, 0.99))
    run.step += 1
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


def _report(run: Run, loss: float, asked: bool) -> Progress:
    """Write what is due after a step, or after the last before a stop, and say where the run stands."""
    recipe, last = run.recipe, asked or run.step == run.recipe.steps
    rate = (len(run.clock) - 1) / max(run.clock[-1] - run.clock[0], 1e-9)
    saved = None
    if run.ours.first:
        if last or run.step % recipe.log_every == 0:
            facts = {"step": run.step, "loss": loss, "mean_loss": run.mean_loss}
            facts |= {"lr": rate_at(recipe, run.step - 1), "steps_per_second": rate}
            _log(run.out / "metrics.jsonl", json.dumps(facts) + "\n")
        if last or run.step % recipe.save_every == 0:
            saved = checkpoints.save(run.out, snapshot(run))
    left = (recipe.steps - run.step) / rate
    return Progress(run.step, recipe.steps, loss, run.mean_loss, rate, left, saved)


def _log(path: Path, line: str) -> None:
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        raise type(error)(f"{path}: expected to write a line, got {error.strerror}") from None


def _open_folder(run: Run, fresh: bool) -> None:
    """A new run writes step 0, its recipe and its spec; a resumed one forgets what came after.

    The checkpoint comes first and the others are written anew on every start: wherever a kill or a
    full disk falls, the folder is as good as empty or can be resumed.
    """
    checkpoints.tidy(run.out)
    log = run.out / "metrics.jsonl"
    if fresh:
        checkpoints.save(run.out, snapshot(run))
    elif log.exists():
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        write_whole(log, "".join(line for line in lines if _logged(line, run.step)).encode())
    write_whole(run.out / "recipe.json", recipes.to_json(run.recipe).encode())
    _write_spec(run)


def _logged(line: str, step: int) -> bool:
    """Whether a line of the log is whole and of a step up to this one."""
    try:
        return line[-1] == "\n" and json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):  # half a line of a full disk
        return False


def _write_spec(run: Run, **facts: Any) -> None:
    count = sum(weight.numel() for weight in run.module.parameters())
    spec = spec_of(run.recipe, run.data, parameters=count, **facts)
    write_whole(run.out / "spec.json", spec_to_json(spec).encode())


def _check(recipe: Recipe, data: Data, ours: Processes) -> None:
    """Everything that can be known to fail before the first step."""
    draw(recipe, data, 0)
    ours.share(recipe.batch)
    networks.sizes_of(recipe, data.shape, networks.condition_of(data))
