"""w <- w - lr AdamW(gradient of the loss): training in MLX, on one device or under mlx.launch.

    for progress in train(recipe, data, Path("runs/digits")):
        print(progress.step, progress.mean_loss)

The same verbs as train_torch.py and the same folder, see `runs`. A step is one compiled function of
arrays, from a State to the next; all randomness comes from (seed, step), see `draws`.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import clip_grad_norm

from toolkit import ema, networks, objectives, runs
from toolkit.checkpoints import Checkpoint
from toolkit.data import Data
from toolkit.draws import Draw, draw, key
from toolkit.lock import locked
from toolkit.networks import layers_mlx
from toolkit.objectives import Row
from toolkit.paths import PAIRINGS
from toolkit.processes import Processes
from toolkit.processes_mlx import anybody, average, pick_device, processes
from toolkit.recipe import Recipe, rate_at, spec_of
from toolkit.run_mlx import Run, State, arrays_of, first_state, load, made_with, restore
from toolkit.runs import Progress

__all__ = ["Progress", "load", "spec_of", "train"]

BETAS = (0.9, 0.99)
TINY = 1e-8
PIECE = re.compile(r"/[^:]*/mlx/[^/:]+/cpu/[^/:]+\.so")  # as MLX names one that it cannot load


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

    device: auto, cpu or gpu. The rest is as in train_torch.train.
    """
    ours = processes()
    where = pick_device(device)
    machine = made_with(where, ours)
    checkpoint = runs.begin(recipe, data, out, ours, "mlx", machine, resume)
    return _train(recipe, data, out, where, ours, checkpoint, stop)


def loss_at(
    module: nn.Module,
    weights: dict[str, mx.array],
    recipe: Recipe,
    row: Row,
    x: mx.array,
    noise: mx.array,
    told: mx.array | None,
) -> mx.array:
    """The loss of the network on rows x with this noise, at the times and numbers of `row`."""
    given = (objectives.point(row, x, noise), row.time, *(() if told is None else (told,)))
    if recipe.precision == "bf16":
        weights = {name: array.astype(mx.bfloat16) for name, array in weights.items()}
    answer = layers_mlx.call(module, weights, given).astype(mx.float32)
    return objectives.loss(row, answer, objectives.target(row, x, noise))


def advance(
    module: nn.Module,
    recipe: Recipe,
    ours: Processes,
    state: dict[str, dict[str, mx.array]],
    batch: dict[str, Any],
    numbers: mx.array,
) -> tuple[dict[str, dict[str, mx.array]], mx.array]:
    """(the state after a step, [the loss before it, the norm of its gradient]); numbers: see `numbers_at`.

    AdamW with decoupled decay: Loshchilov & Hutter 2019, Alg. 2, with the bias corrections of Kingma &
    Ba 2015, Alg. 1.
    """
    now = State(**state)
    batch = {**batch, "row": Row(**batch["row"])}
    loss, gradient = mx.value_and_grad(lambda weights: loss_at(module, weights, recipe, **batch))(
        now.weights
    )
    gradient, norm = clip_grad_norm(average(ours, gradient), recipe.clip)
    kept, rate, root, decay = numbers
    after = State({}, {}, {}, {})
    for name, weight in now.weights.items():
        g = gradient[name]
        mean = now.mean[name] * BETAS[0] + g * (1.0 - BETAS[0])
        square = now.square[name] * BETAS[1] + g * g * (1.0 - BETAS[1])
        weight = weight * kept + rate * mean / (mx.sqrt(square) / root + TINY) * -1.0
        after.weights[name], after.mean[name], after.square[name] = weight, mean, square
        after.average[name] = ema.update(now.average[name], weight, decay)
    return vars(after), mx.stack([average(ours, {"loss": loss})["loss"], norm])


def numbers_at(recipe: Recipe, step: int) -> mx.array:
    """[1 - lr decay, lr / (1 - beta1^k), sqrt(1 - beta2^k), decay of the average] of the k-th step."""
    rate, k = rate_at(recipe, step), step + 1
    root = (1.0 - BETAS[1] ** k) ** 0.5
    numbers = 1.0 - rate * recipe.decay, rate / (1.0 - BETAS[0] ** k), root
    return mx.array([*numbers, ema.decay_at(step, recipe.ema)])


def _train(
    recipe: Recipe,
    data: Data,
    out: Path,
    device: mx.Device,
    ours: Processes,
    checkpoint: Checkpoint | None,
    stop: Callable[[], bool],
) -> Iterator[Progress]:
    with locked(out) if ours.first else nullcontext():
        run = _start(recipe, data, out, device, ours, checkpoint)
        asked = partial(anybody, ours)
        yield from runs.follow(run, partial(_step, run), partial(arrays_of, run), asked, stop)


def _start(
    recipe: Recipe,
    data: Data,
    out: Path,
    device: mx.Device,
    ours: Processes,
    checkpoint: Checkpoint | None,
) -> Run:
    """The run at its first step, or where the checkpoint left it."""
    module = networks.build(recipe, data, layers_mlx)
    state = first_state(module)
    step = partial(advance, module, recipe, ours)
    # on a CPU compiled pieces are shared files, which two processes of an older MLX write at once
    alone = ours.world == 1 or device.type == mx.gpu
    run = Run(
        recipe=recipe,
        data=data,
        out=out,
        ours=ours,
        framework="mlx",
        made_with=made_with(device, ours),
        count=sum(array.size for array in state.weights.values()),
        device=device,
        module=module,
        state=state,
        advance=mx.compile(step) if alone else step,
    )
    if checkpoint is not None:
        restore(run, checkpoint)
    return run


def _step(run: Run) -> float:
    """One optimiser step; the loss before it, the mean over all processes."""
    recipe = run.recipe
    share = run.ours.share(recipe.batch)
    drawn = draw(recipe, run.data, run.step)
    with mx.stream(run.device):  # entered per step: held open it would leak into the caller
        x, noise = _batch(run, drawn, share)
        row = drawn.row.to(lambda values: mx.array(values[share]))
        told = None if drawn.condition is None else mx.array(drawn.condition[share])
        batch = {"row": vars(row), "x": x, "noise": noise, "told": told}
        state, seen = _evaluated(run, batch)
        value, size = seen.tolist()
    runs.check_finite(run, value, size)  # before the weights are touched
    run.state = State(**state)
    return float(value)


def _evaluated(run: Run, batch: dict[str, Any]) -> tuple[dict[str, dict[str, mx.array]], mx.array]:
    """`advance`, again if a compiled piece of it cannot be loaded, without that piece.

    On a CPU, MLX runs g++ for each and keeps its file. At a terminal Ctrl-C ends that g++ too, and MLX
    keeps half a file, which would fail every run to come.
    """
    given = vars(run.state), batch, numbers_at(run.recipe, run.step)
    for _ in range(3):
        try:
            mx.eval(after := run.advance(*given))
            return after
        except RuntimeError as error:
            if (piece := PIECE.search(str(error))) is None:
                raise
            Path(piece[0]).unlink(missing_ok=True)
    mx.eval(after := run.advance(*given))
    return after


def _batch(run: Run, drawn: Draw, share: slice) -> tuple[mx.array, mx.array]:
    """(data, noise) of this process's rows, paired; every process draws the noise of all rows."""
    recipe, data = run.recipe, run.data
    x = data.x[drawn.rows]
    noise = mx.random.normal(x.shape, key=_key(run, "noise"))
    if recipe.pairing != "independent":
        noise = noise[mx.array(PAIRINGS[recipe.pairing](x, np.array(noise), drawn.groups))]
    mine = mx.array(x[share])
    if data.step is not None:
        half = 0.5 * data.step
        mine = mine + mx.random.uniform(-half, half, x.shape, key=_key(run, "dequantise"))[share]
    return mine, noise[share]


def _key(run: Run, stream: str) -> mx.array:
    return mx.random.key(key(run.recipe, run.step, stream))
