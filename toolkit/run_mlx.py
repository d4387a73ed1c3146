"""An MLX run in memory <-> its checkpoints: what is saved, restored and loaded.

The arrays and their names are those of run_torch.py, so either framework opens what the other saved.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from runtimes.spec import Spec
from toolkit import networks, runs
from toolkit.checkpoints import Checkpoint
from toolkit.networks import Sizes, layers_mlx
from toolkit.processes import Processes
from toolkit.recipe import Recipe

# what a checkpoint calls the four dicts of a State
PARTS = ("network", "ema", "optimiser/exp_avg", "optimiser/exp_avg_sq")


@dataclass(frozen=True)
class State:
    """What a step changes, each by the names of the weights: a checkpoint's arrays.

    mean, square: the moving averages of the gradient and of its square.
    """

    weights: dict[str, mx.array]
    average: dict[str, mx.array]
    mean: dict[str, mx.array]
    square: dict[str, mx.array]


@dataclass(kw_only=True)
class Run(runs.Run):
    """A training run in memory: what a checkpoint restores, and where it runs."""

    device: mx.Device
    module: nn.Module
    state: State
    advance: Any  # train_mlx.advance of this run


def first_state(module: nn.Module) -> State:
    """The first weights, as their own average, and no gradient seen."""
    weights = layers_mlx.flat(module)
    none = {name: mx.zeros_like(array) for name, array in weights.items()}
    return State(weights, weights, none, none)


def arrays_of(run: Run) -> dict[str, NDArray[Any]]:
    """The arrays of the run as it is now."""
    parts = zip(PARTS, vars(run.state).values(), strict=True)
    return {
        f"{part}/{name}": np.array(array)
        for part, arrays in parts
        for name, array in arrays.items()
    }


def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Put the run where the checkpoint left it. Raises ValueError if an array is missing."""
    shapes = layers_mlx.shapes(run.module)
    saved = (runs.arrays_in(run.out, checkpoint, part, shapes) for part in PARTS)
    run.state = State(*({name: mx.array(part[name]) for name in shapes} for part in saved))
    run.step, run.mean_loss = checkpoint.step, checkpoint.facts["mean_loss"]


def load(folder: Path, *, which: str = "ema") -> tuple[nn.Module, Spec]:
    """The trained network of a run folder in eval mode, and its spec. which: ema or network.

    Whether MLX or torch trained it: the arrays have the same names. It runs on MLX's default device.
    """
    recipe, sizes, spec, arrays = runs.open_run(folder, which, _shapes)
    module = networks.make(recipe, sizes, layers_mlx)
    layers_mlx.fill(module, arrays)
    module.freeze()
    return module.eval(), spec


def made_with(device: mx.Device, ours: Processes) -> dict[str, Any]:
    """What the bits of a run depend on beside its recipe and data."""
    preloaded = os.environ.get("LD_PRELOAD", "").replace(":", " ").split()
    return {
        "mlx": mx.__version__,
        "numpy": np.__version__,
        "chip": mx.device_info(device).get("device_name", ""),
        "device": str(device.type).rpartition(".")[2],
        "preloaded": [os.path.basename(path) for path in preloaded],  # most likely a BLAS
        "processes": ours.world,
    }


def _shapes(recipe: Recipe, sizes: Sizes) -> Mapping[str, tuple[int, ...]]:
    """No memory is taken: MLX makes its zeros when they are asked for."""
    return layers_mlx.shapes(networks.NETWORKS[recipe.network](layers_mlx, sizes))
